"""Moments in Time, and Multi-Moments in Time, whose videos have several classes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from vidstill.config import Data
from vidstill.data.official.finding import lists_folder
from vidstill.data.rows import Listing, Row, stem, walk
from vidstill.labels import read_text

MOMENTS, MULTI_MOMENTS = "trainingSet.csv", "trainingSet.txt"
_CLASSES = "moments_categories.txt"


def has_moments(data: Data) -> bool:
    return _lists(data, multiple=False) is not None


def has_multi_moments(data: Data) -> bool:
    return _lists(data, multiple=True) is not None


def read_moments(data: Data) -> Listing:
    """`trainingSet.csv` and `validationSet.csv` (`blocking/getty-1.mp4,blocking,4,0`: file, class, workers for and
    against it), `training/<class>/` and `validation/<class>/`."""
    folder = _needed(data, multiple=False)
    left_out: list[str] = []
    files = _files(data.root, left_out)
    rows: dict[str, list[Row]] = {}
    for split, part in (("train", "training"), ("val", "validation")):
        source = _list(folder, part, MOMENTS)
        rows[split] = [
            Row(files.get(_key(name), data.root / part / name), name, labels[0], source, line=line)
            for line, name, labels in _entries(source)
        ]
    index = folder / _CLASSES
    return Listing(rows, list(_categories(index).values()) if index.is_file() else None, left_out=left_out)


def read_multi_moments(data: Data) -> Listing:
    """`trainingSet.txt` and `validationSet.txt` (`adult+male+singing/a.mp4,5,120`), with the names of the ids in
    `moments_categories.txt`; videos in `videos/`. Raises ValueError without `data.multi_label`."""
    folder = _needed(data, multiple=True)
    if not data.multi_label:
        raise ValueError(f"{folder}: videos of Multi-Moments in Time have several classes: set data.multi_label")
    index = folder / _CLASSES
    if not index.is_file():
        raise ValueError(f"no {index}: without it the numbers of Multi-Moments in Time have no names")
    categories, left_out = _categories(index), list[str]()
    files = _files(data.root, left_out)
    rows: dict[str, list[Row]] = {}
    for split, part in (("train", "training"), ("val", "validation")):
        source = _list(folder, part, MULTI_MOMENTS)
        rows[split] = []
        for line, name, labels in _entries(source):
            unknown = [label for label in labels if label not in categories]
            if unknown:
                raise ValueError(f"{source} line {line}: {unknown[0]!r} is no id of {index}")
            path = files.get(_key(name), data.root / "videos" / name)
            rows[split].append(Row(path, name, ";".join(categories[label] for label in labels), source, line=line))
    return Listing(rows, list(categories.values()), left_out=left_out)


def _lists(data: Data, multiple: bool) -> Path | None:
    """The folder of the lists; with either ending, as what stands after the file name tells the one set from the
    other: the name of a class, or ids."""
    for pattern in (MULTI_MOMENTS, MOMENTS) if multiple else (MOMENTS, MULTI_MOMENTS):
        folder = lists_folder(data, pattern)
        first = next(_entries(folder / pattern), None) if folder else None
        if first and first[2][0].isdecimal() == multiple:
            return folder
    return None


def _needed(data: Data, multiple: bool) -> Path:
    if folder := _lists(data, multiple):
        return folder
    wanted = "trainingSet.txt of Multi-Moments in Time" if multiple else "trainingSet.csv of Moments in Time"
    raise ValueError(f"no {wanted} in {data.splits or f'{data.root} and its folders'}: give data.splits, their folder")


def _list(folder: Path, part: str, example: str) -> Path:
    first, second = (folder / f"{part}Set{suffix}" for suffix in dict.fromkeys((Path(example).suffix, ".csv", ".txt")))
    if not (first.is_file() or second.is_file()):
        raise ValueError(f"no {first}: the lists of training and of validation are both needed")
    return first if first.is_file() else second


def _entries(source: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line, file, what follows it) of each line but a header."""
    for line, fields in enumerate(csv.reader(read_text(source).splitlines()), 1):
        name, *rest = (field.strip() for field in fields) if fields else ("",)
        if name and not any(rest[:1]):
            raise ValueError(f"{source} line {line}: {name!r} has no class")
        if name and name != "filename":
            yield line, name, [label for label in rest if label]


def _categories(index: Path) -> dict[str, str]:
    """Id → name, in the order of the ids, from lines `applauding,1`."""
    named: dict[str, str] = {}
    for line, text in enumerate(read_text(index).splitlines(), 1):
        name, _, number = text.strip().rpartition(",")
        if text.strip() and not (name and number.isdecimal() and number not in named):
            raise ValueError(f"{index} line {line}: {text.strip()!r} is no class with a number of its own")
        if text.strip():
            named[number] = name
    return dict(sorted(named.items(), key=lambda item: int(item[0])))


def _key(name: str | Path) -> str:
    """Folder and name without suffix: a clip may lie in the folders of several classes."""
    path = Path(name)
    return f"{path.parent.name}/{stem(path)}"


def _files(root: Path, left_out: list[str]) -> dict[str, Path]:
    return {_key(path): path for path in walk(root, left_out)}
