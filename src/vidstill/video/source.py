"""What is read as one video: a file, a folder of numbered pictures, or a stretch of either; what is known of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import numpy as np

File = str | os.PathLike[str]

ASSUMED_FPS = 25.0  # of a frame folder whose rate nobody states


class VideoError(ValueError):
    """A video that cannot be read or written: the message names it and what is wrong."""


class FramesMissing(VideoError):  # noqa: N818 - the name says what it is
    """A video with fewer frames than were asked for; `available` is how many decode."""

    def __init__(self, message: str, available: int) -> None:
        super().__init__(message)
        self.available = available

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.available)


@dataclass(frozen=True)
class Video:
    """A file or frame folder, from `start` to before `end` in seconds of its time stamps (None: to its end).

    `fps` is the rate of a frame folder, which does not state it itself; a file has its own. As text it is its path, a
    stretch with a media fragment (W3C Media Fragments §4.2.1): `a.mp4#t=3.2,7.5`.
    """

    path: Path
    start: float = 0.0
    end: float | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < (float("inf") if self.end is None else self.end):
            raise ValueError(f"{self.path}: a stretch from {self.start:g} to {self.end} s: it ends after its start")

    def __str__(self) -> str:
        if not self.is_stretch:
            return str(self.path)
        return f"{self.path}#t={_shortest(self.start)},{'' if self.end is None else _shortest(self.end)}"

    @property
    def is_stretch(self) -> bool:
        return self.start > 0 or self.end is not None

    @classmethod
    def parse(cls, text: str) -> Video:
        """The video that `str` of one gave as text, without its rate."""
        named = re.fullmatch(r"(.+)#t=([\d.e-]+),([\d.e-]*)", text)
        if named is None:
            return cls(Path(text))
        return cls(Path(named[1]), float(named[2]), float(named[3]) if named[3] else None)


Source = File | Video


def as_video(source: Source) -> Video:
    """Whatever names a video, as one: a path, a URL, or what predictions call a stretch (`a.mp4#t=3.2,7.5`)."""
    if isinstance(source, Video):
        return source
    path = os.fspath(local(source))
    stretch = "#t=" in path and "://" not in path and not Path(path).exists()
    return Video.parse(path) if stretch else Video(Path(path))


def local(source: File) -> File:
    """The path that a `file://` URL names; anything else as it is."""
    text = os.fspath(source)
    if not text.startswith("file://"):
        return source
    host, slash, path = text.removeprefix("file://").partition("/")
    if host not in ("", "localhost"):
        raise VideoError(f"{source}: is on another machine: give file:///path, or a URL that its server answers")
    return url2pathname(slash + path)


@dataclass(frozen=True)
class VideoInfo:
    """A video as displayed: width and height are those after `rotation` (degrees clockwise)."""

    frames: int
    fps: float
    width: int
    height: int
    rotation: int
    codec: str
    ticks: int = 0  # units of the time stamps from frame to frame; 0 where the stream does not state its duration

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


def frames_of(video: Video, info: VideoInfo, seconds: np.ndarray | None) -> range:
    """The frames of the whole file that a stretch of it shows: those whose time is in [start, end), at least one.

    `seconds` (frames,) are the times of all frames; None: they are evenly spaced. A stretch that reaches beyond the
    end has what is there. Raises VideoError where it begins there.
    """
    times = np.arange(info.frames) / info.fps if seconds is None else seconds
    slack = 1e-6  # lists state times in so many digits
    first = int(np.searchsorted(times, video.start - slack))
    last = info.frames if video.end is None else int(np.searchsorted(times, video.end - slack))
    if first >= info.frames:
        # a stretch shorter than a frame, at the end
        if video.start >= times[-1] + 1 / info.fps:
            raise VideoError(f"{video}: begins at {video.start:g} s, but the video ends after {info.seconds:.2f} s")
        first = info.frames - 1
    return range(first, max(first + 1, last))


def _shortest(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
