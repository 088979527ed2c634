"""The sliding window: any stream of frames → the views of the model's size, each with its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vidstill.config import Clip
from vidstill.data.sampling import test_indices
from vidstill.data.transforms import margin_size, test_views
from vidstill.video.decode import Frame

ROUNDING = 1e-6  # seconds; time stamps are sums and products of fractions


@dataclass(frozen=True)
class Window:
    """What was seen from `start` to `end` (seconds): views uint8 (V,T,S,S,3)."""

    start: float
    end: float
    views: np.ndarray


def frame_side(clip: Clip, crops: int = 1) -> int:
    """Short side at which `sliding_windows` wants its frames: that of a test with as many crops."""
    return margin_size(clip.size) if crops == 1 else clip.size


def clip_frames(clip: Clip) -> int:
    """Frames from the first to the last of a dense clip, both included."""
    return (clip.frames - 1) * clip.interval + 1


def sliding_windows(
    frames: Iterable[Frame],
    clip: Clip,
    length: float,
    stride: float,
    crops: int = 1,
    newest: Callable[[], float] | None = None,
) -> Iterator[Window]:
    """Windows of `length` seconds that start `stride` seconds apart, over frames whose short side is `frame_side`.

    A window is complete with the first frame beyond it. The last one ends with the stream, so that every frame is seen;
    a stream shorter than `length` is one window. Each is sampled and cropped as one video in a test: a sparse model
    sees one clip, a dense one as many as fit. No more than `length` seconds of frames are held, and a pause in the
    stream skips windows that would show nothing. `newest` tells the time of the last frame of a live stream, of which
    more may already wait: windows that a later complete one has overtaken are then left out. Raises ValueError for a
    stride that leaves frames out.
    """
    if not 0 < stride <= length:
        raise ValueError(f"a window of {length:g} s every {stride:g} s: take 0 < stride <= window")
    held: deque[Frame] = deque()
    start = 0.0
    for frame in frames:
        late = frame.seconds - start - length + ROUNDING
        if held and late >= 0:
            yield _window([seen for seen in held if seen.seconds >= start - ROUNDING], clip, crops)
            start += stride * (late // stride + 1)
            if newest is not None:  # it took a while to look at this one
                start += stride * max(0, (newest() - start - length + ROUNDING) // stride)
        while held and held[0].seconds < frame.seconds - length + ROUNDING:
            held.popleft()
        if not held:  # the first frame, or the first after a pause
            start = frame.seconds
        held.append(frame)
    if held:
        yield _window(list(held), clip, crops)


def _window(frames: list[Frame], clip: Clip, crops: int) -> Window:
    clips = 1 if clip.spans else max(1, len(frames) // clip_frames(clip))
    indices = test_indices(len(frames), clip, clips).reshape(-1)
    crop_views = test_views(np.stack([frames[index].pixels for index in indices]), clip.size, crops)
    views = crop_views.reshape(crops * clips, clip.frames, clip.size, clip.size, 3)
    first, last = frames[0].seconds, frames[-1].seconds
    return Window(first, last + (last - first) / max(1, len(frames) - 1), views)
