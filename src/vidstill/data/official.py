"""The lists that published data sets come with (UCF101, HMDB51, Jester, Kinetics) → rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vidstill.config import Data
from vidstill.data.lists import base, given_lists, placed
from vidstill.data.rows import SPLITS, UNDIVIDED, Listing, Row, folders_in, stem, walk
from vidstill.labels import class_names, read_text, spelling

UCF101, HMDB51, JESTER = "trainlist0?.txt", "*_test_split?.txt", "vallist.txt"  # files that tell a data set


def lists_folder(data: Data, pattern: str) -> Path | None:
    """The folder that holds a data set's official files: `data.splits`, else `data.root` or one in it."""
    folders = [placed(data, data.splits)] if data.splits else [data.root, *folders_in(data.root)]
    return next((folder for folder in folders if next(folder.glob(pattern), None)), None)


def read_ucf101(data: Data) -> Listing:
    """`trainlist0N.txt` (`Class/v_Class_g01_c01.avi 1`), `testlist0N.txt` (no number) and `classInd.txt`."""
    folder = _needed(data, UCF101, "trainlist01.txt")
    index = folder / "classInd.txt"
    classes = class_names(index if index.is_file() else "ucf101")
    left_out: list[str] = []
    find = _finder(data.root, left_out)
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


def read_hmdb51(data: Data) -> Listing:
    """`<class>_test_splitN.txt`: lines `name 1` (train), `name 2` (test), `name 0` (unused)."""
    folder = _needed(data, HMDB51, "<class>_test_split1.txt")
    ending = f"_test_split{data.fold}.txt"
    sources = sorted(folder.glob(f"*{ending}"))
    if not sources:
        raise ValueError(f"{folder}: no <class>{ending}; the official splits are data.fold 1, 2 and 3")
    left_out: list[str] = []
    find = _finder(data.root, left_out)
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for source in sources:
        label = source.name.removesuffix(ending)
        for line, text in enumerate(read_text(source).splitlines(), 1):
            name, _, use = text.strip().rpartition(" ")
            if use in ("1", "2"):
                split = "train" if use == "1" else "test"
                rows[split].append(Row(find(label, name), f"{label}/{name}", label, source, line=line))
            elif use not in ("", "0"):
                raise ValueError(f"{source} line {line}: {text.strip()!r} does not end in 0, 1 or 2")
    return Listing(rows, sorted(source.name.removesuffix(ending) for source in sources), left_out=left_out)


def read_jester(data: Data) -> Listing:
    """`trainlist.txt` and `vallist.txt` (`34870 2`) with `classInd.txt`; video 34870 is any `34870.*` in `root`.

    Without a class file the 27 names are in alphabetical order. Ids are taken as counted from 1 where the least is 1
    and the greatest is the number of classes; a note says so.
    """
    folder = _needed(data, JESTER, "trainlist.txt and vallist.txt")
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


def _needed(data: Data, pattern: str, files: str) -> Path:
    folder = lists_folder(data, pattern)
    if folder is None:
        raise ValueError(
            f"no {files} in {data.splits or f'{data.root} and its folders'}: give data.splits, their folder"
        )
    return folder


def _finder(root: Path, left_out: list[str]) -> Callable[[str, str], Path]:
    """(class, file name) → path: in its class folder, else anywhere in `root`, also with another suffix."""
    files = {stem(path): path for path in walk(root, left_out)}

    def find(label: str, name: str) -> Path:
        expected, found = root / label / name, files.get(Path(name).stem)
        return expected if found is None or expected.is_file() else found

    return find
