"""Files of key frames alone, which are read fast: Motion JPEG in QuickTime with an index in its header."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vidstill.files import UNWRITABLE, cannot_write
from vidstill.video.index import intra_mark, reason
from vidstill.video.source import VideoError

QUALITY = 4  # quantiser scale: within 1.3 to 2.5 grey levels of real clips, at 2 to 7.4 times their size

_QSCALE = 118  # FF_QP2LAMBDA
_FINEST = 10_000  # QuickTime counts at least so many ticks a second, else it doubles them


class IntraWriter:
    """Writes uint8 RGB frames (H,W,3), all of one size, to the QuickTime file `path` itself.

    `fps` and `ticks` are what a reader is to be told (see VideoInfo), whatever the time stamps, which are in units of
    `tick` seconds, or such that frames at `fps` have exact ones. Raises WriteError where no file could be written
    there, as on a full disk, VideoError where these frames cannot.
    """

    def __init__(self, path: Path, fps: float, ticks: int, tick: float = 0.0) -> None:
        self.path, self.mark = path, intra_mark(fps, ticks)
        self.rate = Fraction(fps).limit_denominator(1001) or Fraction(25)
        self.scale = self.rate.numerator * math.ceil(_FINEST / self.rate.numerator)
        if tick and abs(round(1 / tick) * tick - 1) < 1e-9:
            self.scale = round(1 / tick)
        self.stamp = -1
        self.stream: Any = None
        self.reformat = VideoReformatter().reformat

    def __enter__(self) -> IntraWriter:
        try:
            self.container: Any = av.open(f"file:{self.path.absolute()}", "w", format="mov")
        except (OSError, FFmpegError) as error:
            raise self._error(error) from None
        return self

    def write(self, pixels: np.ndarray, seconds: float) -> None:
        """Append a frame that is shown `seconds` after the first one, which is at 0."""
        try:
            if self.stream is None:
                self._start(*pixels.shape[:2])
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            picture = self.reformat(
                frame, format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG, threads=1
            )
            self.stamp = max(self.stamp + 1, round(seconds * self.scale))
            picture.pts, picture.time_base = self.stamp, Fraction(1, self.scale)
            self.container.mux(self.stream.encode(picture))
        except (OSError, FFmpegError) as error:
            raise self._error(error) from None

    def _start(self, height: int, width: int) -> None:
        options = {"flags": "+qscale", "global_quality": str(QUALITY * _QSCALE)}
        self.stream = self.container.add_stream("mjpeg", rate=self.rate, options=options)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuvj420p"
        codec = self.stream.codec_context
        codec.qmin = codec.qmax = QUALITY
        codec.thread_count, codec.time_base = 1, Fraction(1, self.scale)
        self.container.metadata["comment"] = self.mark

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.stream is not None:
                self.container.mux(self.stream.encode(None))
            self.container.close()
        except (OSError, FFmpegError) as problem:
            if kind is None:
                raise self._error(problem) from None

    def _error(self, error: OSError | FFmpegError) -> ValueError:
        if error.errno in UNWRITABLE:
            return cannot_write(self.path, error)
        return VideoError(f"{self.path}: cannot be written: {reason(error)}")
