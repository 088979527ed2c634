"""The folder of a prepared data set: its lists, and the card that says what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidstill.config import Data
from vidstill.data.lists import base
from vidstill.data.rows import UNDIVIDED, Listing, Row
from vidstill.files import atomic, read_csv, write_csv

CARD = "prepared.json"
_COLUMNS = ("path", "label", "group", "start", "end", "source")
_DIVIDED_BY_FOLD = ("ucf101", "hmdb51")  # whose lists are of one fold


def write_prepared(folder: Path, listing: Listing, data: Data, classes: list[str], card: Mapping[str, Any]) -> None:
    """The lists of `listing`, whose paths are in `folder` or elsewhere, `classes.txt`, and the card, which comes last.

    A row keeps, in the column `source`, the name under which its own list knows it: dividing goes by that name.
    """
    begin_prepared(folder)
    for split in ("train", "val", "test", UNDIVIDED):
        (folder / f"{split}.csv").unlink(missing_ok=True)
    for split, rows in listing.rows.items():
        cells = [
            (
                row.path.relative_to(folder).as_posix() if row.path.is_relative_to(folder) else row.path,
                row.label,
                row.group or "",
                row.start or "",
                "" if row.end is None else row.end,
                row.name,
            )
            for row in rows
        ]
        write_csv(folder / f"{split}.csv", [_COLUMNS, *cells])
    if data.classes and (base(data) / data.classes).is_file() and not Path(data.classes).is_absolute():
        _write_classes(folder / data.classes, classes)  # settings that name the file find it here too
    _write_classes(folder / "classes.txt", classes)
    given = listing.classes is not None or data.classes is not None
    stated = {
        "format": data.format,
        "fold": data.fold,
        "classes": classes if given else None,
        "named": listing.named,
        "fps": data.fps or listing.fps,
        "splits": list(listing.rows),
    }
    _write_card(folder, {**card, **stated})


def _write_classes(path: Path, classes: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write("".join(f"{name}\n" for name in classes).encode(errors="surrogateescape"))


def begin_prepared(folder: Path) -> None:
    """Until `write_prepared` is done the folder is not read."""
    _write_card(folder, {"complete": False})


def is_prepared(folder: Path) -> bool:
    """Whether a folder was made here, complete or not."""
    return (folder / CARD).is_file()


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
    with atomic(folder / CARD) as file:
        file.write(json.dumps(card, indent=1).encode() + b"\n")


def read_prepared(data: Data) -> Listing | None:
    """The rows of `data.root` where that is a prepared folder, whatever format its videos had before, and no list is
    given that is there. Raises ValueError where it is not complete, and for another fold of an official division than
    that of its lists.
    """
    given = any((base(data) / path).is_file() for path in (data.train, data.val, data.test) if path)
    if given or not is_prepared(data.root):
        return None
    card = json.loads((data.root / CARD).read_text(encoding="utf-8"))
    if "splits" not in card:
        raise ValueError(f"{data.root} is not complete: the command that prepared it goes on where it stopped")
    if card["format"] in _DIVIDED_BY_FOLD and data.fold != card["fold"]:
        raise ValueError(
            f"{data.root} holds the lists of data.fold {card['fold']}: prepare it again with --data.fold {data.fold}, "
            "which makes the lists alone anew"
        )
    rows = {}
    for split in card["splits"]:
        path = data.root / f"{split}.csv"
        try:
            header, *lines = read_csv(path)
            if tuple(header) != _COLUMNS:
                raise ValueError
            rows[split] = [_row(data.root, path, number, *cells) for number, cells in enumerate(lines, 2)]
        except (OSError, ValueError, TypeError):
            raise ValueError(f"{path} is not the list that {CARD} tells of: prepare the folder again") from None
    return Listing(rows, card["classes"], named=card["named"], fps=card["fps"])


def _row(
    root: Path, source: Path, line: int, path: str, label: str, group: str, start: str, end: str, name: str
) -> Row:
    return Row(
        root / path, name, label, source, line=line, group=group or None,
        start=float(start or 0), end=float(end) if end else None,
    )  # fmt: skip
