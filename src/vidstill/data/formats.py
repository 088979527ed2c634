"""Settings → the rows of a data set: which format it has, and class folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vidstill.config import Data
from vidstill.data.lists import read_rows
from vidstill.data.official import find_official, is_kinetics, read_hmdb51, read_jester, read_kinetics, read_ucf101
from vidstill.data.rows import (
    SPLITS,
    UNDIVIDED,
    Listing,
    Row,
    class_folders,
    folders_in,
    split_folders,
    videos_in,
    walk,
)


def read_listing(data: Data) -> Listing:
    """The rows that `data` describes. Raises ValueError where the format cannot be told or a file is not understood."""
    if not data.root.exists():
        raise ValueError(f"data.root {data.root} is not there")
    listing = _READERS[_detect(data) if data.format == "auto" else data.format](data)
    if not any(listing.rows.values()):
        raise ValueError(f"{data.root}: no labelled video found")
    return listing


def _detect(data: Data) -> str:
    lists = _lists(data)
    if lists:
        return "kinetics" if all(map(is_kinetics, lists.values())) else "csv"
    for name in ("ucf101", "hmdb51", "jester"):
        if find_official(name, _split_file_folders(data)):
            return name
    if _kinetics_tables(data):
        return "kinetics"
    if data.splits is None and (split_folders(data.root) or class_folders(data.root)):
        return "folders"
    raise ValueError(_nothing_found(data))


def _read_folders(data: Data) -> Listing:
    """`root/<split>/<class>/*` where there are such folders, else `root/<class>/*`. An empty folder is a class too."""
    splits = split_folders(data.root) or {UNDIVIDED: data.root}
    rows = {
        split: [
            Row(path, path.relative_to(data.root).as_posix(), folder.name, folder)
            for folder in folders_in(top)
            for path in videos_in(folder)
        ]
        for split, top in splits.items()
    }
    if not any(rows.values()):
        raise ValueError(_nothing_found(data))
    return Listing(rows, sorted({folder.name for top in splits.values() for folder in folders_in(top)}))


def _read_lists(data: Data) -> Listing:
    lists = _lists(data)
    if not lists:
        raise ValueError(f"{data.root}: no train.csv in it; give data.train, data.val or data.test")
    return Listing({split: read_rows(path, _base(data)) for split, path in lists.items()}, named=False)


def _read_official(name: str, read: Callable[[Path, Path, int], Listing], files: str) -> Callable[[Data], Listing]:
    def reader(data: Data) -> Listing:
        folders = _split_file_folders(data)
        folder = find_official(name, folders)
        if folder is None:
            raise ValueError(
                f"no {files} in {data.splits or f'{data.root} and its folders'}: give data.splits, their folder"
            )
        return read(data.root, folder, data.fold)

    return reader


def _read_kinetics(data: Data) -> Listing:
    given = {path: None if split == UNDIVIDED else split for split, path in _lists(data).items() if is_kinetics(path)}
    tables = given or dict.fromkeys(_kinetics_tables(data))
    if not tables:
        raise ValueError(
            f"{data.splits or data.root}: no csv with the columns label,youtube_id,time_start,time_end,split, there or "
            "in annotations/; class folders are data.format folders, path,label lists data.format csv"
        )
    return read_kinetics(_base(data), tables)


def _base(data: Data) -> Path:
    """What the paths of a list are relative to."""
    return data.root.parent if data.root.is_file() else data.root


def _lists(data: Data) -> dict[str, Path]:
    """Split → list file: those of the settings, else `root` itself, else train.csv, val.csv and test.csv in it, else
    those of the SlowFast fork's Kinetics."""
    given = {"train": data.train, "val": data.val, "test": data.test}
    lists = {split: path if path.is_file() else data.root / path for split, path in given.items() if path is not None}
    for split, path in lists.items():
        if not path.is_file():
            raise ValueError(f"data.{split} {given[split]} is not there, nor in {data.root}")
    if lists:
        return lists
    if data.root.is_file():
        return {UNDIVIDED: data.root}
    found = {SPLITS[path.stem]: path for path in sorted(data.root.glob("*.csv")) if path.stem in SPLITS}
    private = {split: data.root / f"kinetics_p3d_{split}_byvideo_128.lst" for split in ("train", "val")}
    return found or {split: path for split, path in private.items() if path.is_file()}


def _split_file_folders(data: Data) -> list[Path]:
    return [data.splits] if data.splits else [data.root, *folders_in(data.root)]


def _kinetics_tables(data: Data) -> list[Path]:
    folder = data.splits or data.root
    return [
        path for pattern in ("*.csv", "annotations/*.csv") for path in sorted(folder.glob(pattern)) if is_kinetics(path)
    ]


def _nothing_found(data: Data) -> str:
    top = data.splits or data.root
    if video := next(walk(data.root), None):
        hint = f"a video lies at {video.relative_to(data.root)}"
    else:
        names = sorted(path.name for path in top.iterdir()) if top.is_dir() else []
        hint = f"it holds {', '.join(names[:5]) + (' …' if names[5:] else '') or 'nothing'}"
    return (
        f"{top}: cannot tell how its videos are labelled. Looked for train.csv and val.csv, trainlist01.txt (UCF101), "
        "<class>_test_split1.txt (HMDB51), vallist.txt (Jester), a Kinetics csv, train/<class>/<video> and "
        "<class>/<video>; " + hint
    )


_READERS: dict[str, Callable[[Data], Listing]] = {
    "folders": _read_folders,
    "synthetic": _read_folders,
    "csv": _read_lists,
    "ucf101": _read_official("ucf101", read_ucf101, "trainlist01.txt"),
    "hmdb51": _read_official("hmdb51", read_hmdb51, "<class>_test_split1.txt"),
    "jester": _read_official("jester", read_jester, "trainlist.txt and vallist.txt"),
    "kinetics": _read_kinetics,
}
