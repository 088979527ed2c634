"""The one rule for views: from a video, or a window of one, to the frames and crops that a model sees. Tests,
predictions and explanations all look through it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import ceil
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vidstill.config import Clip
from vidstill.data.blending import Box
from vidstill.data.sampling import Timing, clips_that_fit, test_indices
from vidstill.video.decode import FramesMissing, Source, VideoInfo, probe, read_frames
from vidstill.video.pixels import short_side_size

Rounding = Literal["down", "up", "even"]

# How half pixels in the middle of a frame are rounded, as each of the resizing rules was released.
MIDDLE: dict[str, Rounding] = {"opencv": "down", "torch": "up", "pillow": "even"}


@dataclasses.dataclass(frozen=True)
class Views:
    """All views of one video or window. Each is cut when it is asked for, so that what is kept, sent between processes
    and to the device is `frames` alone: every frame that some clip shows, once, as uint8, whatever the number of crops.

    A frame takes no more memory than the source has pixels, and no more than the resized frame needs: its own size
    where resizing rounds to whole grey levels, four times that where it does not (see `kept`). Ten clips of 32 frames
    at a short side of 256 and 16:9 are at most 112 MB; unrounded 447 MB, and 84 MB of a source of 340 x 256. Three
    crops of them as float32 are 755 MB.
    """

    frames: Tensor  # uint8 (U,h,w,3), as `kept`
    numbers: np.ndarray  # (U,), the frames' numbers in the video or window
    places: np.ndarray  # (M,T), the frames of each clip, as places in `frames`
    source: tuple[int, int]  # height and width of the video
    clip: Clip
    crops: int
    side: int

    def __len__(self) -> int:
        return self.crops * len(self.places)

    def view(self, number: int) -> Tensor:
        """View crop · M + clip (T,S,S,3): uint8, or where `clip.views` is torch float32 in grey levels."""
        crop, clip = divmod(number, len(self.places))
        height, width = resized_size(*self.source, self.clip, self.side)
        boxes = view_boxes(height, width, self.clip.size, self.crops, MIDDLE[self.clip.views])
        places = torch.from_numpy(self.places[clip]).to(self.frames.device)
        if self.clip.views == "torch":
            return _unrounded(self.frames.index_select(0, places), self.source, self.side, boxes[crop])
        x1, y1, x2, y2 = (int(edge) for edge in boxes[crop])
        return self.frames[:, y1:y2, x1:x2].index_select(0, places)

    def pixels(self) -> Tensor:
        """All of them, (V,T,S,S,3)."""
        return torch.stack([self.view(number) for number in range(len(self))])

    def shown(self) -> np.ndarray:
        """The frame numbers (V,T) of each view."""
        return np.tile(self.numbers[self.places], (self.crops, 1))

    def to(self, device: torch.device) -> Views:
        return dataclasses.replace(self, frames=self.frames.to(device, non_blocking=True))

    def pin_memory(self) -> Views:
        return dataclasses.replace(self, frames=self.frames.pin_memory())


def read_views(
    path: Source,
    clip: Clip,
    clips: int | None = None,
    crops: int = 1,
    rng: np.random.RandomState | None = None,
    side: int | None = None,
) -> Views:
    """The views of one test video, from one decoding pass; view = crop · M + clip.

    `clips` is how many; None: as many as fit into the video side by side (see `clips_that_fit`). One crop is the centre
    of the frame, three lie along its long side; `side` is another short side before the crop than `frame_side`. With
    `rng` the clips are random. Raises VideoError when the file cannot be read.
    """
    info = probe(path)
    state = rng.get_state() if rng is not None else None
    try:
        return _read_views(path, info, info.frames, clip, clips, crops, rng, side)
    except FramesMissing as missing:
        if not missing.available:
            raise
        if rng is not None and state is not None:
            rng.set_state(state)
        return _read_views(path, info, missing.available, clip, clips, crops, rng, side)


def test_clips(
    path: Source,
    clip: Clip,
    clips: int,
    crops: int,
    rng: np.random.RandomState | None = None,
    side: int | None = None,
) -> np.ndarray:
    """The views of `read_views` as one array (V,T,S,S,3), uint8, or float32 in grey levels where they are unrounded."""
    return read_views(path, clip, clips, crops, rng, side).pixels().numpy()


test_clips.__test__ = False  # type: ignore[attr-defined]  # the name is not a test's


def views_of(
    frames: Sequence[np.ndarray], source: tuple[int, int], clip: Clip, timing: Timing, crops: int = 1
) -> Views:
    """The views of a window of `frames`, each as `kept`, of a video of `source` height and width: those of a test of a
    video that holds just these frames, with as many clips as fit."""
    indices = view_indices(len(frames), clip, timing)
    numbers, places = _each_once(indices)
    stacked = torch.from_numpy(np.stack([frames[number] for number in numbers]))
    return Views(stacked, numbers, places, source, clip, crops, frame_side(clip, crops))


def view_indices(
    n: int, clip: Clip, timing: Timing, clips: int | None = None, rng: np.random.RandomState | None = None
) -> np.ndarray:
    """The frames (M,T) of `clips` clips of a video of `n` frames; None: of as many as fit."""
    return test_indices(n, clip, clips_that_fit(n, clip, timing) if clips is None else clips, rng, timing)


def frame_side(clip: Clip, crops: int = 1) -> int:
    """Short side of the frame that a test cuts its crops from."""
    return margin_size(clip.size) if clip.views == "opencv" and crops == 1 else clip.size


def margin_size(size: int) -> int:
    """Short side from which a crop of `size` is taken: 256 for 224."""
    return int(256 / 224 * size)


def resized_size(height: int, width: int, clip: Clip, side: int) -> tuple[int, int]:
    """Height and width of the frame at the short side `side`."""
    return short_side_size(height, width, side, down=clip.views != "opencv")


def kept(pixels: np.ndarray, clip: Clip, side: int) -> np.ndarray:
    """What is kept of a frame uint8 (H,W,3) until its crops are cut, uint8: the frame at the short side `side` where
    that is in whole grey levels, else those of its rows and columns that resizing will read, two for each of the result
    at most."""
    height, width = resized_size(pixels.shape[0], pixels.shape[1], clip, side)
    if clip.views == "torch":
        if not _in_pairs(pixels.shape[:2], side):
            return pixels
        rows, columns = (
            np.stack(_between(*ends), 1).reshape(-1) for ends in zip(pixels.shape, (height, width), strict=False)
        )
        return pixels.take(rows, 0).take(columns, 1)
    if pixels.shape[:2] == (height, width):
        return pixels
    if clip.views == "pillow":
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def view_boxes(height: int, width: int, size: int, crops: int, middle: Rounding = "down") -> list[Box]:
    """Square test crops of a frame: the centre, or along the long side left/top, right/bottom, middle.

    `middle` says how half pixels are rounded. Rounded down, the right crop ends as far from the edge as the left one
    would begin twice (Video-FocalNet), else at the edge and the middle comes second.
    """
    if min(height, width) < size:
        raise ValueError(f"no crop of {size} pixels in a frame of {width}x{height}: resize it first")
    if middle != "down":
        round_half = ceil if middle == "up" else round
        x, y = (round_half((length - size) / 2) for length in (width, height))
        ends = [(0, y), (x, y), (width - size, y)] if width >= height else [(x, 0), (x, y), (x, height - size)]
        if crops not in (1, 3):
            raise ValueError(f"{crops} crops per clip: take 1 or 3")
        return [(x, y, x + size, y + size) for x, y in (ends if crops == 3 else [(x, y)])]
    x, y = (width - size) // 2, (height - size) // 2
    if crops == 1:
        corners = [(x, y)]
    elif crops == 3:
        corners = [(0, y), (2 * x, y), (x, y)] if width > height else [(x, 0), (x, 2 * y), (x, y)]
    else:
        raise ValueError(f"{crops} crops per clip: take 1 or 3")
    return [(x, y, x + size, y + size) for x, y in corners]


def _read_views(
    path: Source,
    info: VideoInfo,
    frames: int,
    clip: Clip,
    clips: int | None,
    crops: int,
    rng: np.random.RandomState | None,
    side: int | None,
) -> Views:
    numbers, places = _each_once(view_indices(frames, clip, Timing(info.fps, info.ticks), clips, rng))
    side = side or frame_side(clip, crops)
    if clip.views == "opencv":  # `kept`, drawn in place
        pixels = read_frames(path, numbers, short_side=side)
    else:
        pixels = read_frames(path, numbers, resize=lambda frame: kept(frame, clip, side))
    return Views(torch.from_numpy(pixels), numbers, places, (info.height, info.width), clip, crops, side)


def _each_once(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers, places = np.unique(indices, return_inverse=True)
    return numbers, places.reshape(indices.shape)


def _in_pairs(source: tuple[int, ...], side: int) -> bool:
    """Whether, of a frame of `source` height and width to be resized bilinearly to the short side `side`, the pairs of
    rows and of columns that each result is between are fewer than all."""
    return min(source) > 2 * side


def _between(length: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `out` results of bilinear resizing, the two places in `length` that it is between."""
    low = np.minimum(_positions(length, out).astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1)


def _positions(length: int, out: int) -> np.ndarray:
    """Where in `length` each of `out` results lies: float32, multiplied and added with one rounding, which is what
    PyTorch has to the last bit."""
    scale = float(np.float32(length) / np.float32(out))
    return np.maximum(scale * (np.arange(out) + 0.5) - 0.5, 0).astype(np.float32)


def _unrounded(frames: Tensor, source: tuple[int, int], side: int, box: Box) -> Tensor:
    """The crop `box` of frames uint8 (T,h,w,3), each as `kept`, resized bilinearly: float32 (T,S,S,3) (PySlowFast)."""
    x1, y1, x2, y2 = (int(edge) for edge in box)
    height, width = short_side_size(*source, side, down=True)
    if not _in_pairs(source, side):
        # OpenCV's coordinates are half as exact.
        resized = F.interpolate(frames.permute(0, 3, 1, 2).float(), (height, width), mode="bilinear")
        return resized[:, :, y1:y2, x1:x2].permute(0, 2, 3, 1)
    down, along = (
        torch.from_numpy(np.modf(_positions(length, out)[begin:end])[0]).to(frames.device)
        for length, out, begin, end in ((source[0], height, y1, y2), (source[1], width, x1, x2))
    )
    pairs = frames[:, 2 * y1 : 2 * y2, 2 * x1 : 2 * x2].unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).float()
    rows = torch.lerp(pairs[:, :, :, :, 0], pairs[:, :, :, :, 1], along[:, None])
    return torch.lerp(rows[:, :, 0], rows[:, :, 1], down[:, None, None])
