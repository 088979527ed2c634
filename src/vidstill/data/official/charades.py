"""Charades: people at home, several actions in each video."""

from __future__ import annotations

import re
from pathlib import Path

from vidstill.config import Data
from vidstill.data.lists import base, given_lists
from vidstill.data.official.finding import header, needed, read_table
from vidstill.data.official.present import Present
from vidstill.data.rows import Listing
from vidstill.labels import read_text

CHARADES = "Charades_v1_train.csv"  # file that tells it
_CLASSES = "Charades_v1_classes.txt"
_ACTION = re.compile(r"(c\d{3}) \d+(?:\.\d+)? \d+(?:\.\d+)?")


def read_charades(data: Data) -> Listing:
    """`Charades_v1_train.csv` and `Charades_v1_test.csv`, with `Charades_v1_classes.txt` (`c000 Holding some clothes`).

    Recognition is of the whole video: its classes are those of all its `actions` (`c092 11.90 21.20;c147 0.00 12.60`),
    whose times are not used (the makers' Charades_v1_classify). Videos without an action are left out, with a note.
    Raises ValueError without `data.multi_label`, and for another form.
    """
    if not data.multi_label:
        raise ValueError("Charades has several actions in a video: set data.multi_label")
    given = given_lists(data)
    folder = next(iter(given.values())).parent if given else needed(data, CHARADES, CHARADES)
    tables = given or {
        split: table for split in ("train", "test") if (table := folder / f"Charades_v1_{split}.csv").is_file()
    }
    names = _class_names(folder / _CLASSES)
    present, idle = Present(base(data)), 0
    for split, table in tables.items():
        for line, row in read_table(table, "id", "actions"):
            actions = list(filter(None, map(str.strip, row["actions"].split(";"))))
            found = [(text, _ACTION.fullmatch(text)) for text in actions]
            if bad := [text for text, match in found if match is None or match[1] not in names]:
                raise ValueError(
                    f"{table} line {line}: {bad[0]!r} is no action; wanted is c092 11.90 21.20, a class of {_CLASSES}"
                )
            if not actions:
                idle += 1
                continue
            labels = dict.fromkeys(names[match[1]] for _, match in found if match)
            present.add(
                split,
                present.find(row["id"]),
                row["id"],
                ";".join(labels),
                table,
                line=line,
                group=row["id"],
            )
    listing = present.listing(next(iter(tables.values())), lambda name: f"{name}.mp4", list(names.values()))
    if idle:
        listing.notes.append(f"{idle} listed videos have no action and are left out")
    return listing


def is_charades(path: Path) -> bool:
    """Whether a csv has the columns of Charades."""
    return path.suffix.lower() == ".csv" and {"id", "subject", "scene", "actions"} <= set(header(path))


def _class_names(path: Path) -> dict[str, str]:
    """Code → name."""
    if not path.is_file():
        raise ValueError(f"no {path}: the class names of Charades; it comes in Charades.zip with the lists")
    names: dict[str, str] = {}
    for line, text in enumerate(read_text(path).splitlines(), 1):
        code, _, name = text.strip().partition(" ")
        if re.fullmatch(r"c\d{3}", code) and name:
            names[code] = name.replace(";", ",")
        elif text.strip():
            raise ValueError(f"{path} line {line}: {text.strip()!r}; wanted is c000 Holding some clothes")
    return names
