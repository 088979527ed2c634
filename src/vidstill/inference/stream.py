"""The sliding window: any stream of frames → clips at the model's size, each with its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vidstill.config import Clip
from vidstill.data.sampling import test_indices
from vidstill.data.transforms import margin_size, test_views
from vidstill.video.decode import Frame


@dataclass(frozen=True)
class Window:
    """What was seen from `start` to `end` (seconds): one clip uint8 (T,S,S,3)."""

    start: float
    end: float
    clip: np.ndarray


def frame_side(clip: Clip) -> int:
    """Short side at which `sliding_windows` wants its frames."""
    return margin_size(clip.size)


def sliding_windows(frames: Iterable[Frame], clip: Clip, length: float, stride: float) -> Iterator[Window]:
    """Windows of `length` seconds that start `stride` seconds apart, over frames whose short side is `frame_side`.

    The last window ends with the last frame, so that every frame is seen; a stream shorter than `length` is one
    window. A window is sampled and cropped like the single view of a test. No more than `length` seconds are held.
    Raises ValueError for lengths that are not positive or a stride that would leave frames out.
    """
    if not 0 < stride <= length:
        raise ValueError(f"a window of {length:g} s every {stride:g} s: take 0 < stride <= window")
    held: list[Frame] = []
    start, unseen = 0.0, False
    for frame in frames:
        if frame.seconds >= start + length:
            yield _window([f for f in held if f.seconds >= start], clip)
            unseen = False
            # a pause in the stream may be longer than a window
            start += stride * max(1, int((frame.seconds - start - length) // stride) + 1)
        held = [f for f in held if f.seconds > frame.seconds - length]
        held.append(frame)
        unseen = True
    if unseen:
        yield _window(held, clip)


def _window(frames: list[Frame], clip: Clip) -> Window:
    indices = test_indices(len(frames), clip, 1)[0]
    views = test_views(np.stack([frames[index].pixels for index in indices]), clip.size, crops=1)
    return Window(frames[0].seconds, frames[-1].seconds, views[0])
