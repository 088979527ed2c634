"""Where the official lists of a data set lie, and what tells them by their content; tables with a header."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vidstill.config import Data
from vidstill.data.lists import placed
from vidstill.data.rows import folders_in
from vidstill.labels import read_text

_FEW = 16  # entries of a folder that is the wrapping of an archive, and not one of classes or videos
_MANY = 2000  # folders in a folder of videos as frames: lists do not lie among them
_DEPTH = 3
_OF_LISTS = re.compile("split|list|annot|label", re.IGNORECASE)  # in the names of folders of lists


def lists_folder(data: Data, *patterns: str) -> Path | None:
    """The folder that holds a data set's official files, one at least for each pattern.

    It is `data.splits`, else `data.root`, or a folder in it, also where the archive of the lists or the whole set was
    unpacked into folders of their own.
    """
    folders = list_folders(data)
    return next((folder for folder in folders if all(next(folder.glob(each), None) for each in patterns)), None)


def list_folders(data: Data) -> Iterable[Path]:
    """Where official files may lie, as `lists_folder` looks for them."""
    return [placed(data, data.splits)] if data.splits else _searched(data.root)


def needed(data: Data, pattern: str, files: str) -> Path:
    folder = lists_folder(data, pattern)
    if folder is None:
        raise ValueError(
            f"no {files} in {data.splits or f'{data.root} and its folders'}: give data.splits, their folder"
        )
    return folder


def official_files(data: Data, told: Callable[[Path], bool], *patterns: str) -> list[Path]:
    """The files that match one of `patterns` and that `told` takes for a data set's, in the first folder with any."""
    for folder in list_folders(data):
        files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file() and told(path)}
        if files:
            return sorted(files)
    return []


def holds(path: Path, *words: bytes) -> bool:
    """Whether a file can be read and has all these in it."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return all(word in content for word in words)


def lists_beside(root: Path, pattern: str) -> Path | None:
    """The folder of lists beside `root`, or in such a one, that holds files of this pattern."""
    for folder in sorted(root.absolute().parent.iterdir()):
        if _OF_LISTS.search(folder.name) and folder.is_dir():
            found = (each for each in (folder, *folders_in(folder)) if next(each.glob(pattern), None))
            if first := next(found, None):
                return first
    return None


def header(path: Path) -> list[str]:
    """The columns of a csv, if it is one."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return [cell.strip().strip('"') for cell in file.readline().split(",")]


def read_table(path: Path, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column → cell, "" where a line is too short) of each row of a csv with a header.

    Raises ValueError where it lacks one of `columns` or is no csv.
    """
    reader = csv.DictReader(read_text(path).split("\n"), restval="")
    try:
        if lacking := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise ValueError(f"{path}: has no column {lacking[0]}; wanted are {', '.join(columns)}")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num}: {error}; is a quotation mark left open?") from None


def _searched(root: Path) -> Iterator[Path]:
    """`root`, its folders, and those that lie in few others."""
    level = [root]
    for _ in range(_DEPTH):
        yield from level
        level = [inner for folder in level if folder == root or _entries(folder) <= _FEW for inner in _folders(folder)]
    yield from level


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [] if sum(entry.is_dir() for entry in entries) > _MANY else folders_in(folder)


def _entries(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(1 for _, _ in zip(range(_FEW + 1), entries, strict=False))
    except OSError:
        return _FEW + 1
