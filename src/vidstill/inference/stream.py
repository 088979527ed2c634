"""The sliding window: any stream of frames, in windows with their times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from vidstill.video.decode import Frame

ROUNDING = 1e-6  # seconds; time stamps are sums and products of fractions


@dataclass(frozen=True)
class Window:
    """The frames that were seen from `start` to `end`, in seconds."""

    start: float
    end: float
    frames: list[Frame]


def sliding_windows(
    frames: Iterable[Frame], length: float, stride: float, newest: Callable[[], float] | None = None
) -> Iterator[Window]:
    """Windows of `length` seconds that start `stride` seconds apart.

    A window is complete with the first frame beyond it. The last one ends with the stream, so that every frame is seen;
    a stream shorter than `length` is one window. No more than `length` seconds of frames are buffered, and a pause in
    the stream skips windows that would show nothing. `newest` tells the time of the last frame of a live stream, of
    which more may already wait: windows that a later complete one has overtaken are then left out. Raises ValueError
    for a stride that leaves frames out.
    """
    if not 0 < stride <= length:
        raise ValueError(f"a window of {length:g} s every {stride:g} s: take 0 < stride <= window")
    buffer: deque[Frame] = deque()
    start = 0.0
    for frame in frames:
        late = frame.seconds - start - length + ROUNDING
        if buffer and late >= 0:
            yield _window([seen for seen in buffer if seen.seconds >= start - ROUNDING])
            start += stride * (late // stride + 1)
            if newest is not None:  # it took a while to look at this one
                start += stride * max(0, (newest() - start - length + ROUNDING) // stride)
        while buffer and buffer[0].seconds < frame.seconds - length + ROUNDING:
            buffer.popleft()
        if not buffer:  # the first frame, or the first after a pause
            start = frame.seconds
        buffer.append(frame)
    if buffer:
        yield _window(list(buffer))


def _window(frames: list[Frame]) -> Window:
    first, last = frames[0].seconds, frames[-1].seconds
    return Window(first, last + (last - first) / max(1, len(frames) - 1), frames)
