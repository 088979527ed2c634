"""List files (`path,label` lines or JSON): where they are, and their rows."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vidstill.config import Data
from vidstill.data.rows import SPLITS, UNDIVIDED, VIDEO_SUFFIXES, Row, is_video_name
from vidstill.files import from_text
from vidstill.labels import read_json, read_text
from vidstill.video.source import ASSUMED_FPS

# header words, letters only: "Video Path" is videopath
_PATH_WORDS = {"path", "video", "videopath", "videoname", "filename", "file", "filepath", "name", "clip"}
_LABEL_WORDS = {
    "label", "labels", "class", "classid", "classname", "labelid", "category", "action", "target", "directorynumber",
}  # fmt: skip
_START_WORDS, _END_WORDS = (
    [form.format(word) for word in words for form in ("{}", "time{}", "{}time", "t{}", "{}seconds", "{}sec")]
    for words in (("start", "begin"), ("end", "stop"))
)
_OTHER_STRETCHES = re.compile("(start|begin|end|stop)frame|framestart|frameend")
_SUFFIX = "|".join(suffix[1:] for suffix in VIDEO_SUFFIXES)
_SPACED = re.compile(rf".*\.(?:{_SUFFIX})([ \t])\s*(?!.*\.(?:{_SUFFIX})\b)[^\s,;].*", re.IGNORECASE)


class Entry(NamedTuple):
    line: int
    name: str
    label: str
    group: str | None = None
    start: float = 0.0
    end: float | None = None
    frames: int | None = None


class Columns(NamedTuple):
    path: int
    label: int
    group: int | None = None
    start: int | None = None
    end: int | None = None


def base(data: Data) -> Path:
    """What paths are relative to: `data.root`, or the folder of the list that it is."""
    return data.root.parent if data.root.is_file() else data.root


def placed(data: Data, path: Path) -> Path:
    """Where a path of the settings is: relative to `data.root` if something is there, else to the working folder."""
    inside = base(data) / path
    return inside if inside.exists() else path


def given_lists(data: Data) -> dict[str, Path]:
    """Split → list file, as settings name them; `root` itself may be one. Raises ValueError where one is missing."""
    given = {"train": data.train, "val": data.val, "test": data.test}
    lists = {split: placed(data, path) for split, path in given.items() if path is not None}
    for split, path in lists.items():
        if not path.is_file():
            raise ValueError(f"data.{split} {given[split]} is not there, nor in {base(data)}")
    return lists or ({UNDIVIDED: data.root} if data.root.is_file() else {})


def list_files(data: Data) -> dict[str, Path]:
    """Split → list file: those of the settings, else train.csv, val.csv and test.csv in `root`, else those of the
    SlowFast fork's Kinetics."""
    if given := given_lists(data):
        return given
    found = {SPLITS[path.stem]: path for path in sorted(data.root.glob("*.csv")) if path.stem in SPLITS}
    private = {split: data.root / f"kinetics_p3d_{split}_byvideo_128.lst" for split in ("train", "val")}
    return found or {split: path for split, path in private.items() if path.is_file()}


def read_rows(path: Path, root: Path, *, multi_label: bool = False, fps: float | None = None) -> list[Row]:
    """The rows of a list: `path,label` with comma, semicolon, tab or space, header or not; or JSON.

    Paths are relative to `root`. Several labels of a video are one text that `split_labels` understands. Of folders of
    frames also `folder frames label`, and `folder offset frames label` where that is every line and no video has
    several labels: `fps` is then their rate. Raises ValueError that names the file and the line.
    """
    entries = list(_from_json(path) if path.suffix.lower() == ".json" else _from_csv(path))
    if not multi_label:
        entries = _with_offset(entries, fps or ASSUMED_FPS)
    rows = []
    for entry in entries:
        name, label = entry.name.strip().replace("\\", "/"), entry.label.strip()
        if not name or not label:
            raise ValueError(f"{path} line {entry.line}: the {'label' if name else 'path'} is empty")
        group = (entry.group or "").strip() or None
        rows.append(
            Row(root / name, name, label, path, line=entry.line, group=group,
                start=entry.start, end=entry.end, frames=entry.frames)
        )  # fmt: skip
    if not rows:
        raise ValueError(f"{path}: lists no video")
    return rows


def is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text.strip()) is not None


def split_labels(text: str) -> list[str]:
    """The labels of a video as written: `walk; wave`, or numbers with commas or spaces between them too."""
    between = r"[\s,;]+" if re.fullmatch(r"[-\d\s,;]+", text) else ";"
    return [label for part in re.split(between, text) if (label := part.strip())]


def _from_json(path: Path) -> Iterator[Entry]:
    """[{"filename" or "frame_dir": path, "label": id or [id, …]}, …] as the Video-FocalNet reader has it."""
    objects = read_json(path)
    if not isinstance(objects, list):
        raise ValueError(f'{path}: give a list of {{"filename": "a/b.mp4", "label": [0]}}')
    for number, item in enumerate(objects, 1):
        name = item.get("filename", item.get("frame_dir")) if isinstance(item, dict) else None
        if name is None or "label" not in item:
            raise ValueError(f"{path} entry {number}: needs filename (or frame_dir) and label")
        if isinstance(item["label"], dict):
            raise ValueError(
                f"{path} entry {number}: has labels by category; give the csv of HVU, or the list of one category that "
                "OpenMMLab's generate_sub_file_list.py makes"
            )
        labels = item["label"] if isinstance(item["label"], list) else [item["label"]]
        yield Entry(number, str(name), ";".join(map(str, labels)))


def _from_csv(path: Path) -> Iterator[Entry]:
    lines = read_text(path).split("\n")
    separator = _separator(lines)
    table = list(_table(path, lines, separator))
    columns = _columns(table, f"{path} line 1")
    if columns is None:
        plain = [Entry(line, *_path_and_label(fields, separator, f"{path} line {line}")) for line, fields in table]
        yield from _with_counts(plain) if separator == " " else plain
        return
    width = len(table.pop(0)[1])
    for line, fields in table:
        if len(fields) != width:
            raise ValueError(
                f"{path} line {line}: {len(fields)} fields, the header has {width}: quote what holds a comma"
            )
        group = None if columns.group is None else fields[columns.group]
        start, end = (
            None if column is None else read_seconds(fields[column], f"{path} line {line}")
            for column in (columns.start, columns.end)
        )
        check_stretch(start, end, f"{path} line {line}")
        yield Entry(line, fields[columns.path], fields[columns.label], group, start or 0.0, end)


def _with_counts(entries: list[Entry]) -> list[Entry]:
    """Of a list `folder frames label` (OpenMMLab's rawframe lists, GKD's): how many frames are in each folder.

    That it is one is seen by every line: a folder, not a file, and two numbers or more.
    """
    found = [re.fullmatch(r"(.+?)\s+(\d+)((?:\s+\d+)*)", f"{entry.name} {entry.label}") for entry in entries]
    if any(line is None or not line[3] or is_video_name(line[1]) for line in found):
        return entries
    return [
        entry._replace(name=line[1], frames=int(line[2]), label=",".join(line[3].split()))
        for entry, line in zip(entries, found, strict=True)
        if line
    ]


def _with_offset(entries: list[Entry], fps: float) -> list[Entry]:
    """`folder offset frames label`: stretches, where every line has just these numbers."""
    numbers = [split_labels(entry.label) if entry.frames is not None else [] for entry in entries]
    if not all(len(found) == 2 for found in numbers):
        return entries
    return [
        entry._replace(label=label, frames=None, start=entry.frames / fps, end=(entry.frames + int(frames)) / fps)
        for entry, (frames, label) in zip(entries, numbers, strict=True)
        if entry.frames is not None
    ]


def read_seconds(text: str, where: str) -> float | None:
    """`12.5`, `0:12.5` or `1:02:03.4`; None where nothing stands. Raises ValueError."""
    if not text.strip():
        return None
    if not re.fullmatch(r"\d+(?:\.\d*)?|(?:\d+:)?\d+:[0-5]?\d(?:\.\d*)?", text.strip()):
        raise ValueError(f"{where}: {text.strip()!r} is no time: give seconds (12.5) or h:mm:ss.ff")
    seconds = 0.0
    for part in text.strip().split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def check_stretch(start: float | None, end: float | None, where: str) -> None:
    """Raises ValueError for one that ends before it starts."""
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"{where}: a stretch from {start or 0:g} to {end:g} s: the end must come after the start")


def _separator(lines: list[str]) -> str:
    """Space or tab where it follows every video (`a.mp4 3,17`), else that of , ; and tab which all lines have, or half
    of them."""
    sample = [line.strip() for line in lines[:20] if line.strip()]
    found = [_SPACED.fullmatch(line) for line in sample[1:] or sample]  # the first may be a header
    after = {match and match[1] for match in found}
    if len(after) == 1 and (separator := after.pop()):
        return separator
    counts = {separator: sum(separator in line for line in sample) for separator in ",;\t"}
    wanted = (max(1, len(sample)), max(1, len(sample) / 2))
    return next((separator for least in wanted for separator, count in counts.items() if count >= least), " ")


def _table(path: Path, lines: list[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields."""
    if separator == " ":
        yield from ((number, _at_space(line.strip())) for number, line in enumerate(lines, 1) if line.strip())
        return
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        yield from ((reader.line_num, [*map(from_text, fields)]) for fields in reader if any(map(str.strip, fields)))
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num}: {error}; is a quotation mark left open?") from None


def _at_space(line: str) -> list[str]:
    """Path and label, both with spaces: parted after the suffix of a video, if one is seen, else at the last space."""
    seen = re.fullmatch(rf"(.*\.(?:{_SUFFIX}))\s+(.+)", line, re.IGNORECASE)
    return [seen[1], seen[2]] if seen else line.rsplit(maxsplit=1)


def _columns(table: list[tuple[int, list[str]]], where: str) -> Columns | None:
    """Where a header puts path, label, group and the stretch; None where the first line is a video already. Raises
    ValueError for stretches that are not in seconds from start to end."""
    if not table:
        return None
    first, *rest = (fields for _, fields in table)
    words = [re.sub("[^a-z]", "", cell.casefold()) for cell in first]
    paths = [column for column, word in enumerate(words) if word in _PATH_WORDS]
    labels = [column for column, word in enumerate(words) if word in _LABEL_WORDS]
    if paths and labels:
        group, start, end = (
            next((words.index(word) for word in known if word in words), None)
            for known in (("group",), _START_WORDS, _END_WORDS)
        )
        half = ("duration", "length") if start is not None and end is None else ()
        other = [cell for cell, word in zip(first, words, strict=True) if _OTHER_STRETCHES.match(word) or word in half]
        if other:
            raise ValueError(
                f"{where}: column {other[0]!r}: stretches are given in seconds, in the columns start and end: write "
                "these, or take the column out where the files are cut already"
            )
        return Columns(paths[0], labels[0], group, start, end)
    numbered = bool(rest) and all(len(fields) == 2 and is_number(fields[1]) for fields in rest)
    if numbered and len(first) == 2 and not is_number(first[1]) and not Path(first[0]).suffix:
        return Columns(0, 1)
    return None


def _path_and_label(fields: list[str], separator: str, where: str) -> tuple[str, str]:
    """From a line without header: the numbers at its end are labels, else all but the first field is one.

    An unquoted comma in the path or in a class name is tolerated; other separators stand between labels.
    """
    if len(fields) < 2:
        raise ValueError(f"{where}: {fields[0]!r} has no label; write path,label")
    numbers = list(itertools.takewhile(_numeric, reversed(fields[1:])))[::-1]
    if numbers:
        return ",".join(fields[: -len(numbers)]), ",".join(numbers)
    return fields[0], ("," if separator == "," else ";").join(fields[1:])


def _numeric(text: str) -> bool:
    labels = split_labels(text)
    return bool(labels) and all(map(is_number, labels))
