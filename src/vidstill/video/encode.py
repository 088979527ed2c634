"""Frames to a video file: MP4 (H.264) or GIF."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.filter
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vidstill.files import partial_beside
from vidstill.video.index import reason
from vidstill.video.sound import Sound
from vidstill.video.source import Source, VideoError


class VideoWriter:
    """Writes uint8 RGB frames to `path`, an `.mp4` or a `.gif`, at `fps` frames per second.

    The file appears under its name only when the `with` block ends well; until then there is a hidden file beside it,
    which an error removes. MP4 is H.264 in yuv420p, whose sides are even: the last row or column of an odd frame is
    repeated; it starts with its index, so that it plays while it loads. `crf`, `gop` (frames between key frames) and
    `preset` are libx264's. `sound` is a file whose sound an MP4 gets, up to `sound_end` seconds (see `Sound`). GIF has
    a palette for every frame, counts hundredths of a second and ignores all these.

    Raises ValueError for another suffix or an unfit frame, VideoError where the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float,
        *,
        crf: int = 20,
        gop: int | None = None,
        preset: str = "veryfast",
        sound: Source | None = None,
        sound_end: float | None = None,
    ) -> None:
        self.path = Path(path)
        self.suffix = self.path.suffix.lower()
        if self.suffix not in (".mp4", ".gif"):
            raise ValueError(
                f"{self.path}: a video is written as .mp4 or .gif, not {self.suffix or 'without a suffix'}"
            )
        if not 0 < fps <= 1000:
            raise ValueError(f"fps {fps}: give a number above 0 and up to 1000")
        self.rate = Fraction(fps).limit_denominator(1001)
        self.options = {"crf": str(crf), "preset": preset} | ({} if gop is None else {"g": str(gop)})
        self.part = partial_beside(self.path)
        self.count = 0
        self.shape: tuple[int, ...] = ()
        self.reformat = VideoReformatter().reformat
        self.container: Any = None
        self.stream: Any = None
        self.palette: Any = None
        self.sound_source, self.sound_end = sound, sound_end
        self.sound: Sound | None = None

    def __enter__(self) -> VideoWriter:
        try:
            options = {"movflags": "+faststart"} if self.suffix == ".mp4" else {}
            self.container = av.open(f"file:{self.part.absolute()}", "w", format=self.suffix[1:], options=options)
        except (OSError, ValueError, FFmpegError) as error:
            raise VideoError(f"{self.path}: cannot be written: {reason(error)}") from None
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame (H,W,3) uint8 RGB, all of one size."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"frame is {frame.dtype} {frame.shape}: give uint8 (H,W,3)")
        if self.count and frame.shape != self.shape:
            raise ValueError(f"frame {self.count} is {frame.shape}, those before are {self.shape}: give one size")
        try:
            if not self.count:
                self.shape = frame.shape
                self._start()
            self._encode(frame)
        except (OSError, FFmpegError) as error:
            raise VideoError(f"{self.path}: cannot be written: {reason(error)}") from None
        self.count += 1

    def _start(self) -> None:
        height, width = self.shape[:2]
        if self.suffix == ".mp4":
            self.stream = self.container.add_stream("libx264", rate=self.rate, options=self.options)
            self.stream.width, self.stream.height, self.stream.pix_fmt = (
                width + width % 2,
                height + height % 2,
                "yuv420p",
            )
            codec = self.stream.codec_context
            codec.colorspace, codec.color_range = Colorspace.ITU601, ColorRange.MPEG  # what the conversion makes
            codec.thread_count = 1
            if self.sound_source is not None:
                self.sound = Sound(self.container, self.sound_source, self.sound_end)
        else:
            self.stream = self.container.add_stream("gif", rate=self.rate)
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "pal8"
            self.palette = _palette(width, height, 1 / self.rate)

    def _encode(self, frame: np.ndarray) -> None:
        height, width = frame.shape[:2]
        if self.palette is None and (height % 2 or width % 2):
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
        if self.palette is None:
            picture = self.reformat(picture, format="yuv420p", threads=1)
        picture.pts, picture.time_base = self.count, 1 / self.rate
        if self.palette is not None:
            self.palette.push(picture)
            picture = self.palette.pull()
        self.container.mux(self.stream.encode(picture))
        if self.sound is not None:
            self.sound.write(self.count / float(self.rate))

    def end_sound(self, seconds: float) -> None:
        """Let the sound end there, if it has not been written yet."""
        if self.sound is not None:
            self.sound.end = min(self.sound.end, seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with suppress(OSError, ValueError, FFmpegError):
                self.container.close()
            if self.sound is not None:
                self.sound.close()
            self.part.unlink(missing_ok=True)

    def _finish(self) -> None:
        if not self.count:
            raise VideoError(f"{self.path}: cannot be written: no frame was given")
        try:
            self.container.mux(self.stream.encode(None))
            if self.sound is not None:
                self.sound.write(math.inf)
            self.container.close()
            self.part.replace(self.path)
        except (OSError, FFmpegError) as error:
            raise VideoError(f"{self.path}: cannot be written: {reason(error)}") from None


def _palette(width: int, height: int, time_base: Fraction) -> Any:
    """A filter that maps each RGB frame to the 256 colours that suit it best, dithered."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=time_base)
    split, sink = graph.add("split"), graph.add("buffersink")
    best, use = graph.add("palettegen", "stats_mode=single"), graph.add("paletteuse", "new=1:dither=sierra2_4a")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(best, 1, 0)
    best.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def write_video(path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float) -> None:
    """Write an iterable of uint8 (H,W,3) RGB frames, or a (T,H,W,3) array, as VideoWriter does."""
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)
