"""Jester: numbered videos, and lists of train and validation."""

from __future__ import annotations

from pathlib import Path

from vidstill.config import Data
from vidstill.data.official.finding import needed
from vidstill.data.rows import Listing, Row, stem, walk
from vidstill.labels import class_names, read_text

JESTER = "vallist.txt"  # file that tells it


def read_jester(data: Data) -> Listing:
    """`trainlist.txt` and `vallist.txt` (`34870 2`) with `classInd.txt`; video 34870 is any `34870.*` in `root`.

    Without a class file the 27 names are in alphabetical order. Ids are taken as counted from 1 where the least is 1
    and the greatest is the number of classes; a note says so.
    """
    folder = needed(data, JESTER, "trainlist.txt and vallist.txt")
    index = folder / "classInd.txt"
    classes = class_names(index) if index.is_file() else sorted(class_names("jester"))
    left_out: list[str] = []
    files = {stem(path): path for path in walk(data.root, left_out)}
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
    return Listing(rows, classes, notes=notes, left_out=left_out)
