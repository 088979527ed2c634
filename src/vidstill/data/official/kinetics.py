"""Kinetics: csv files with YouTube ids and times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vidstill.config import Data
from vidstill.data.lists import base, given_lists, placed
from vidstill.data.official.finding import header, read_table
from vidstill.data.official.present import Present, uncut
from vidstill.data.rows import SPLITS, UNDIVIDED, Listing, stem


def has_kinetics(data: Data) -> bool:
    """Whether the lists that the settings name, or else csv files that are there, have the columns of Kinetics."""
    given = given_lists(data).values()
    return any(map(is_kinetics, given)) if given else bool(_kinetics_tables(data))


def read_kinetics(data: Data) -> Listing:
    """csv files with the columns `label,youtube_id,time_start,time_end,split`, in `root`, in its `annotations` or in
    `data.splits`, or given as data.train and so on.

    The split of a row is that of the setting, else of the file's name (`validate.csv`), else of its column. Published
    figures are on the validation list: a test list that is merely there is left out, one given as `data.test` counts.
    Videos are `<id>_<start:06d>_<end:06d>`, cut to the clip, or `<id>`, with any suffix, anywhere in `root`; of an
    `<id>` that lasts longer than the clip its stretch is taken. Files in a folder `replacement…` stand for others of
    the same id. Some of Kinetics is always gone from YouTube: videos that are not there are left out, with a note.
    Raises ValueError where none is there.
    """
    tables: dict[Path, str | None] = {
        path: None if split == UNDIVIDED else split for split, path in given_lists(data).items()
    }
    for table in tables:
        if "label" not in header(table):
            raise ValueError(f"{table}: {_NO_LABELS if is_kinetics(table) else _NO_KINETICS}")
    if set(tables.values()) <= {"test"}:
        given = {path.resolve() for path in tables}
        found = [path for path in _kinetics_tables(data) if path.resolve() not in given]
        tables |= {path: SPLITS.get(path.stem.casefold()) for path in found}
    if not tables:
        raise ValueError(f"{data.splits or data.root}: {_NO_KINETICS}")
    entries = [entry for table, split in tables.items() for entry in _kinetics_entries(table, split)]
    parts = [entry.split for entry in entries]
    unasked = "test" if data.test is None and "val" in parts and "test" in parts else None
    wanted = list({(entry.split, entry.name): entry for entry in entries if entry.split != unasked}.values())
    present = Present(base(data))
    corrected = _replacements(present, wanted)
    whole = {
        path: float(entry.end - entry.start)
        for entry in wanted
        if entry.name not in present.files and (path := present.files.get(entry.clip))
    }
    long = uncut(whole)
    for entry in wanted:
        path = corrected.get(entry.name) or present.find(entry.name, entry.clip)
        stretch = {"start": entry.start, "end": entry.end} if path in long else {}
        if stretch and entry.end <= entry.start:
            raise ValueError(f"{entry.table} line {entry.line}: ends at {entry.end} s, but starts at {entry.start} s")
        present.add(
            entry.split, path, entry.name, entry.label, entry.table, line=entry.line, group=entry.clip, **stretch
        )
    listing = present.listing(
        next(iter(tables)), lambda name: f"{name or '<id>_<start>_<end>'}.mp4 and {name[:-14] or '<id>'}.mp4"
    )
    if corrected:
        listing.notes.append(f"{len(corrected)} videos are taken from the folder of replacements of corrupted ones")
    if unasked:
        listing.notes.append(
            f"test: {parts.count(unasked)} listed videos are not used, as published figures are on the validation "
            "list; to test on them give data.test, their list"
        )
    return listing


def is_kinetics(path: Path) -> bool:
    """Whether a csv file has the columns of Kinetics."""
    columns = set(header(path))
    return {"label", "youtube_id"} <= columns or (columns >= _UNLABELLED and "Tags" not in columns)


_UNLABELLED = {"youtube_id", "time_start", "time_end"}
_NO_LABELS = "has no column label: the labels of this test list are not published; validate on val.csv"
_NO_KINETICS = (
    "no csv with the columns label,youtube_id,time_start,time_end,split, there or in annotations/; class folders are "
    "data.format folders, path,label lists data.format csv"
)


def _kinetics_tables(data: Data) -> list[Path]:
    """In the folder itself, in CVDF's `annotations`, or in `kinetics700_2020`, as DeepMind's archive unpacks."""
    folder = placed(data, data.splits) if data.splits else data.root
    for patterns in (("*.csv", "annotations/*.csv"), ("kinetics*/*.csv", "annotations/deepmind/*/*.csv")):
        found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
        if tables := [path for path in found if is_kinetics(path) and "label" in header(path)]:
            return tables
    return []


class _Entry(NamedTuple):
    """A row of a table, with its times in whole seconds; `name` is that of the video cut to them."""

    split: str
    table: Path
    line: int
    label: str
    clip: str
    start: int
    end: int
    name: str


def _kinetics_entries(table: Path, split: str | None) -> Iterator[_Entry]:
    for line, cells in read_table(table, "label", "youtube_id", "time_start", "time_end"):
        where = f"{table} line {line}"
        label, clip = cells["label"], cells["youtube_id"]
        if not label or not clip:
            raise ValueError(f"{where}: label or youtube_id is empty")
        start, end = (_second(cells, column, where) for column in ("time_start", "time_end"))
        name = f"{clip}_{start:06}_{end:06}"
        yield _Entry(split or _split_of(cells, where), table, line, label, clip, start, end, name)


def _replacements(present: Present, entries: list[_Entry]) -> dict[str, Path]:
    """Name → the file of CVDF's `replacement/replacement_for_corrupted_k400` that stands for it.

    They are called as the clip, or begin with the id, as CVDF's own script matches them.
    """
    found = {
        stem(path): path
        for path in present.paths
        if any(part.startswith("replacement") for part in path.relative_to(present.root).parts[:-1])
    }
    by_id = {name[:11]: path for name, path in found.items()}
    wanted = {entry.name: found.get(entry.name) or by_id.get(entry.clip) for entry in entries} if found else {}
    return {name: path for name, path in wanted.items() if path is not None}


def _second(entry: dict[str, str], column: str, where: str) -> int:
    try:
        return int(float(entry[column]))
    except ValueError:
        raise ValueError(f"{where}: {column} {entry[column]!r} is not a number of seconds") from None


def _split_of(entry: dict[str, str], where: str) -> str:
    word = (entry.get("split") or "").strip()
    if word.casefold() not in SPLITS:
        raise ValueError(f"{where}: split {word!r}, but allowed are {', '.join(SPLITS)}")
    return SPLITS[word.casefold()]
