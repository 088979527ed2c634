"""ActivityNet 1.3: long videos, and a JSON of the stretches of them that show an activity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vidstill.config import Data
from vidstill.data.lists import base, given_lists
from vidstill.data.official.finding import holds, official_files, read_table
from vidstill.data.official.present import Present
from vidstill.data.rows import SPLITS, UNDIVIDED, Listing, few
from vidstill.labels import class_names, read_json
from vidstill.video.frame_folder import is_frame_folder


def is_activitynet(path: Path) -> bool:
    """Whether a file is ActivityNet's own JSON or that of the boundary-matching network, by its name, so that one that
    is not understood is spoken of, or by what is in it."""
    if path.suffix.lower() != ".json":
        return False
    if _called(path):
        return True
    return holds(path, b'"database"', b'"taxonomy"') or holds(path, b'"duration_second"', b'"segment"')


def _called(path: Path) -> bool:
    return path.match("activity_net*.json") or path.name == "anet_anno_action.json"


def has_activitynet(data: Data) -> bool:
    return any(map(is_activitynet, given_lists(data).values() or _found(data)))


def read_activitynet(data: Data) -> Listing:
    """`activity_net.v1-3.min.json` of the makers, or `anet_anno_action.json` with `video_info_new.csv` beside it.

    Each segment is a sample, from its start to its end in seconds; its split is the video's subset. Videos are `v_<id>`
    or `<id>`, with any suffix or as frame folders, anywhere in `root`; those that are not there are left out with a
    note, as are segments without extent and videos whose labels are withheld. The rate of a frame folder is in its file
    `fps` (3D-ResNets), else in the table (`rfps`), else `data.fps`. The 200 classes are in the order of the
    published labels, which is not alphabetical. Raises ValueError for another version or another form.
    """
    found = _found(data)[:1]
    files = given_lists(data) or dict(zip([UNDIVIDED], found, strict=False))
    wrong = next((path for path in files.values() if not is_activitynet(path)), None)
    if wrong or not files:
        raise ValueError(
            f"{wrong or data.splits or data.root}: no JSON of ActivityNet 1.3 there: give activity_net.v1-3.min.json "
            "or anet_anno_action.json as data.train, or put it in data.root"
        )
    present = Present(base(data))
    empty: list[str] = []
    withheld = 0
    for given, source in files.items():
        for video in _videos(source):
            split = video.subset or given
            path = present.find(f"v_{video.name}", video.name)
            withheld += not video.segments
            fps = _rate(path, video.fps) if path else None
            for start, end, label in video.segments:
                if end <= start:
                    empty.append(f"{video.name} at {start:g} s")
                    continue
                present.add(
                    split, path, f"v_{video.name}", label, source, group=video.name, start=start, end=end, fps=fps
                )
    listing = present.listing(
        next(iter(files.values())), lambda name: f"{name}.* and {name[2:]}.*", class_names("activitynet200")
    )
    if withheld:
        listing.notes.append(f"{withheld} videos are not used, for they have no labels (the test's are withheld)")
    if empty:
        listing.notes.append(f"{len(empty)} segments without extent are left out: {few(empty)}")
    return listing


def _found(data: Data) -> list[Path]:
    if not data.root.is_dir():
        return []
    return sorted(official_files(data, is_activitynet, "*.json"), key=lambda path: (not _called(path), path))


class _Video(NamedTuple):
    name: str
    subset: str | None
    segments: list[tuple[float, float, str]]
    fps: float | None  # at which its frames were extracted


def _videos(path: Path) -> Iterator[_Video]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a {type(content).__name__}; ActivityNet's JSON is an object")
    videos = content
    if "database" in content:
        version = str(content.get("version", "not stated"))
        if "1.3" not in version:
            raise ValueError(
                f"{path}: its version is {version!r}, with other classes and subsets; read is ActivityNet 1.3 "
                "(activity_net.v1-3.min.json)"
            )
        videos = content["database"]
    if not isinstance(videos, dict):
        raise ValueError(
            f"{path}: database is a {type(videos).__name__}; ActivityNet's has an object for each video id"
        )
    table = _table(path.parent / "video_info_new.csv")
    for name, entry in videos.items():
        yield _video(path, name, entry, table.get(f"v_{name.removeprefix('v_')}", {}))


def _table(path: Path) -> dict[str, dict[str, str]]:
    """Video → its row of the table that comes with the action JSON; nothing where that is not there."""
    return {row["video"]: row for _, row in read_table(path, "video")} if path.is_file() else {}


def _rate(path: Path, listed: float | None) -> float | None:
    """Of a frame folder; None for a file, and where nobody states it."""
    if not is_frame_folder(path):
        return None
    try:
        return float((path / "fps").read_text()) or listed
    except (OSError, ValueError):
        return listed


def _video(path: Path, name: str, entry: Any, row: dict[str, str]) -> _Video:
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations"), list):
        raise ValueError(f'{path}: {name} has no list of annotations; wanted is [{{"segment": [s, e], "label": …}}]')
    subset = entry.get("subset", row.get("subset"))
    if subset is not None and str(subset).casefold() not in SPLITS:
        raise ValueError(f"{path}: {name} has the subset {subset!r}, but allowed are training, validation and testing")
    segments = []
    for annotation in entry["annotations"]:
        try:
            start, end = map(float, annotation["segment"])
            segments.append((max(0.0, start), end, str(annotation["label"])))
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f'{path}: {name} has the annotation {annotation!r}; wanted is {{"segment": [s, e], "label": …}}'
            ) from None
    try:
        fps = float(row.get("rfps") or 0) or None
    except ValueError:
        fps = None
    split = SPLITS[str(subset).casefold()] if subset is not None else None
    return _Video(name.removeprefix("v_"), split, segments, fps)
