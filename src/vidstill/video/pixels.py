"""Decoded pictures to RGB as displayed, cropped and resized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter

Box = tuple[float, float, float, float]
Resize = Callable[[np.ndarray], np.ndarray]

# 8-bit planar layouts, of limited and of full range, whose planes can be cropped and resized by themselves
_PLANAR = {f"yuv{j}{layout}p" for j in ("", "j") for layout in (420, 422, 444)}


@dataclass(frozen=True)
class Orientation:
    """How a decoded picture is turned for display: transposed first, then mirrored."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation(self) -> int:
        """Degrees clockwise, mirroring left aside."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_x and self.mirror_y else 0

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Displayed height and width of a picture of this decoded height and width."""
        return (width, height) if self.transpose else (height, width)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """(H,W,3) as displayed."""
        if self == UPRIGHT:
            return pixels
        turned = pixels.transpose(1, 0, 2) if self.transpose else pixels
        step_x, step_y = -1 if self.mirror_x else 1, -1 if self.mirror_y else 1
        return np.ascontiguousarray(turned[::step_y, ::step_x])


UPRIGHT = Orientation()


def orientation(frame: av.VideoFrame) -> Orientation:
    """From the display matrix (ISO/IEC 14496-12 §6.2.2): (x, y) → (ax + cy, bx + dy), to the nearest 90°."""
    # frame.side_data would hold the frame, and be held by it, until the garbage collector comes
    matrix: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return Orientation(True, c < 0, b < 0) if abs(b) > abs(a) else Orientation(False, a < 0, d < 0)


def short_side_size(height: int, width: int, short_side: int, down: bool = False) -> tuple[int, int]:
    """Height and width with the short side at `short_side` and the aspect kept, rounded half up, or always `down`."""
    short = min(height, width)
    if down:
        return height * short_side // short, width * short_side // short
    scale = short_side / short
    return int(height * scale + 0.5), int(width * scale + 0.5)


def crop_of(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box, rounded; ValueError where it is empty or leaves a frame of this size."""
    x1, y1, x2, y2 = (round(edge) for edge in box)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(f"box {box} is empty or leaves the frame of {width}x{height} pixels")
    return slice(y1, y2), slice(x1, x2)


class Draw:
    """Draws the pictures of one stream, all alike: the first one sets `size`, the height and width drawn.

    `short_side` resizes whole frames, `resize` in its own way; `box` with `size` crops and resizes.
    """

    def __init__(
        self,
        short_side: int | None = None,
        box: Box | None = None,
        size: tuple[int, int] | None = None,
        resize: Resize | None = None,
    ) -> None:
        self.resize = resize
        self.short_side = short_side
        self.box = box
        self.size = size or (0, 0)
        self.crop: tuple[slice, slice] | None = None
        self.canvas: av.VideoFrame | None = None
        self.decoded: tuple[str, int, int] | None = None
        self.displayed = (0, 0)
        self.turn = UPRIGHT
        self.reformat = VideoReformatter().reformat

    def start(self, frame: av.VideoFrame) -> None:
        """`frame` is the first of a stream."""
        self.decoded = frame.format.name, frame.height, frame.width
        self.turn = orientation(frame)
        self.begin(*self.turn.size(frame.height, frame.width))
        planar = frame.format.name in _PLANAR and all(plane.line_size > 0 for plane in frame.planes)
        if self.crop is not None and planar and self.turn == UPRIGHT:
            self.canvas = av.VideoFrame(self.size[1], self.size[0], frame.format.name)

    def begin(self, height: int, width: int) -> None:
        """For pictures of this size as displayed."""
        self.displayed = height, width
        if self.resize is not None:
            self.size = self.resize(np.empty((height, width, 3), np.uint8)).shape[:2]
        elif self.box is None:
            self.size = short_side_size(height, width, self.short_side) if self.short_side else self.displayed
        else:
            self.crop = crop_of(self.box, height, width)

    def __call__(self, frame: av.VideoFrame, into: np.ndarray) -> None:
        """Draw into (H,W,3) uint8 of `size`."""
        same = self.decoded == (frame.format.name, frame.height, frame.width)
        if self.canvas is not None and self.crop is not None and same:
            into[:] = self._rgb(_crop_planes(frame, self.crop, self.canvas))
            return
        pixels = self.turn.apply(self._rgb(frame))
        if not same:  # the stream changes its size midway
            pixels = cv2.resize(pixels, self.displayed[::-1], interpolation=cv2.INTER_LINEAR)
        self.draw(pixels, into)

    def draw(self, pixels: np.ndarray, into: np.ndarray, reduced: int = 1) -> None:
        """RGB as displayed (H,W,3) into another of `size`; sides may be `reduced` to 1/2, 1/4 or 1/8 already."""
        if self.resize is not None:
            pixels = self.resize(pixels)
        if self.crop is not None:
            rows, columns = self.crop
            pixels = pixels[rows.start // reduced : -(-rows.stop // reduced),
                            columns.start // reduced : -(-columns.stop // reduced)]  # fmt: skip
        if pixels.shape == into.shape:
            into[:] = pixels
        else:
            cv2.resize(pixels, into.shape[1::-1], dst=into, interpolation=cv2.INTER_LINEAR)

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """(H,W,3), a view. PyAV's own to_ndarray(format="rgb24") would set the scaler up anew for each frame."""
        return self.reformat(frame, format="rgb24", threads=1).to_ndarray()


def _crop_planes(frame: av.VideoFrame, crop: tuple[slice, slice], canvas: av.VideoFrame) -> av.VideoFrame:
    """The crop, resized plane by plane to fill the canvas, which takes over matrix and range.

    A subsampled plane is cropped to all samples that the crop touches: chroma may shift by up to a pixel of the frame.
    """
    rows, columns = crop
    for source, target in zip(frame.planes, canvas.planes, strict=True):
        y = 2 if source.height < frame.height else 1
        x = 2 if source.width < frame.width else 1
        part = _samples(source)[rows.start // y : -(-rows.stop // y), columns.start // x : -(-columns.stop // x)]
        cv2.resize(part, (target.width, target.height), dst=_samples(target), interpolation=cv2.INTER_LINEAR)
    canvas.colorspace, canvas.color_range = frame.colorspace, frame.color_range
    return canvas


def _samples(plane: Any) -> np.ndarray:
    """(H,W), a view."""
    return np.ndarray((plane.height, plane.width), np.uint8, plane, strides=(plane.line_size, 1))
