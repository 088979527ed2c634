"""Where the official lists of a data set lie, and the videos that they name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vidstill.config import Data
from vidstill.data.lists import placed
from vidstill.data.rows import folders_in, is_video_name, stem, walk

_FEW = 16  # entries of a folder that is the wrapping of an archive, and not one of classes or videos
_MANY = 2000  # folders in a folder of videos as frames: lists do not lie among them
_DEPTH = 3


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


def finder(root: Path, left_out: list[str]) -> Callable[[str, str], Path]:
    """(class, file name) → path: in its class folder, else anywhere in `root`, also with another suffix."""
    files = by_stem(root, left_out)

    def find(label: str, name: str) -> Path:
        expected, found = root / label / name, files.get(Path(name).stem)
        return expected if found is None or expected.is_file() else found

    return find


def by_stem(root: Path, left_out: list[str]) -> dict[str, Path]:
    """Name without suffix → video, anywhere in `root`; a file rather than the frames that were extracted from it."""
    files: dict[str, Path] = {}
    for path in walk(root, left_out):
        if is_video_name(path.name) or stem(path) not in files:
            files[stem(path)] = path
    return files


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
