"""A labelled video as an annotation writes it, and the videos that lie in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
UNDIVIDED = "all"
VIDEO_SUFFIXES = {
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One labelled video: `name` is its path and `label` its class as written; `line` 0 stands for a folder."""

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
    """Rows by split (`all`: not divided). `classes` are those the format itself names, None where the rows alone tell.

    `named`: labels are names even where they look like numbers. `notes` are for the person who owns the data.
    """

    rows: dict[str, list[Row]]
    classes: list[str] | None = None
    named: bool = True
    notes: list[str] = field(default_factory=list)


def folders_in(top: Path) -> list[Path]:
    """Its folders by name, but hidden ones and those of archives (`__MACOSX`)."""
    if not top.is_dir():
        return []
    found = (path for path in top.iterdir() if not path.name.startswith((".", "__")) and path.is_dir())
    return sorted(found, key=lambda path: path.name)


def videos_in(folder: Path) -> list[Path]:
    """The videos that lie directly in it, by name."""
    return sorted((path for path in folder.iterdir() if _is_video(path.name)), key=lambda path: path.name)


def class_folders(top: Path) -> list[Path]:
    """The folders of `top`, if any of them holds a video."""
    folders = folders_in(top)
    return folders if any(map(videos_in, folders)) else []


def split_folders(root: Path) -> dict[str, Path]:
    """Split → folder, for folders called after a split that hold class folders. A class called "train" holds videos."""
    splits: dict[str, Path] = {}
    for folder in folders_in(root):
        split = SPLITS.get(folder.name.casefold())
        if split and class_folders(folder):
            if split in splits:
                raise ValueError(f"{splits[split]} and {folder} are both {split}: keep one")
            splits[split] = folder
    return splits


def walk(root: Path) -> Iterator[Path]:
    """Every video at any depth, in order of names. Links are followed, but into no folder twice."""
    seen: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = sorted(below) if real not in seen else []
        if real not in seen:
            seen.add(real)
            yield from (Path(folder, name) for name in sorted(names) if _is_video(name))


def _is_video(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(".")  # noqa: PTH122 - 10 x faster
