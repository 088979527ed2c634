"""The lists that OpenMMLab's tools make of published data sets, and those of OmniSource."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vidstill.config import Data
from vidstill.data.lists import given_lists, read_rows
from vidstill.data.official.finding import official_files
from vidstill.data.rows import Listing, Row
from vidstill.labels import class_names, read_json


class Kind(NamedTuple):
    """Lists of one kind: their names, with `split` and, of some, `fold`; where the videos are that they name."""

    name: re.Pattern[str]
    folders: tuple[str, ...]


_VIDEOS = ("videos_{split}", "videos", "videos/{long}")
_FRAMES = ("rawframes_{split}", "rawframes", "rawframes/{long}")
_KINDS = {
    "videos": Kind(re.compile(r".+_(?P<split>train|val|test)(?:_list|_split_(?P<fold>[1-9]))_videos\.txt"), _VIDEOS),
    "rawframes": Kind(
        re.compile(r".+_(?P<split>train|val|test)(?:_list|_split_(?P<fold>[1-9]))_rawframes\.txt"), _FRAMES
    ),
    "activitynet": Kind(re.compile(r"anet_(?P<split>train|val)_(?:video|clip)\.txt"), _FRAMES),
    "omnisource": Kind(re.compile(r"k200_(?P<split>train|val)\.txt"), ("kinetics_200_{split}",)),
}
_LONG = {"train": "training", "val": "validation", "test": "testing"}

# What OmniSource trains with beside Kinetics: clips from Instagram, and pieces of whole Kinetics videos
_INSTAGRAM = "annotations/insvideo_200/slowonly_8x8_insvideo_200_wodup.txt", "insvideo_200"
_PIECES = "annotations/kinetics_raw_200/slowonly_8x8_kinetics_raw_200.json", "kinetics_raw_200_train"


def read_list(path: Path, data: Data, root: Path) -> list[Row]:
    """The rows of a list, from `root`. Where nothing is there and the list has a name that OpenMMLab gives: from the
    folder in it where OpenMMLab's tools put the videos."""
    rows = read_rows(path, root, multi_label=data.multi_label, fps=data.fps)
    match, kind = _kind(path)
    if match is None or kind is None or _any_there(row.path for row in rows):
        return rows
    for name in kind.folders:
        folder = root / name.format(split=match["split"], long=_LONG[match["split"]])
        if _any_there(folder / row.name for row in rows):
            return read_rows(path, folder, multi_label=data.multi_label, fps=data.fps)
    return rows


def _any_there(paths: Iterable[Path]) -> bool:
    return any(path.exists() for path in islice(paths, 8))


def has_openmmlab(data: Data) -> bool:
    return not given_lists(data) and data.root.is_dir() and bool(_found(data))


def read_openmmlab(data: Data) -> Listing:
    """`kinetics400_train_list_videos.txt`, `hmdb51_val_split_1_rawframes.txt`, `anet_train_video.txt` …, in `root` or a
    folder in it: `path label`, `folder frames label` or `folder offset frames label`.

    Paths are from where OpenMMLab's tools put the videos (`videos_train`, `rawframes` …). Where there are lists of
    both, those of videos are taken if their first is there. OmniSource trains on its lists of Kinetics, of clips from
    Instagram and of pieces of whole Kinetics videos, as far as these are there.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in _found(data):
        match, _ = _kind(path)
        if match is not None and match.groupdict().get("fold") in (None, str(data.fold)):
            found.setdefault(_name_of_kind(path), {}).setdefault(match["split"], path)
    if not found:
        raise ValueError(
            f"{data.splits or data.root}: no list of OpenMMLab there for data.fold {data.fold} "
            "(kinetics400_train_list_videos.txt, hmdb51_train_split_1_rawframes.txt …): give it as data.train"
        )
    listings = {
        kind: {split: read_list(path, data, data.root) for split, path in lists.items()}
        for kind, lists in found.items()
    }
    there = [rows for rows in listings.values() if _any_there(row.path for row in next(iter(rows.values())))]
    rows = (there or list(listings.values()))[0]
    if "omnisource" not in found:
        return Listing(rows, named=False)
    return _with_web_data(data, rows)


def _with_web_data(data: Data, rows: dict[str, list[Row]]) -> Listing:
    parts = {"k200_train": len(rows.get("train", ()))}
    for (name, folder), read in ((_INSTAGRAM, _clips), (_PIECES, _pieces)):
        source = data.root / name
        if source.is_file() and (data.root / folder).is_dir():
            more = read(source, data.root, folder)
            rows.setdefault("train", []).extend(more)
            parts[folder] = len(more)
    notes = [f"train: {', '.join(f'{count} of {part}' for part, count in parts.items())}"]
    if (data.root / "annotations/webimage_200").is_dir():
        notes.append("the pictures of OmniSource (googleimage_200, insimage_200) are not used: they are no videos")
    names = data.root / "annotations/k200_actions.txt"
    return Listing(rows, class_names(names) if names.is_file() else None, named=False, notes=notes)


def _clips(source: Path, root: Path, folder: str) -> list[Row]:
    return read_rows(source, root / folder)


def _pieces(source: Path, root: Path, folder: str) -> list[Row]:
    """[{"video_dir", "label", "num_clips", "positive_clip_inds": [0, 3]}, …]: the pieces `part_0.mp4`, `part_3.mp4` of
    ten seconds that a teacher took for their class."""
    try:
        entries = read_json(source)
        return [
            Row(root / folder / name, f"{folder}/{name}", str(int(entry["label"])), source, group=entry["video_dir"])
            for entry in entries
            for number in entry["positive_clip_inds"]
            for name in (f"{entry['video_dir']}/part_{int(number)}.mp4",)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{source}: wanted is [{{"video_dir", "label", "num_clips", "positive_clip_inds": […]}}, …]: '
            f"{type(error).__name__} {error}"
        ) from None


def _found(data: Data) -> list[Path]:
    patterns = "*_videos.txt", "*_rawframes.txt", "anet_*.txt"
    known = official_files(data, lambda path: _kind(path)[0] is not None, *patterns)
    omnisource = data.root / "annotations/kinetics_200"
    return known or [path for split in ("train", "val") if (path := omnisource / f"k200_{split}.txt").is_file()]


def _kind(path: Path) -> tuple[re.Match[str] | None, Kind | None]:
    return next(((match, kind) for kind in _KINDS.values() if (match := kind.name.fullmatch(path.name))), (None, None))


def _name_of_kind(path: Path) -> str:
    return next(name for name, kind in _KINDS.items() if kind.name.fullmatch(path.name))
