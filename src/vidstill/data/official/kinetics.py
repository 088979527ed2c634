"""Kinetics: csv files with YouTube ids and times."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vidstill.config import Data
from vidstill.data.lists import base, given_lists, placed
from vidstill.data.rows import SPLITS, UNDIVIDED, Listing, Row, stem, walk
from vidstill.labels import read_text


def has_kinetics(data: Data) -> bool:
    """Whether the lists that the settings name, or else csv files that are there, have the columns of Kinetics."""
    given = given_lists(data).values()
    return any(map(is_kinetics, given)) if given else bool(_kinetics_tables(data))


def read_kinetics(data: Data) -> Listing:
    """csv files with the columns `label,youtube_id,time_start,time_end,split`, in `root`, in its `annotations` or in
    `data.splits`, or given as data.train and so on.

    The split of a row is that of the setting, else of the file's name (`validate.csv`), else of its column. Published
    figures are on the validation list: a test list that is merely there is left out, one given as `data.test` counts.
    Videos are `<id>_<start:06d>_<end:06d>` or `<id>` with any suffix, anywhere in `root`. Some of Kinetics is always
    gone from YouTube: videos that are not there are left out, with a note. Raises ValueError where none is there.
    """
    tables: dict[Path, str | None] = {
        path: None if split == UNDIVIDED else split for split, path in given_lists(data).items()
    }
    if wrong := [path for path in tables if not is_kinetics(path)]:
        raise ValueError(f"{wrong[0]}: {_NO_KINETICS}")
    if set(tables.values()) <= {"test"}:
        given = {path.resolve() for path in tables}
        found = [path for path in _kinetics_tables(data) if path.resolve() not in given]
        tables |= {path: SPLITS.get(path.stem.casefold()) for path in found}
    if not tables:
        raise ValueError(f"{data.splits or data.root}: {_NO_KINETICS}")
    entries = [entry for table, split in tables.items() for entry in _kinetics_entries(table, split)]
    parts = [entry.split for entry in entries]
    unasked = "test" if data.test is None and "val" in parts and "test" in parts else None
    root, left_out = base(data), list[str]()
    files = {stem(path): path for path in walk(root, left_out)}
    rows: dict[str, dict[str, Row]] = {}
    gone: dict[str, list[str]] = {}
    for split, table, line, cells in entries:
        if split == unasked:
            continue
        label, clip, where = cells.get("label"), cells.get("youtube_id"), f"{table} line {line}"
        if not label or not clip:
            raise ValueError(f"{where}: label or youtube_id is empty")
        start, end = (_second(cells, column, where) for column in ("time_start", "time_end"))
        name = f"{clip}_{start:06}_{end:06}"
        path = files.get(name) or files.get(clip)
        if path is None:
            gone.setdefault(split, []).append(name)
        else:
            place = path.relative_to(root).as_posix()
            rows.setdefault(split, {})[name] = Row(path, place, label, table, line=line, group=clip)
    if not rows:
        example = next(iter(gone.values()))[0] if gone else "<id>_<start>_<end>"
        raise ValueError(
            f"no video of {', '.join(map(str, tables))} is in {root}, neither {example}.mp4 nor {example[:-14]}.mp4"
        )
    notes = [
        f"{split}: {len(stems)} of {len(stems) + len(rows.get(split, ()))} listed videos are not in {root} and left "
        f"out, the first {stems[0]}"
        for split, stems in gone.items()
    ]
    if unasked:
        notes.append(
            f"test: {parts.count(unasked)} listed videos are not used, as published figures are on the validation "
            "list; to test on them give data.test, their list"
        )
    return Listing({split: list(found.values()) for split, found in rows.items()}, notes=notes, left_out=left_out)


def is_kinetics(path: Path) -> bool:
    """Whether a csv file has the columns of Kinetics."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return {"label", "youtube_id"} <= {cell.strip('" \n') for cell in file.readline().split(",")}


_NO_KINETICS = (
    "no csv with the columns label,youtube_id,time_start,time_end,split, there or in annotations/; class folders are "
    "data.format folders, path,label lists data.format csv"
)


def _kinetics_tables(data: Data) -> list[Path]:
    folder = placed(data, data.splits) if data.splits else data.root
    found = (path for pattern in ("*.csv", "annotations/*.csv") for path in sorted(folder.glob(pattern)))
    return [path for path in found if is_kinetics(path)]


class _Entry(NamedTuple):
    split: str
    table: Path
    line: int
    cells: dict[str, str]


def _kinetics_entries(table: Path, split: str | None) -> Iterator[_Entry]:
    reader = csv.DictReader(read_text(table).split("\n"))
    for cells in reader:
        yield _Entry(split or _split_of(cells, f"{table} line {reader.line_num}"), table, reader.line_num, cells)


def _second(entry: dict[str, str], column: str, where: str) -> int:
    try:
        return int(float(entry[column]))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{where}: {column} {entry.get(column)!r} is not a number of seconds") from None


def _split_of(entry: dict[str, str], where: str) -> str:
    word = (entry.get("split") or "").strip()
    if word.casefold() not in SPLITS:
        raise ValueError(f"{where}: split {word!r}, but allowed are {', '.join(SPLITS)}")
    return SPLITS[word.casefold()]
