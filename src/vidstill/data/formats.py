"""Annotation files and folders of every accepted format → rows (path, label as written, where it is written)."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vidstill.config import Data
from vidstill.labels import class_names, read_text

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
UNDIVIDED = "all"
VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .divx .dv .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
_SUFFIX = "|".join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES))
_PATH_WORDS = frozenset("path video videopath videoname filename file filepath name clip".split())
_LABEL_WORDS = frozenset("label labels class classid classname labelid category action target directorynumber".split())


@dataclass(frozen=True)
class Row:
    """One labelled video as an annotation says it; `name` is its path as written, `line` 0 stands for a folder."""

    path: Path
    name: str
    label: str
    source: Path
    line: int = 0
    group: str | None = None

    @property
    def where(self) -> str:
        return f"{self.source} line {self.line}" if self.line else str(self.source)


@dataclass
class Listing:
    """Rows by split (`all`: not divided). `classes` are those the format itself names, None where rows alone tell.

    `named` says that labels are names even where they look like numbers; `notes` are for the person who owns the data.
    """

    rows: dict[str, list[Row]]
    classes: list[str] | None = None
    named: bool = True
    notes: list[str] = field(default_factory=list)


def read_listing(data: Data) -> Listing:
    """The rows that `data` describes. Raises ValueError where its format cannot be told or a file cannot be understood."""
    if not data.root.exists():
        raise ValueError(f"data.root {data.root} is not there")
    listing = _READERS[_detect(data) if data.format == "auto" else data.format](data)
    if not any(listing.rows.values()):
        raise ValueError(f"{data.root}: no labelled video found as {data.format}")
    return listing


def _detect(data: Data) -> str:
    lists = _lists(data)
    if lists:
        return "kinetics" if all(map(_is_kinetics, lists.values())) else "csv"
    for name, pattern in _OFFICIAL.items():
        if _official_folder(data, pattern):
            return name
    if data.splits is None and (_split_folders(data.root) or _class_folders(data.root)):
        return "folders"
    if data.splits is None and any(map(_is_kinetics, _tables(data.root))):
        return "kinetics"
    raise ValueError(_nothing_found(data.splits or data.root))


def _read_folders(data: Data) -> Listing:
    """`root/<split>/<class>/*` where such folders are, else `root/<class>/*`; a class is there even if it holds nothing."""
    splits = _split_folders(data.root) or {UNDIVIDED: data.root}
    rows = {
        split: [
            Row(path, path.relative_to(data.root).as_posix(), folder.name, folder)
            for folder in _folders(top)
            for path in _videos(folder)
        ]
        for split, top in splits.items()
    }
    if not any(rows.values()):
        raise ValueError(_nothing_found(data.root))
    return Listing(rows, sorted({folder.name for top in splits.values() for folder in _folders(top)}))


def _read_lists(data: Data) -> Listing:
    """The csv files of the settings, or those called train, val and test in `root`."""
    lists = _lists(data)
    if not lists:
        raise ValueError(f"{data.root}: no train.csv there; give data.train, data.val or data.test")
    root = data.root.parent if data.root.is_file() else data.root
    return Listing({split: read_rows(path, root) for split, path in lists.items()}, named=False)


def read_rows(path: Path, root: Path) -> list[Row]:
    """One list of `path,label` lines (comma, semicolon, tab or space; header or not), or of JSON objects.

    Paths are relative to `root`. Raises ValueError that names the file and line.
    """
    entries = _json_entries(path) if path.suffix.lower() == ".json" else _csv_entries(path)
    rows = []
    for line, name, label, group in entries:
        name = name.strip().replace("\\", "/")
        if not name or not label.strip():
            raise ValueError(f"{path} line {line}: the {'label' if name else 'path'} is empty")
        rows.append(Row(root / name, name, label.strip(), path, line, (group or "").strip() or None))
    if not rows:
        raise ValueError(f"{path}: lists no video")
    return rows


def _json_entries(path: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """The list of {"filename" or "frame_dir": path, "label": id or [id]} of the Video-FocalNet reader."""
    try:
        entries = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(entries, list):
        raise ValueError(f'{path}: give a list of {{"filename": "a/b.mp4", "label": [0]}}')
    for number, entry in enumerate(entries, 1):
        name = entry.get("filename", entry.get("frame_dir")) if isinstance(entry, dict) else None
        if name is None or "label" not in entry:
            raise ValueError(f"{path} entry {number}: needs filename (or frame_dir) and label")
        labels = entry["label"] if isinstance(entry["label"], list) else [entry["label"]]
        if len(labels) != 1:
            raise ValueError(f"{path} entry {number}: {len(labels)} labels: one per video is understood")
        yield number, str(name), str(labels[0]), None


def _csv_entries(path: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """(line, path, label, group). Quotes, commas inside a path or a class name, and a header are understood."""
    lines = read_text(path).split("\n")
    filled = [line for line in lines if line.strip()]
    separator = next((s for s in ",;\t" if filled and all(s in line for line in filled[:20])), None)
    if separator:
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        table = [(reader.line_num, fields) for fields in reader if any(map(str.strip, fields))]
    else:
        table = [(number, _at_space(line.strip())) for number, line in enumerate(lines, 1) if line.strip()]
    columns = _columns(table)
    if columns is not None:
        header = table.pop(0)[1]
    for line, fields in table:
        if columns is None:
            yield line, *_path_and_label(fields, path, line), None
        elif len(fields) != len(header):
            raise ValueError(
                f"{path} line {line}: {len(fields)} fields, the header has {len(header)}; quote what holds a comma"
            )
        else:
            path_column, label_column, group_column = columns
            group = fields[group_column] if group_column is not None else None
            yield line, fields[path_column], fields[label_column], group


def _columns(table: list[tuple[int, list[str]]]) -> tuple[int, int, int | None] | None:
    """Where a header puts path, label and group; None where the first line is a video already."""
    if not table:
        return None
    words = [re.sub("[^a-z]", "", cell.casefold()) for cell in table[0][1]]
    paths = [n for n, word in enumerate(words) if word in _PATH_WORDS]
    labels = [n for n, word in enumerate(words) if word in _LABEL_WORDS]
    if paths and labels:
        return paths[0], labels[0], words.index("group") if "group" in words else None
    first, *rest = (fields for _, fields in table)
    numbered = bool(rest) and all(len(fields) == 2 and _is_number(fields[1]) for fields in rest)
    if numbered and len(first) == 2 and not _is_number(first[1]) and not Path(first[0]).suffix:
        return 0, 1, None
    return None


def _at_space(line: str) -> list[str]:
    """Path and label: after the suffix of a video where one is seen, for both may hold spaces; else at the last space."""
    seen = re.fullmatch(rf"(.*\.(?:{_SUFFIX}))\s+(.+)", line, re.IGNORECASE)
    return [seen[1], seen[2]] if seen else line.rsplit(maxsplit=1)


def _path_and_label(fields: list[str], path: Path, line: int) -> tuple[str, str]:
    """From a line without header: `path,label`, tolerating an unquoted comma in either."""
    numbers = list(map(_is_number, fields))
    if len(fields) < 2:
        raise ValueError(f"{path} line {line}: {fields[0]!r} has no label; write path,label")
    if len(fields) > 2 and numbers[-1] and numbers[-2] or re.fullmatch(r"-?\d+(\s+-?\d+)+", fields[-1]):
        raise ValueError(f"{path} line {line}: several labels: one per video is understood")
    return (",".join(fields[:-1]), fields[-1]) if numbers[-1] else (fields[0], ",".join(fields[1:]))


def _read_ucf101(data: Data) -> Listing:
    """The official lists `trainlist0N.txt` (`Class/v_Class_g01_c01.avi 1`), `testlist0N.txt` and `classInd.txt`."""
    folder = _official_folder(data, _OFFICIAL["ucf101"]) or _no_official(data, "trainlist01.txt and testlist01.txt")
    index = folder / "classInd.txt"
    classes = class_names(index if index.is_file() else "ucf101")
    find = _finder(data.root)
    rows: dict[str, list[Row]] = {}
    for split in ("train", "test"):
        source = _of_fold(folder, f"{split}list{data.fold:02}.txt")
        rows[split] = []
        for line, text in enumerate(read_text(source).splitlines(), 1):
            if not text.strip():
                continue
            name, _, number = text.strip().partition(" ")
            label = name.split("/")[0] if "/" in name else re.sub(r"^v_(.+)_g\d+_c\d+\.\w+$", r"\1", name)
            if number and classes[int(number) - 1 : int(number)] != [label]:
                raise ValueError(f"{source} line {line}: {name} is said to be class {number}, but {index} has another there")
            rows[split].append(Row(find(label, Path(name).name), name, label, source, line))
    return Listing(rows, classes)


def _read_hmdb51(data: Data) -> Listing:
    """The official files `<class>_test_splitN.txt`: lines `name 1` (train), `name 2` (test), `name 0` (unused)."""
    folder = _official_folder(data, _OFFICIAL["hmdb51"]) or _no_official(data, "<class>_test_split1.txt")
    _of_fold(folder, f"*_test_split{data.fold}.txt")
    find = _finder(data.root)
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    ending = f"_test_split{data.fold}.txt"
    sources = sorted(folder.glob(f"*{ending}"))
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


def _read_kinetics(data: Data) -> Listing:
    """csv files with `label,youtube_id,time_start,time_end,split`; videos `<id>_<start:06d>_<end:06d>` or `<id>` anywhere in
    `root`. Some of them are always gone from YouTube: those are left out, with a note."""
    given = {split: path for split, path in _lists(data).items() if _is_kinetics(path)}
    tables = {path: split for split, path in given.items()} or dict.fromkeys(filter(_is_kinetics, _tables(data.splits or data.root)))
    if not tables:
        raise ValueError(
            f"{data.splits or data.root}: no csv with the columns label,youtube_id,time_start,time_end,split there or in "
            "its folder annotations; class folders are data.format folders, path,label files data.format csv"
        )
    root = data.root.parent if data.root.is_file() else data.root
    files = {path.stem: path for path in _walk(root)}
    rows: dict[str, dict[str, Row]] = {}
    gone: dict[str, dict[str, Path]] = {}
    for table, split in tables.items():
        for line, entry in _kinetics_entries(table):
            part = split or _split_of(entry, table, line)
            clip = entry["youtube_id"]
            stem = f"{clip}_{_second(entry, 'time_start', table, line):06}_{_second(entry, 'time_end', table, line):06}"
            path = files.get(stem) or files.get(clip)
            if path is None:
                gone.setdefault(part, {})[stem] = table
            else:
                rows.setdefault(part, {})[stem] = Row(path, path.relative_to(root).as_posix(), entry["label"], table, line, clip)
    if not rows:
        raise ValueError(f"{root}: none of the videos of {next(iter(tables))} is there: looked for {stem}.mp4, {clip}.mp4 …")
    notes = [
        f"{part}: {len(stems)} of {len(stems) + len(rows.get(part, ()))} listed videos are not in {root} and are left out, "
        f"e.g. {next(iter(stems))}"
        for part, stems in gone.items()
    ]  # fmt: skip
    return Listing({part: list(found.values()) for part, found in rows.items()}, notes=notes)


def _kinetics_entries(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(read_text(table).split("\n"), skipinitialspace=True)
    for entry in reader:
        if not entry.get("label") or not entry.get("youtube_id"):
            raise ValueError(f"{table} line {reader.line_num}: label or youtube_id is empty")
        yield reader.line_num, entry


def _second(entry: dict[str, str], column: str, table: Path, line: int) -> int:
    try:
        return int(float(entry[column]))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{table} line {line}: {column} {entry.get(column)!r} is not a number of seconds") from None


def _split_of(entry: dict[str, str], table: Path, line: int) -> str:
    word = (entry.get("split") or "").strip()
    if word.casefold() not in SPLITS:
        raise ValueError(f"{table} line {line}: split {word!r}: allowed are {', '.join(SPLITS)}")
    return SPLITS[word.casefold()]


def _lists(data: Data) -> dict[str, Path]:
    """Split → list file: those of the settings, else `root` itself, else train/val/test.csv in it."""
    given = {"train": data.train, "val": data.val, "test": data.test}
    lists = {split: path for split, path in given.items() if path is not None}
    for split, path in lists.items():
        if not path.is_file():
            lists[split] = data.root / path
            if not lists[split].is_file():
                raise ValueError(f"data.{split}: no file {path}, nor {lists[split]}")
    if lists:
        return lists
    if data.root.is_file():
        return {UNDIVIDED: data.root}
    return {SPLITS[path.stem]: path for path in _tables(data.root) if path.parent == data.root and path.stem in SPLITS}


def _tables(folder: Path) -> list[Path]:
    """The csv files of a folder and of its `annotations`."""
    return sorted(folder.glob("*.csv")) + sorted((folder / "annotations").glob("*.csv"))


def _is_kinetics(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        cells = {cell.strip('" \r\n') for cell in file.readline().split(",")}
    return {"label", "youtube_id"} <= cells


_OFFICIAL = {"ucf101": "trainlist0?.txt", "hmdb51": "*_test_split?.txt"}


def _official_folder(data: Data, pattern: str) -> Path | None:
    """The folder that holds the official lists: `data.splits`, else `root` or one of its folders."""
    if data.root.is_file():
        return None
    folders = [data.splits] if data.splits else [data.root, *_folders(data.root)]
    return next((folder for folder in folders if next(folder.glob(pattern), None)), None)


def _no_official(data: Data, names: str) -> Path:
    where = data.splits or f"{data.root} and its folders"
    raise ValueError(f"no {names} in {where}: give their folder as data.splits")


def _of_fold(folder: Path, pattern: str) -> Path:
    found = next(folder.glob(pattern), None)
    if found is None:
        raise ValueError(f"{folder}: no {pattern}; the official splits are data.fold 1, 2 and 3")
    return found


def _finder(root: Path) -> Callable[[str, str], Path]:
    """(class, file name) → path in `root`: in its class folder, else anywhere, also re-encoded with another suffix."""
    files = {path.stem: path for path in _walk(root)}

    def find(label: str, name: str) -> Path:
        path = files.get(Path(name).stem)
        expected = root / label / name
        return expected if path is None or expected.is_file() else path

    return find


def _split_folders(root: Path) -> dict[str, Path]:
    """Split → folder, for folders called after a split that hold class folders. A class called "train" holds videos."""
    splits: dict[str, Path] = {}
    for folder in _folders(root):
        split = SPLITS.get(folder.name.casefold())
        if split and _class_folders(folder):
            if split in splits:
                raise ValueError(f"{splits[split]} and {folder} are both {split}: keep one")
            splits[split] = folder
    return splits


def _class_folders(top: Path) -> list[Path]:
    """The folders of `top`, if any of them holds a video."""
    folders = _folders(top)
    return folders if any(next(_videos(folder), None) for folder in folders) else []


def _folders(top: Path) -> list[Path]:
    if not top.is_dir():
        return []
    return sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _videos(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if _is_video(path))


def _walk(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root, followlinks=True):
        below.sort()
        yield from (path for path in (Path(folder, name) for name in sorted(names)) if _is_video(path))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text.strip()) is not None


def _nothing_found(root: Path) -> str:
    if root.is_file():
        return f"{root}: not a folder"
    entries = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    deeper = next(_walk(root), None)
    hint = f"; a video lies at {deeper.relative_to(root)}" if deeper else f"; it holds {_few(entries) or 'nothing'}"
    return (
        f"{root}: no annotations found; looked for train.csv and val.csv, the official UCF101 and HMDB51 lists, "
        f"{root.name or '.'}/train/<class>/*.mp4, {root.name or '.'}/<class>/*.mp4 and Kinetics csv files{hint}"
    )


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


_READERS: dict[str, Callable[[Data], Listing]] = {
    "folders": _read_folders,
    "synthetic": _read_folders,
    "csv": _read_lists,
    "ucf101": _read_ucf101,
    "hmdb51": _read_hmdb51,
    "kinetics": _read_kinetics,
}
