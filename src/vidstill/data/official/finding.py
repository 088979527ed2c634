"""Where the official lists of a data set lie, and the videos that they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vidstill.config import Data
from vidstill.data.lists import placed
from vidstill.data.rows import folders_in, stem, walk


def lists_folder(data: Data, pattern: str) -> Path | None:
    """The folder that holds a data set's official files: `data.splits`, else `data.root` or one in it."""
    folders = [placed(data, data.splits)] if data.splits else [data.root, *folders_in(data.root)]
    return next((folder for folder in folders if next(folder.glob(pattern), None)), None)


def needed(data: Data, pattern: str, files: str) -> Path:
    folder = lists_folder(data, pattern)
    if folder is None:
        raise ValueError(
            f"no {files} in {data.splits or f'{data.root} and its folders'}: give data.splits, their folder"
        )
    return folder


def finder(root: Path, left_out: list[str]) -> Callable[[str, str], Path]:
    """(class, file name) → path: in its class folder, else anywhere in `root`, also with another suffix."""
    files = {stem(path): path for path in walk(root, left_out)}

    def find(label: str, name: str) -> Path:
        expected, found = root / label / name, files.get(Path(name).stem)
        return expected if found is None or expected.is_file() else found

    return find
