"""The JSON that 3D-ResNets-PyTorch and Efficient-3DCNNs make of the lists of Kinetics, UCF101, HMDB51 and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidstill.config import Data
from vidstill.data.lists import base, given_lists
from vidstill.data.official.finding import holds, official_files
from vidstill.data.official.present import Present
from vidstill.data.rows import SPLITS, Listing, few
from vidstill.labels import read_json

_WANTED = '{"labels": […], "database": {id: {"subset": "training", "annotations": {"label": …}}}}'


def is_database(path: Path) -> bool:
    return path.suffix.lower() == ".json" and holds(path, b'"database"', b'"labels"')


def has_database(data: Data) -> bool:
    given = given_lists(data).values()
    return any(map(is_database, given)) if given else data.root.is_dir() and bool(_found(data))


def read_database(data: Data) -> Listing:
    """`kinetics.json`, `ucf101_01.json`: {"labels": […], "database": {id: {"subset": "training", "annotations":
    {"label": …}}}}; or with the videos of each subset by themselves, database[subset][id].

    Of the three of UCF101 and HMDB51 `data.fold` chooses one. Videos are `<class>/<id>`, folders of `image_00001.jpg`
    or files with any suffix, else anywhere in `root`; those that are not there are left out with a note. Their number
    of frames is `n_frames`, where the list has it. Raises ValueError for another form.
    """
    given = given_lists(data)
    files = list(given.values()) or _found(data)
    if wrong := [path for path in files if not is_database(path)] or ([] if files else [data.splits or data.root]):
        raise ValueError(f"{wrong[0]}: no JSON of the form {_WANTED} there; give it as data.train")
    if not given and len(files) > 1:
        chosen = [
            path for path in files if path.stem.endswith(f"_{data.fold:02}") or path.stem.endswith(f"_{data.fold}")
        ]
        if len(chosen) != 1:
            raise ValueError(
                f"{files[0].parent}: {few([path.name for path in files])} are {len(files)} lists, of which "
                f"{len(chosen)} are of data.fold {data.fold}: give one as data.train"
            )
        files = chosen
    present, unlabelled, classes = Present(base(data)), 0, list[str]()
    of_class = {(path.parent.name, name): path for path in present.paths for name in (path.name, path.stem)}
    for path in files:
        content = _read(path)
        classes += [name for name in map(str, content["labels"]) if name not in set(classes)]
        for name, entry in _entries(path, content["database"]):
            label = _label(path, name, entry)
            if label is None:
                unlabelled += 1
                continue
            split = SPLITS[entry["subset"].casefold()]
            video = of_class.get((label, name)) or present.find(name)
            present.add(split, video, f"{label}/{name}", label, path, frames=_frames(entry))
    listing = present.listing(files[0], lambda name: name, classes)
    if unlabelled:
        listing.notes.append(f"{unlabelled} videos are not used, for they have no label (those of a test are withheld)")
    return listing


def _found(data: Data) -> list[Path]:
    return official_files(data, is_database, "*.json")


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("labels"), list):
        raise ValueError(f"{path}: has no list of labels; wanted is {_WANTED}")
    if not isinstance(content.get("database"), dict):
        raise ValueError(f"{path}: database is no object; wanted is {_WANTED}")
    return content


def _entries(path: Path, database: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The videos, each with its subset, from database[id] or database[subset][id]."""
    nested = {key: value for key, value in database.items() if key.casefold() in SPLITS and isinstance(value, dict)}
    if nested and len(nested) == len(database) and not any("annotations" in value for value in nested.values()):
        entries = [
            (name, {"subset": subset, **entry} if isinstance(entry, dict) else entry)
            for subset, videos in nested.items()
            for name, entry in videos.items()
        ]
    else:
        entries = list(database.items())
    for name, entry in entries:
        if not isinstance(entry, dict) or str(entry.get("subset")).casefold() not in SPLITS:
            raise ValueError(f"{path}: {name} has no subset training, validation or testing; wanted is {_WANTED}")
    return entries


def _label(path: Path, name: str, entry: dict[str, Any]) -> str | None:
    """None where the list withholds it."""
    annotations = entry.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise ValueError(f"{path}: {name} has the annotations {str(annotations)[:60]}; wanted is {_WANTED}")
    label = annotations.get("label")
    return None if label is None else str(label)


def _frames(entry: dict[str, Any]) -> int | None:
    count = entry.get("n_frames")
    return int(count) if isinstance(count, int) and count > 0 else None
