"""The split files that published data sets come with (UCF101, HMDB51, Kinetics) → rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vidstill.data.rows import SPLITS, Listing, Row, walk
from vidstill.labels import class_names, read_text, spelling

OFFICIAL = {"ucf101": "trainlist0?.txt", "hmdb51": "*_test_split?.txt", "jester": "vallist.txt"}


def find_official(name: str, folders: Iterable[Path]) -> Path | None:
    """The first of `folders` that holds the split files of the data set `name`."""
    return next((folder for folder in folders if next(folder.glob(OFFICIAL[name]), None)), None)


def read_ucf101(root: Path, folder: Path, fold: int) -> Listing:
    """`trainlist0N.txt` (`Class/v_Class_g01_c01.avi 1`), `testlist0N.txt` (no number) and `classInd.txt`."""
    index = folder / "classInd.txt"
    classes = class_names(index if index.is_file() else "ucf101")
    find = _finder(root)
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for split, found in rows.items():
        source = folder / f"{split}list{fold:02}.txt"
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
            found.append(Row(find(label, Path(name).name), name, label, source, line))
    return Listing(rows, classes)


def read_hmdb51(root: Path, folder: Path, fold: int) -> Listing:
    """`<class>_test_splitN.txt`: lines `name 1` (train), `name 2` (test), `name 0` (unused)."""
    ending = f"_test_split{fold}.txt"
    sources = sorted(folder.glob(f"*{ending}"))
    if not sources:
        raise ValueError(f"{folder}: no <class>{ending}; the official splits are data.fold 1, 2 and 3")
    find = _finder(root)
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for source in sources:
        label = source.name.removesuffix(ending)
        for line, text in enumerate(read_text(source).splitlines(), 1):
            name, _, use = text.strip().rpartition(" ")
            if use in ("1", "2"):
                split = "train" if use == "1" else "test"
                rows[split].append(Row(find(label, name), f"{label}/{name}", label, source, line))
            elif use not in ("", "0"):
                raise ValueError(f"{source} line {line}: {text.strip()!r} does not end in 0, 1 or 2")
    return Listing(rows, sorted(source.name.removesuffix(ending) for source in sources))


def read_jester(root: Path, folder: Path, fold: int) -> Listing:
    """`trainlist.txt` and `vallist.txt` (`34870 2`) with `classInd.txt`; video 34870 is any `34870.*` in `root`.

    Without a class file the 27 names are in alphabetical order. Ids are taken as counted from 1 where the least is 1
    and the greatest is the number of classes; a note says so.
    """
    index = folder / "classInd.txt"
    classes = class_names(index) if index.is_file() else sorted(class_names("jester"))
    files = {path.stem: path for path in walk(root)}
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
            Row(files.get(name, root / name / f"{name}.mp4"), name, classes[number - first], source, line)
            for source, line, name, number in found
        ]
        for split, found in listed.items()
    }
    notes = [f"class ids count from 1 in {folder}: 1 is {classes[0]}"] if first else []
    return Listing(rows, classes, notes=notes)


def is_kinetics(path: Path) -> bool:
    """Whether a csv file has the columns of Kinetics."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return {"label", "youtube_id"} <= {cell.strip('" \n') for cell in file.readline().split(",")}


def read_kinetics(root: Path, tables: dict[Path, str | None]) -> Listing:
    """csv files (each with its split, None: as its column says) with `label,youtube_id,time_start,time_end,split`.

    Videos are `<id>_<start:06d>_<end:06d>` or `<id>` with any suffix, anywhere in `root`. Some of Kinetics is always
    gone from YouTube: videos that are not there are left out, with a note. Raises ValueError where none is there.
    """
    files = {path.stem: path for path in walk(root)}
    rows: dict[str, dict[str, Row]] = {}
    gone: dict[str, list[str]] = {}
    for table, split in tables.items():
        for line, entry in _kinetics_entries(table):
            part, clip = split or _split_of(entry, f"{table} line {line}"), entry["youtube_id"]
            start, end = (_second(entry, column, f"{table} line {line}") for column in ("time_start", "time_end"))
            stem = f"{clip}_{start:06}_{end:06}"
            path = files.get(stem) or files.get(clip)
            if path is None:
                gone.setdefault(part, []).append(stem)
            else:
                name = path.relative_to(root).as_posix()
                rows.setdefault(part, {})[stem] = Row(path, name, entry["label"], table, line, clip)
    if not rows:
        example = next(iter(gone.values()))[0] if gone else "<id>_<start>_<end>"
        raise ValueError(
            f"no video of {', '.join(map(str, tables))} is in {root}, neither {example}.mp4 nor {example[:-14]}.mp4"
        )
    notes = [
        f"{part}: {len(stems)} of {len(stems) + len(rows.get(part, ()))} listed videos are not in {root} and left out, "
        f"the first {stems[0]}"
        for part, stems in gone.items()
    ]
    return Listing({part: list(found.values()) for part, found in rows.items()}, notes=notes)


def _kinetics_entries(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(read_text(table).split("\n"))
    for entry in reader:
        if not entry.get("label") or not entry.get("youtube_id"):
            raise ValueError(f"{table} line {reader.line_num}: label or youtube_id is empty")
        yield reader.line_num, entry


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


def _finder(root: Path) -> Callable[[str, str], Path]:
    """(class, file name) → path: in its class folder, else anywhere in `root`, also with another suffix."""
    files = {path.stem: path for path in walk(root)}

    def find(label: str, name: str) -> Path:
        expected, found = root / label / name, files.get(Path(name).stem)
        return expected if found is None or expected.is_file() else found

    return find
