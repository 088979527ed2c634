"""Which frames of a video make a clip: sparse segments, dense clips, sliding windows."""

from __future__ import annotations

import numpy as np

from vidstill.config import Clip


def train_indices(n: int, clip: Clip, rng: np.random.RandomState) -> np.ndarray:
    """Random frame numbers of one training clip of a video of `n` frames, int64 (T,), in order.

    sparse: one frame from each of T equal segments of the whole video (Video-FocalNet; `interval` only shortens the
    usable range; where n <= T frames repeat, and rounding may wrap the last ones to frame 0, as released).
    dense: T frames `interval` apart from a random start; a video shorter than that holds its last frame.
    """
    _check(n)
    if clip.sampling == "sparse":
        return _random_segments(n, clip.frames, clip.interval, rng)
    return _dense(n, clip, rng.randint(_starts(n, clip)))


def test_indices(n: int, clip: Clip, clips: int, rng: np.random.RandomState | None = None) -> np.ndarray:
    """Frame numbers of `clips` test clips of a video of `n` frames, int64 (clips, T), each row in order.

    Without `rng` a fixed function of `n`. sparse: clip m of M takes of each segment the frame at (m + 1/2)/M of it,
    for M = 1 the middle one as the released single-clip test. dense: the clips start in the middles of M equal parts.
    With `rng` the clips are random; sparse ones then as in the released multi-clip test, which ignores `interval`.
    """
    _check(n)
    if clips < 1:
        raise ValueError(f"{clips} clips per video: take at least 1")
    if rng is not None:
        if clip.sampling == "sparse":
            return np.stack([_random_segments(n, clip.frames, 1, rng) for _ in range(clips)])
        return np.stack([train_indices(n, clip, rng) for _ in range(clips)])
    share = (np.arange(clips) + 0.5)[:, None] / clips
    if clip.sampling == "dense":
        return np.stack([_dense(n, clip, int(start)) for start in share[:, 0] * _starts(n, clip)])
    if n < clip.interval:
        return np.zeros((clips, clip.frames), dtype=np.int64)
    segment = (n - clip.interval + 1) / clip.frames
    return (np.arange(clip.frames) * segment + share * segment).astype(np.int64) % n


test_indices.__test__ = False  # type: ignore[attr-defined]  # the name is not a test's


def matching_indices(indices: np.ndarray, n: int, clip: Clip, other: Clip) -> np.ndarray:
    """Frame numbers (T',) of a clip in the format `other` that shows the moments of `indices` (T,), a clip in `clip`.

    dense: centred on the same moment. sparse beside sparse: the same stretch in T' steps, equal where T' = T. sparse
    beside dense: its own fixed frames, because it always spans the whole video.
    """
    if other.sampling == "dense":
        middle = (indices[0] + indices[-1] - (other.frames - 1) * other.interval) / 2
        return _dense(n, other, min(max(0, int(middle)), _starts(n, other) - 1))
    if clip.sampling == "dense":
        return test_indices(n, other, 1)[0]
    position = (np.arange(other.frames) + 0.5) * len(indices) / other.frames - 0.5
    return np.rint(np.interp(position, np.arange(len(indices)), indices)).astype(np.int64)


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
