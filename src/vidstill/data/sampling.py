"""Which frames of a video make a clip: segments of the whole, or a stretch of it."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vidstill.config import Clip

TEST_SEED = 255  # of the random frames of a `uniform_sample_frames` test, as released


class Timing(NamedTuple):
    """Of a video: frames per second, and units of its time stamps per frame (0: it does not state its duration)."""

    fps: float
    ticks: int = 0


def train_indices(n: int, clip: Clip, rng: np.random.RandomState, timing: Timing | None = None) -> np.ndarray:
    """Random frame numbers of one training clip of a video of `n` frames, int64 (T,), in order.

    segments: one frame from each of T equal segments of the whole video (TSN, Video-FocalNet; `interval` only shortens
    the usable range; where n <= T frames repeat, and rounding may wrap the last ones to frame 0, as released).
    dense: T frames `interval` apart from a random start; a video shorter than that holds its last frame.
    dense_looped: the same, but a short video starts again. timed_window: `window_indices` from a random moment.
    sample_frames, dense_sample_frames, uniform_sample_frames, tsm_segments: one clip of the functions of those names.
    """
    _check(n)
    if clip.sampling == "segments":
        return _random_segments(n, clip.frames, clip.interval, rng)
    if clip.sampling == "dense":
        return _dense(n, clip, rng.randint(_starts(n, clip)))
    if clip.sampling == "timed_window":
        return window_indices(n, clip, rng.random_sample() * window_room(n, clip, timing), timing)
    if clip.sampling == "dense_looped":
        return looped_indices(n, clip, rng.randint(max(1, n - clip.frames * clip.interval + 1)))
    return _openmmlab(n, clip, 1, rng)[0]


def test_indices(
    n: int, clip: Clip, clips: int, rng: np.random.RandomState | None = None, timing: Timing | None = None
) -> np.ndarray:
    """Frame numbers of `clips` test clips of a video of `n` frames, int64 (clips, T), each row in order.

    Without `rng` a fixed function of `n`. segments: clip m of M takes of each segment the frame at (m + 1/2)/M of it,
    for M = 1 the middle one as the released single-clip test. dense: the clips start in the middles of M equal parts.
    With `rng` the clips are random; segments then as in the released multi-clip test, which ignores `interval`.
    sample_frames, dense_sample_frames, uniform_sample_frames, tsm_segments: see the functions of those names;
    dense_sample_frames gives ten times as many clips. timed_window: clip m of M starts m/M of the way, so that no clip
    ends with the video, as released. dense_looped: its middle is that of part m.
    """
    _check(n)
    if clips < 1:
        raise ValueError(f"{clips} clips per video: take at least 1")
    if clip.sampling in ("sample_frames", "dense_sample_frames", "uniform_sample_frames", "tsm_segments"):
        return _openmmlab(n, clip, clips, rng)
    if rng is not None:
        if clip.sampling == "segments":
            return np.stack([_random_segments(n, clip.frames, 1, rng) for _ in range(clips)])
        return np.stack([train_indices(n, clip, rng, timing) for _ in range(clips)])
    if clip.sampling == "timed_window":
        room = window_room(n, clip, timing)
        return np.stack([window_indices(n, clip, room * m / clips, timing) for m in range(clips)])
    if clip.sampling == "dense_looped":
        length = clip.frames * clip.interval  # clip m of M has its middle in the middle of part m
        starts = [max(0, (2 * m + 1) * n // (2 * clips) - length // 2) for m in range(clips)]
        return np.stack([looped_indices(n, clip, start) for start in starts])
    share = (np.arange(clips) + 0.5)[:, None] / clips
    if clip.sampling == "dense":
        return np.stack([_dense(n, clip, int(start)) for start in share[:, 0] * _starts(n, clip)])
    if n < clip.interval:
        return np.zeros((clips, clip.frames), dtype=np.int64)
    segment = (n - clip.interval + 1) / clip.frames
    return (np.arange(clip.frames) * segment + share * segment).astype(np.int64) % n


test_indices.__test__ = False  # type: ignore[attr-defined]  # the name is not a test's


@lru_cache
def frames_needed(clip: Clip, timing: Timing | None = None) -> int:
    """Of how many frames a video must be so that its fixed clip neither repeats a frame nor starts again."""
    if clip.spans:
        return next(n for n in itertools.count(1) if (np.diff(test_indices(n, clip, 1)[0]) > 0).all())
    return int(np.ptp(test_indices(1_000_000, clip, 1, timing=timing)[0])) + 1  # as in a video that has room for it


def clips_that_fit(n: int, clip: Clip, timing: Timing | None = None) -> int:
    """How many clips show a video of `n` frames side by side: one that spans it, else as many as fit into it.

    One of dense_sample_frames, which are ten over the video already.
    """
    if clip.spans or clip.sampling == "dense_sample_frames":
        return 1
    return max(1, int(n / clip_length(clip, timing) + 1e-9))  # lengths are products of rates, which are rounded


def clip_length(clip: Clip, timing: Timing | None = None) -> float:
    """Frames of the video from the first to the last of a clip that does not span it, both included."""
    if clip.sampling == "timed_window":
        return window_length(clip, timing)
    return (clip.frames - 1) * clip.interval + 1


def matching_indices(indices: np.ndarray, n: int, clip: Clip, other: Clip, timing: Timing | None = None) -> np.ndarray:
    """Frame numbers (T',) of a clip in the format `other` that shows the same stretch of a video of `n` frames as
    `indices` (T,), a clip in `clip`.

    The same indices where both have one rule. Of two that span the video the other takes T' of the same steps. One
    that spans the video beside one that does not takes, by its rule, the frames of a video that is but that stretch.
    One that does not is as long as its own rule makes it and has the same middle, as far as the video reaches.
    """
    rule = ("sampling", "frames", "interval", "fps")
    if all(getattr(clip, name) == getattr(other, name) for name in rule):
        return indices
    if clip.spans and other.spans:
        position = (np.arange(other.frames) + 0.5) * len(indices) / other.frames - 0.5
        return np.rint(np.interp(position, np.arange(len(indices)), indices)).astype(np.int64)
    first, last = int(indices.min()), int(indices.max())
    if other.spans:
        return first + test_indices(last - first + 1, other, 1)[0]
    start = max(0.0, (first + last + 1 - clip_length(other, timing)) / 2)
    if other.sampling == "timed_window":
        return window_indices(n, other, min(start, window_room(n, other, timing)), timing)
    if other.sampling == "dense":
        return _dense(n, other, min(int(start), _starts(n, other) - 1))
    return looped_indices(n, other, min(int(start), max(0, n - other.frames * other.interval)))


def window_length(clip: Clip, timing: Timing | None) -> float:
    """Source frames of a window, with the fraction that another frame rate leaves."""
    resampling = timing.fps / clip.fps if timing and clip.fps else 1
    return clip.interval * clip.frames * resampling


def window_room(n: int, clip: Clip, timing: Timing | None) -> float:
    """How far the start of a window can move in a video of `n` frames."""
    return max(n - window_length(clip, timing), 0)


def window_indices(n: int, clip: Clip, start: float, timing: Timing | None = None) -> np.ndarray:
    """The frames of a window that begins `start` frames into the video (PySlowFast): int64 (T,).

    T moments from its first to its last frame, each rounded down to a frame. As released the window is cut out by time
    stamps and the moments are counted from its first whole frame; where the duration is not stated, from the video's.
    A short video holds its last frame.
    """
    length, ticks = window_length(clip, timing), timing.ticks if timing else 0
    if not ticks:
        return spread(start, start + length - 1, clip.frames, n)
    first = -(-int(start * n * ticks / n) // ticks)
    beyond = int((start + length - 1) * n * ticks / n) // ticks + 1
    return first + spread(0, length - 1, clip.frames, min(beyond, n - 1) - first + 1)


def spread(first: float, last: float, count: int, n: int) -> np.ndarray:
    """`count` frames from `first` to `last`, rounded down, none beyond the `n` there are: int64."""
    import torch  # `check` does without

    return torch.linspace(first, last, count, device="cpu").clamp(0, n - 1).long().numpy()


def looped_indices(n: int, clip: Clip, start: int) -> np.ndarray:
    """Frames `interval` apart from `start`, and after the last frame again from the first (Efficient-3DCNNs)."""
    return (start + np.arange(clip.frames) * clip.interval) % n


def sample_frames(
    n: int,
    frames: int,
    interval: int,
    clips: int,
    rng: np.random.RandomState | None = None,
) -> np.ndarray:
    """One dense clip from each of `clips` equal parts of the video (OpenMMLab 0.x, `SampleFrames`): int64 (clips,T).

    From the middle of its part, with `rng` from a random place in it. After the last frame comes the first again.
    """
    starts = n - frames * interval + 1
    part = starts / clips
    numbers = np.arange(clips)
    first: np.ndarray
    if rng is None:
        first = np.zeros(clips)
        if starts > 0:
            first = np.floor(numbers * part + part / 2)
    elif starts // clips > 0:
        first = numbers * (starts // clips) + rng.randint(starts // clips, size=clips)
    elif n > max(clips, frames * interval):
        first = np.sort(rng.randint(starts, size=clips))
    else:
        first = np.around(numbers * part) if starts // clips == 0 else np.zeros(clips)
    return ((first[:, None] + np.arange(frames) * interval) % n).astype(np.int64)


def dense_sample_frames(
    n: int,
    frames: int,
    interval: int,
    clips: int,
    rng: np.random.RandomState | None = None,
    *,
    span: int = 64,
    positions: int = 10,
) -> np.ndarray:
    """`clips` dense clips that start evenly within `span` frames (OpenMMLab, `DenseSampleFrames`): int64 (·,T).

    The span lies at `positions` places over the video, (positions·clips,T) rows; with `rng` at a random one.
    """
    places = max(1, 1 + n - span)
    if rng is None:
        at = np.linspace(0, places - 1, positions).astype(np.int64)
    else:
        at = np.array([0 if places == 1 else rng.randint(places - 1)])
    first = (at[:, None] + np.arange(clips) * (span // clips)) % n
    return (first.reshape(-1, 1) + np.arange(frames) * interval) % n


def uniform_sample_frames(n: int, frames: int, clips: int, rng: np.random.RandomState) -> np.ndarray:
    """`clips` clips of `frames` frames spread over the whole video (OpenMMLab, `UniformSampleFrames`): int64 (clips,T).

    One random frame of each of T equal parts; where frames are rare all but some; where they are too few they repeat.
    """
    rows = []
    for number in range(clips):
        if n < frames:
            rows.append((number if n < clips else number * n // clips) + np.arange(frames))
        elif n < 2 * frames:
            skipped = np.zeros(frames + 1, dtype=np.int64)
            skipped[rng.choice(frames + 1, n - frames, replace=False)] = 1
            rows.append(np.arange(frames) + np.cumsum(skipped)[:-1])
        else:
            edges = np.arange(frames + 1) * n // frames
            rows.append(edges[:-1] + rng.randint(np.diff(edges)))
    return np.stack(rows) % n


def tsm_segments(n: int, frames: int, rng: np.random.RandomState | None = None) -> np.ndarray:
    """The middle, or with `rng` a random, frame of each of T equal steps (TSM's rule for Something-Something): (T,)."""
    edges = np.round((n - 1) / frames * np.arange(frames + 1)).astype(np.int64)
    return (edges[:-1] + edges[1:]) // 2 if rng is None else rng.randint(edges[:-1], edges[1:] + 1)


def _openmmlab(n: int, clip: Clip, clips: int, rng: np.random.RandomState | None) -> np.ndarray:
    if clip.sampling == "sample_frames":
        return sample_frames(n, clip.frames, clip.interval, clips, rng)
    if clip.sampling == "dense_sample_frames":
        return dense_sample_frames(n, clip.frames, clip.interval, clips, rng)
    if clip.sampling == "uniform_sample_frames":
        return uniform_sample_frames(n, clip.frames, clips, rng or np.random.RandomState(TEST_SEED))
    return np.stack([tsm_segments(n, clip.frames, rng) for _ in range(clips)])


def _random_segments(n: int, frames: int, interval: int, rng: np.random.RandomState) -> np.ndarray:
    """The released training rule; the order and number of draws are pinned by goldens."""
    usable = n - interval + 1
    segment = usable // frames
    first = np.arange(frames)
    if segment > 0:
        indices = first * segment + rng.randint(segment, size=frames)
    elif n > max(frames, interval):
        indices = np.sort(rng.randint(usable, size=frames))
    elif segment == 0:
        indices = np.around(first * (usable / frames)).astype(np.int64)
    else:
        indices = np.zeros(frames, dtype=np.int64)
    return indices % n


def _starts(n: int, clip: Clip) -> int:
    """How many starts a dense clip has in a video of `n` frames."""
    return max(1, n - (clip.frames - 1) * clip.interval)


def _dense(n: int, clip: Clip, start: int) -> np.ndarray:
    return np.minimum(start + np.arange(clip.frames) * clip.interval, n - 1)


def _check(n: int) -> None:
    if n < 1:
        raise ValueError(f"a video of {n} frames has nothing to sample: leave it out")
