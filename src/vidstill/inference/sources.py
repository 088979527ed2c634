"""Whatever has frames: files, folders, patterns, URLs, cameras, arrays."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidstill.data.rows import walk
from vidstill.data.sampling import Timing
from vidstill.inference.live import Live, is_live, never_waits
from vidstill.video.decode import Frame, VideoError, iter_frames, probe
from vidstill.video.frame_folder import is_frame_folder
from vidstill.video.source import Video, as_video

Source = str | Path | np.ndarray

# A stream's frame rate is measured over so many frames.
MEASURED = 10


@dataclass(frozen=True)
class Stream:
    """The frames of a source as they come, each with its time; `length` in seconds, infinite where it is not known.

    `live` holds those of a source that does not wait for its reader.
    """

    name: str
    frames: Iterator[Frame]
    timing: Timing  # of 0 frames per second where it was not measured
    length: float = math.inf
    live: Live | None = None


def open_stream(
    source: Source, *, fps: float | None = None, short_side: int | None = None, measure: bool = True
) -> Stream:
    """The stream of a file, URL or camera ("camera:0"), its frames resized to `short_side` where it is given; of a
    frame folder or an array uint8 (T,H,W,3) with its `fps`. `measure`: the rate of a live source is wanted, from its
    first frames.

    Raises VideoError where nothing can be read, ValueError for another array.
    """
    if isinstance(source, np.ndarray):
        return _array_stream(source, fps)
    name = str(source)
    if not is_live(name):
        video = timed(source, fps)
        info = probe(video)
        frames = iter_frames(video, short_side=short_side)
        return Stream(name, frames, Timing(info.fps, info.ticks), info.seconds)
    arriving = iter_frames(source, short_side=short_side)
    live = Live(arriving) if never_waits(name) else None
    timing, frames = _measured(live or arriving) if measure else (Timing(0), live or arriving)
    return Stream(name, frames, timing, live=live)


def timed(source: str | Path, fps: float | None) -> Video:
    """The video that is named, a frame folder with its rate; a file has its own."""
    video = as_video(source)
    return dataclasses.replace(video, fps=fps) if is_frame_folder(video.path) else video


def find_sources(source: str | Path) -> list[str]:
    """The videos that a file, folder (at any depth), glob, URL or camera names. Raises VideoError for none."""
    text = str(source)
    if is_live(text) or Path(text).is_file() or (as_video(text).is_stretch and as_video(text).path.exists()):
        return [text]
    if Path(text).is_dir():
        found = [str(path) for path in walk(Path(text))]
    else:
        matching = glob.glob(text, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        found = sorted(path for path in matching if Path(path).is_file() or is_frame_folder(path))
    if not found:
        raise VideoError(f"{text}: no such video, and no folder or pattern that holds one")
    return found


def all_sources(sources: Sequence[Source | Sequence[Source]]) -> tuple[list[Source], list[VideoError]]:
    """Every video and array that `sources` name, alone or in lists, each once, and the errors of those that name
    nothing."""
    found: list[Source] = []
    named: set[str] = set()
    failures: list[VideoError] = []
    for source in itertools.chain.from_iterable(
        [given] if isinstance(given, str | Path | np.ndarray) else given for given in sources
    ):
        if isinstance(source, np.ndarray):
            found.append(source)
            continue
        try:
            videos = [video for video in find_sources(source) if video not in named]
        except VideoError as error:
            failures.append(error)
            continue
        named.update(videos)
        found += videos
    return found, failures


def _array_stream(frames: np.ndarray, fps: float | None) -> Stream:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"an array of {frames.dtype} {frames.shape}: give frames as uint8 (T,H,W,3), RGB")
    if not (fps and 0 < fps < math.inf):
        raise ValueError("an array does not say how fast it is: give its frames per second, fps=25")
    timed = (Frame(number, number / fps, pixels) for number, pixels in enumerate(frames))
    return Stream(f"array of {len(frames)} frames", timed, Timing(fps), len(frames) / fps)


def _measured(frames: Iterable[Frame]) -> tuple[Timing, Iterator[Frame]]:
    """The rate of a stream, and its frames again."""
    frames = iter(frames)
    first = list(itertools.islice(frames, MEASURED))
    passed = first[-1].seconds - first[0].seconds if first else 0.0
    return Timing((len(first) - 1) / passed if passed > 0 else 25.0), itertools.chain(first, frames)
