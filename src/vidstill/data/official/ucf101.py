"""UCF101: three divisions, as lists of train and test."""

from __future__ import annotations

import re
from pathlib import Path

from vidstill.config import Data
from vidstill.data.official.finding import needed
from vidstill.data.official.present import finder
from vidstill.data.rows import Listing, Row
from vidstill.labels import class_names, read_text, spelling

UCF101 = "trainlist0?.txt"  # files that tell it


def read_ucf101(data: Data) -> Listing:
    """`trainlist0N.txt` (`Class/v_Class_g01_c01.avi 1`), `testlist0N.txt` (no number) and `classInd.txt`."""
    folder = needed(data, UCF101, "trainlist01.txt")
    index = folder / "classInd.txt"
    classes = class_names(index if index.is_file() else "ucf101")
    left_out: list[str] = []
    find = finder(data.root, left_out)
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for split, found in rows.items():
        source = folder / f"{split}list{data.fold:02}.txt"
        if not source.is_file():
            raise ValueError(f"no {source}: the official splits are data.fold 1, 2 and 3")
        for line, text in enumerate(read_text(source).splitlines(), 1):
            if not text.strip():
                continue
            name, _, number = text.strip().partition(" ")
            label = name.split("/")[0] if "/" in name else re.sub(r"^v_(.+)_g\d+_c\d+\..*$", r"\1", name)
            if number:
                said = classes[int(number) - 1] if number.isdecimal() and 0 < int(number) <= len(classes) else ""
                if said != label and spelling(said) != spelling(label):
                    raise ValueError(
                        f"{source} line {line}: {name} with number {number}, which is {said or 'no class'}"
                    )
            found.append(Row(find(label, Path(name).name), name, label, source, line=line))
    return Listing(rows, classes, left_out=left_out)
