"""Jester: numbered videos; the lists of its makers, or those of Efficient-3DCNNs."""

from __future__ import annotations

from pathlib import Path

from vidstill.config import Data
from vidstill.data.official.finding import lists_folder, needed
from vidstill.data.official.present import by_stem
from vidstill.data.official.twentybn import FPS, Lists, read_lists
from vidstill.data.rows import Listing, Row, walk
from vidstill.labels import class_names, read_text

JESTER = Lists("jester-v1", ".csv", "Swiping Left")
NUMBERED = "vallist.txt"  # file that tells the lists of Efficient-3DCNNs


def has_jester(data: Data) -> bool:
    return lists_folder(data, NUMBERED) is not None or JESTER.are_there(data)


def read_jester(data: Data) -> Listing:
    """`jester-v1-{train,validation,labels}.csv` (`34870;Drumming Fingers`), `labels/train.csv` and so on of 2022, or
    `trainlist.txt` and `vallist.txt` (`34870 2`).

    Video 34870 is any `34870.*`, or the folder of frames of this name, anywhere in `root`; frames are 12 per second.
    """
    if lists_folder(data, NUMBERED) or not JESTER.are_there(data):
        return _read_numbered(data)
    index = JESTER.file(JESTER.needed(data), "labels")
    return read_lists(data, JESTER, class_names(index if index.is_file() else "jester"), fps=FPS)


def _read_numbered(data: Data) -> Listing:
    """`trainlist.txt` and `vallist.txt` with `classInd.txt`; without a class file the 27 names are in alphabetical
    order. Ids are taken as counted from 1 where the least is 1 and the greatest is the number of classes; a note says
    so."""
    folder = needed(data, NUMBERED, "jester-v1-train.csv, nor trainlist.txt and vallist.txt,")
    index = folder / "classInd.txt"
    classes = class_names(index) if index.is_file() else sorted(class_names("jester"))
    left_out: list[str] = []
    files = by_stem(walk(data.root, left_out))
    listed: dict[str, list[tuple[Path, int, str, int]]] = {}
    for split in ("train", "val"):
        source = folder / f"{split}list.txt"
        if not source.is_file():
            raise ValueError(f"no {source}: Jester's lists are trainlist.txt and vallist.txt")
        listed[split] = []
        for line, text in enumerate(read_text(source).splitlines(), 1):
            name, _, number = text.strip().partition(" ")
            if name and not number.isdecimal():
                raise ValueError(f"{source} line {line}: {text.strip()!r} is no video and class id")
            if name:
                listed[split].append((source, line, name, int(number)))
    ids = [number for found in listed.values() for *_, number in found]
    least, most = min(ids, default=0), max(ids, default=0)
    first = 1 if (least, most) == (1, len(classes)) else 0
    if most - first >= len(classes):
        raise ValueError(f"{folder}: class ids go from {least} to {most}, the {len(classes)} classes from {first}")
    rows = {
        split: [
            Row(files.get(name, data.root / name / f"{name}.mp4"), name, classes[number - first], source, line=line)
            for source, line, name, number in found
        ]
        for split, found in listed.items()
    }
    notes = [f"class ids count from 1 in {folder}: 1 is {classes[0]}"] if first else []
    return Listing(rows, classes, notes=notes, left_out=left_out, fps=FPS)
