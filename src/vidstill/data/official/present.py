"""The videos that a list names and that may be gone; the files that tell a data set by their content."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vidstill.config import Data
from vidstill.data.official.finding import list_folders
from vidstill.data.rows import Listing, Row, folders_in, is_video_name, stem, walk
from vidstill.video.index import open_video
from vidstill.video.source import VideoError

_OF_LISTS = re.compile("split|list|annot|label", re.IGNORECASE)  # in the names of folders of lists
_LOOKED_AT = 32  # of the files that may be cut or not: nearly always all of them are, or none
_LONGER = 1.5  # seconds by which a clip may outlast its list and still be cut


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


def uncut(clips: Mapping[Path, float]) -> set[Path]:
    """Those of the files that last longer than their clip, whose seconds are given: whole videos.

    The headers of a few are looked at, of all where these differ. A file that cannot be opened counts as cut.
    """
    files = [path for path in clips if is_video_name(path.name)]
    some = files[:: max(1, len(files) // _LOOKED_AT)]
    long = {path for path in some if _seconds(path) > clips[path] + _LONGER}
    if not long or len(long) == len(some):
        return set(files) if long else set()
    return {path for path in files if _seconds(path) > clips[path] + _LONGER}


def _seconds(path: Path) -> float:
    """What the container declares; 0 where it declares nothing."""
    try:
        with open_video(path) as (container, _):
            return (container.duration or 0) / 1e6
    except VideoError:
        return 0.0


class Present:
    """The rows of a list whose videos may be gone: those that are in `root` are taken, the others named in a note.

    `paths` are the videos of `root`, `files` the same by their names without suffix.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: list[str] = []
        self.paths = list(walk(root, self.left_out))
        self.files: dict[str, Path] = {}
        for path in self.paths:
            if is_video_name(path.name) or stem(path) not in self.files:  # rather than frames extracted from it
                self.files[stem(path)] = path
        self.rows: dict[str, list[Row]] = {}
        self._gone: dict[str, dict[str, None]] = {}

    def find(self, *names: str) -> Path | None:
        return next((self.files[name] for name in names if name in self.files), None)

    def add(self, split: str, path: Path | None, name: str, label: str, source: Path, **more: Any) -> None:
        """A row for the video at `path`; None: it is not there, and `name` says which one."""
        if path is None:
            self._gone.setdefault(split, {})[name] = None
        else:
            place = path.relative_to(self.root).as_posix()
            self.rows.setdefault(split, []).append(Row(path, place, label, source, **more))

    def listing(self, source: Path, examples: Callable[[str], str], classes: list[str] | None = None) -> Listing:
        """What was found. Raises ValueError where no video is there; `examples` says how the file may be called."""
        if not self.rows:
            name = next((name for names in self._gone.values() for name in names), None)
            if name is None:
                raise ValueError(f"{source}: lists no labelled video: is it whole? If not, get it again")
            raise ValueError(
                f"no video that {source} lists with a label is in {self.root}: looked for {examples(name)} at any depth"
            )
        notes = []
        for split, gone in self._gone.items():
            there = len({row.path for row in self.rows.get(split, ())})
            notes.append(
                f"{split}: {len(gone)} of {len(gone) + there} listed videos are not in {self.root} and left out, "
                f"the first {next(iter(gone))}"
            )
        return Listing(self.rows, classes, notes=notes, left_out=self.left_out)
