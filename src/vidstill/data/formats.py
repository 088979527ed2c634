"""The formats of data sets, and which of them a folder or a list has."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import NamedTuple

from vidstill.config import Data
from vidstill.data.lists import base, list_files, read_rows
from vidstill.data.official.finding import lists_folder
from vidstill.data.official.hmdb51 import HMDB51, read_hmdb51
from vidstill.data.official.jester import JESTER, read_jester
from vidstill.data.official.kinetics import has_kinetics, is_kinetics, read_kinetics
from vidstill.data.official.ucf101 import UCF101, read_ucf101
from vidstill.data.prepared import read_prepared
from vidstill.data.rows import (
    UNDIVIDED,
    Listing,
    Row,
    class_folders,
    few,
    folders_in,
    split_folders,
    videos_in,
    walk,
)


class Format(NamedTuple):
    """How a data set comes: whether `data` looks like that, the reader of its rows, what is looked for in words."""

    name: str
    detect: Callable[[Data], bool]
    read: Callable[[Data], Listing]
    looked_for: str


def read_listing(data: Data) -> Listing:
    """The rows that `data` describes. Raises ValueError where the format cannot be told or a file is not understood."""
    if data.format not in ("auto", *BY_NAME):
        near = difflib.get_close_matches(data.format, BY_NAME, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"data.format {data.format!r}: {hint}allowed are auto, {', '.join(BY_NAME)}")
    if not data.root.exists():
        raise ValueError(f"data.root {data.root} is not there")
    if prepared := read_prepared(data):
        return prepared
    listing = (_detect(data) if data.format == "auto" else BY_NAME[data.format]).read(data)
    if not any(listing.rows.values()):
        raise ValueError(f"{data.root}: no labelled video found")
    if listing.left_out:
        listing.notes.append(f"left out: {few(listing.left_out)}")
    return listing


def _detect(data: Data) -> Format:
    for known in FORMATS:
        if known.detect(data):
            return known
    raise ValueError(_nothing_found(data))


def _official(pattern: str) -> Callable[[Data], bool]:
    """Whether a file that matches this is among the official lists."""
    return lambda data: lists_folder(data, pattern) is not None


def _has_lists(data: Data) -> bool:
    lists = list_files(data).values()
    return bool(lists) and not any(map(is_kinetics, lists))


def _read_lists(data: Data) -> Listing:
    lists = list_files(data)
    if not lists:
        raise ValueError(f"{data.root}: no train.csv in it; give data.train, data.val or data.test")
    return Listing({split: read_rows(path, base(data)) for split, path in lists.items()}, named=False)


def _has_folders(data: Data) -> bool:
    return data.splits is None and bool(split_folders(data.root) or class_folders(data.root))


def _read_folders(data: Data) -> Listing:
    """`root/<split>/<class>/*` where there are such folders, else `root/<class>/*`. An empty folder is a class too.

    A note says which videos lie elsewhere, and so have no class.
    """
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
    left_out: list[str] = []
    used = {row.path for found in rows.values() for row in found}
    unused = [path.relative_to(data.root).as_posix() for path in walk(data.root, left_out) if path not in used]
    wanted = "<class>/<video>" if UNDIVIDED in splits else "<split>/<class>/<video>"
    notes = [f"{len(unused)} videos are not used, for they do not lie at {wanted}: {few(unused)}"] if unused else []
    classes = sorted({folder.name for top in splits.values() for folder in folders_in(top)})
    return Listing(rows, classes, notes=notes, left_out=left_out)


def _nothing_found(data: Data) -> str:
    top, left_out = data.splits or data.root, list[str]()
    if video := next(walk(data.root, left_out), None):
        hint = f"a video lies at {video.relative_to(data.root)}"
    elif left_out:
        hint = left_out[0]
    else:
        names = sorted(path.name for path in top.iterdir()) if top.is_dir() else []
        hint = f"it holds {few(names) or 'nothing'}"
    wanted = ", ".join(dict.fromkeys(known.looked_for for known in FORMATS))
    return f"{top}: cannot tell how its videos are labelled. Looked for {wanted}; {hint}"


# Where several fit, the first counts
FORMATS = (
    Format("csv", _has_lists, _read_lists, "train.csv and val.csv"),
    Format("kinetics", has_kinetics, read_kinetics, "a Kinetics csv"),
    Format("ucf101", _official(UCF101), read_ucf101, "trainlist01.txt (UCF101)"),
    Format("hmdb51", _official(HMDB51), read_hmdb51, "<class>_test_split1.txt (HMDB51)"),
    Format("jester", _official(JESTER), read_jester, "vallist.txt (Jester)"),
    Format("folders", _has_folders, _read_folders, "train/<class>/<video> and <class>/<video>"),
    Format("synthetic", lambda data: False, _read_folders, "train/<class>/<video> and <class>/<video>"),
)
BY_NAME = {known.name: known for known in FORMATS}
