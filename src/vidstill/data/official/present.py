"""The videos that a list names: where they are, whether they are there, and whether they are whole or cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vidstill.data.rows import Listing, Row, is_video_name, stem, walk
from vidstill.video.index import open_video
from vidstill.video.source import VideoError

_LOOKED_AT = 32  # of the files that may be cut or not: nearly always all of them are, or none
_LONGER = 1.5  # seconds by which a clip may outlast its list and still be cut


def finder(root: Path, left_out: list[str]) -> Callable[[str, str], Path]:
    """(class, file name) → path: in its class folder, else anywhere in `root`, also with another suffix."""
    files = by_stem(walk(root, left_out))

    def find(label: str, name: str) -> Path:
        expected, found = root / label / name, files.get(Path(name).stem)
        return expected if found is None or expected.is_file() else found

    return find


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Name without suffix → video; a file rather than the frames that were extracted from it."""
    files: dict[str, Path] = {}
    for path in paths:
        if is_video_name(path.name) or stem(path) not in files:
            files[stem(path)] = path
    return files


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
        self.files = by_stem(self.paths)
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
