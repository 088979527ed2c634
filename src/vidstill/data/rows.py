"""A labelled video as an annotation writes it, and the videos that lie in a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from vidstill.video.frame_folder import is_frame_folder
from vidstill.video.source import Video

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
_SPECIAL = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


@dataclass(frozen=True, eq=False)  # each line is a row of its own, whatever it says
class Row:
    """One labelled video: `name` is its path and `label` its class as written; `line` 0 stands for a folder.

    `start` and `end`: the stretch of it, in seconds, that has the label (None: to its end). Of a frame folder, where
    the data set states them: `frames` is how many it has, `fps` its rate.
    """

    path: Path
    name: str
    label: str
    source: Path
    _: KW_ONLY
    line: int = 0
    group: str | None = None
    start: float = 0.0
    end: float | None = None
    frames: int | None = None
    fps: float | None = None

    @property
    def key(self) -> str:
        """Of no other row with the same label; the same on every machine."""
        return str(Video(Path(self.name), self.start, self.end)) if self.start or self.end is not None else self.name

    @property
    def where(self) -> str:
        return f"{self.source} line {self.line}" if self.line else str(self.source)


@dataclass
class Listing:
    """Rows by split (`all`: not divided). `classes` are those the format itself names, None where the rows alone tell.

    `named`: labels are names even where they look like numbers. `notes` are for the person who owns the data;
    `left_out` is what `walk` could not use. `fps` is the rate of the data set's frame folders, where it is known.
    """

    rows: dict[str, list[Row]]
    classes: list[str] | None = None
    _: KW_ONLY
    named: bool = True
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    fps: float | None = None


def folders_in(top: Path) -> list[Path]:
    """Its folders by name, but hidden ones, those of archives (`__MACOSX`) and those of frames, which are videos."""
    return [Path(entry.path) for entry in _entries(top) if _is_folder(entry) and not is_frame_folder(entry.path)]


def videos_in(folder: Path) -> list[Path]:
    """The videos that lie directly in it, files and folders of frames, by name."""
    return list(_videos(folder))


def has_videos(folder: Path) -> bool:
    """Whether one lies directly in it; of many folders of frames few are looked into."""
    return next(_videos(folder), None) is not None


def _videos(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if (is_video_name(entry.name) and not _special(entry)) or (_is_folder(entry) and is_frame_folder(entry.path)):
            yield Path(entry.path)


def class_folders(top: Path) -> list[Path]:
    """The folders of `top`, if any of them holds a video."""
    folders = folders_in(top)
    return folders if any(map(has_videos, folders)) else []


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


def walk(root: Path, left_out: list[str] | None = None) -> Iterator[Path]:
    """Every video at any depth, file or folder of frames, in order of names, but for hidden folders. Links are
    followed, into no folder twice.

    `left_out` gets a line for each folder that cannot be read, and for each pipe, socket or device named as a video.
    """
    left_out = [] if left_out is None else left_out
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        if is_frame_folder(folder):
            yield folder
            continue
        entries = _entries(folder, left_out)
        for entry in entries:
            if is_video_name(entry.name) and not (special := _special(entry)):
                yield Path(entry.path)
            elif is_video_name(entry.name) and not _is_folder(entry):
                left_out.append(f"{entry.path} is {special}")
        waiting += [Path(entry.path) for entry in reversed(entries) if _is_folder(entry)]


def stem(path: Path) -> str:
    """The name of a video without its suffix; that of a folder of frames, which may have dots."""
    return path.stem if is_video_name(path.name) else path.name


def special(mode: int) -> str:
    """What the owner of this `st_mode` is, if no regular file: reading a pipe or a device may never end."""
    return "" if stat.S_ISREG(mode) else _SPECIAL.get(stat.S_IFMT(mode), "a device")


def few(items: Sequence[object]) -> str:
    """The first three, for a message."""
    return ", ".join(map(str, items[:3])) + (" …" if items[3:] else "")


def _entries(folder: Path, left_out: list[str] | None = None) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        if left_out is not None and folder.is_dir():
            left_out.append(f"{folder} cannot be read ({(error.strerror or str(error)).lower()})")
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name != "__MACOSX" and _special(entry) == "a folder"


def _special(entry: os.DirEntry[str]) -> str:
    """As `special`; a link to nothing counts as a file, so that the video is missed."""
    try:
        return "" if entry.is_file() else "a folder" if entry.is_dir() else special(entry.stat().st_mode)
    except OSError:
        return ""


def is_video_name(name: str) -> bool:
    """Whether a file is called as videos are."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(".")  # noqa: PTH122 - 10 x faster
