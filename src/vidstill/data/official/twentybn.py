"""The lists of 20BN, later Qualcomm: `<set>-train.csv` with lines `id;label`, in the releases of 2022 `train.csv`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vidstill.config import Data
from vidstill.data.lists import placed
from vidstill.data.official.finding import lists_folder
from vidstill.data.official.present import by_stem
from vidstill.data.rows import Listing, Row, walk
from vidstill.labels import read_text

FPS = 12.0  # of the frame folders that 20BN distributed
Entries = Callable[[Path], Iterator[tuple[int, str, str]]]  # list → (line, id, label) of each video


class Lists(NamedTuple):
    """How the lists of a set are called (`jester-v1-train.csv`), a class that tells it from others where its name is
    left out (`labels/train.csv`), and how its videos are (a suffix, none of folders of frames)."""

    prefix: str
    suffix: str
    known: str
    video: str = ""

    def folder(self, data: Data) -> Path | None:
        for part in ("train", "validation"):
            if folder := lists_folder(data, f"{self.prefix}-{part}{self.suffix}"):
                return folder
        folder = lists_folder(data, *(f"{part}{self.suffix}" for part in ("train", "validation", "labels")))
        index = folder and (folder / f"labels{self.suffix}").read_text(encoding="utf-8", errors="replace")
        return folder if index and self.known in index else None

    def are_there(self, data: Data) -> bool:
        return self.folder(data) is not None

    def needed(self, data: Data) -> Path:
        if folder := self.folder(data):
            return folder
        raise ValueError(
            f"no {self.prefix}-train{self.suffix}, nor labels/train{self.suffix}, in "
            f"{data.splits or f'{data.root} and its folders'}: give data.splits, their folder"
        )

    def file(self, folder: Path, part: str) -> Path:
        short = folder / f"{part}{self.suffix}"
        full = short.with_name(f"{self.prefix}-{short.name}")
        return short if short.is_file() and not full.is_file() else full


def answers(source: Path) -> Iterator[tuple[int, str, str]]:
    """Of lines `id;label`. Raises ValueError for one that is none."""
    for line, text in enumerate(read_text(source).splitlines(), 1):
        name, _, label = (part.strip() for part in text.partition(";"))
        if text.strip() and not (name and label):
            raise ValueError(f"{source} line {line}: {text.strip()!r} is not id;label")
        if name:
            yield line, name, label.strip('"')


def read_lists(
    data: Data, lists: Lists, classes: list[str] | None, entries: Entries = answers, fps: float | None = None
) -> Listing:
    """Video 34870 is the file or folder of frames of this name anywhere in `root`. `test-answers.csv` counts if
    `data.test` names it: published figures are on the validation list."""
    folder, left_out = lists.needed(data), list[str]()
    files = by_stem(walk(data.root, left_out))
    expected = data.root / f"20bn-{lists.prefix}"
    rows: dict[str, list[Row]] = {}
    for split, part in (("train", "train"), ("val", "validation"), ("test", "test-answers")):
        source, read = lists.file(folder, part), entries
        if split == "test":
            if data.test is None:
                continue
            source, read = placed(data, data.test), answers
        if not source.is_file():
            raise ValueError(f"no {source}: the lists of train and of validation are both needed")
        rows[split] = [
            Row(files.get(name, expected / f"{name}{lists.video}"), name, label, source, line=line)
            for line, name, label in read(source)
        ]
    notes = []
    if data.test is None and (folder / "test-answers.csv").is_file():
        notes.append(
            f"test: the videos of {folder / 'test-answers.csv'} are not used, as published figures are on the "
            "validation list; to test on them give data.format, and this file as data.test"
        )
    return Listing(rows, classes, notes=notes, left_out=left_out, fps=fps)
