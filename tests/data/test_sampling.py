"""Frame numbers of clips: the released rules against plain arithmetic, and properties of all of them."""

from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.config import Clip
from vidstill.data import sampling

CLIPS = st.builds(
    Clip,
    frames=st.integers(1, 33),
    interval=st.integers(1, 12),
    sampling=st.sampled_from(["segments", "dense"]),
)
LENGTHS = st.integers(1, 400)


def in_order(indices: np.ndarray, n: int, clip: Clip) -> bool:
    """Sorted; random sparse clips of very short videos may end with frame 0, as the released rounding makes them."""
    may_wrap = clip.sampling == "segments" and n <= clip.frames
    kept = indices[: np.flatnonzero(indices)[-1] + 1] if may_wrap and indices.any() else indices
    return bool((np.diff(kept) >= 0).all())


@given(LENGTHS, CLIPS, st.integers(0, 99))
def test_training_frames_exist_and_are_in_order(n, clip, seed):
    indices = sampling.train_indices(n, clip, np.random.RandomState(seed))
    assert indices.shape == (clip.frames,) and indices.dtype == np.int64
    assert indices.min() >= 0 and indices.max() < n
    assert in_order(indices, n, clip)


@given(LENGTHS, CLIPS, st.integers(1, 6), st.none() | st.integers(0, 99))
def test_test_frames_exist_and_are_in_order(n, clip, clips, seed):
    rng = None if seed is None else np.random.RandomState(seed)
    indices = sampling.test_indices(n, clip, clips, rng)
    assert indices.shape == (clips, clip.frames) and indices.dtype == np.int64
    assert indices.min() >= 0 and indices.max() < n
    assert all(in_order(row, n, clip) for row in indices)


@pytest.mark.parametrize("kind", get_args(Clip.model_fields["sampling"].annotation))
@pytest.mark.parametrize(("frames", "interval"), [(1, 1), (2, 3), (4, 1), (5, 4), (8, 2), (16, 3)])
def test_a_video_of_the_frames_needed_is_the_shortest_with_a_whole_clip(kind: str, frames: int, interval: int) -> None:
    """Whole: no frame twice where the clip spans the video, else frames as far apart as in a very long one."""
    clip = Clip(frames=frames, interval=interval, sampling=kind)
    apart = np.diff(sampling.test_indices(10_000, clip, 1)[0])

    def whole(n: int) -> bool:
        steps = np.diff(sampling.test_indices(n, clip, 1)[0])
        return bool((steps > 0).all()) if clip.spans else np.array_equal(steps, apart)

    assert sampling.frames_needed(clip) == max((n for n in range(1, 120) if not whole(n)), default=0) + 1


def test_frames_needed_by_a_window_in_seconds() -> None:
    clip = Clip(frames=8, interval=4, sampling="window", fps=30)
    for fps, needed in ((30, 32), (60, 64), (15, 16)):
        assert sampling.frames_needed(clip, sampling.Timing(fps)) == needed


@given(st.integers(1, 400), st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(1, 8), st.sampled_from([1, 2, 4, 8]))
def test_sparse_clips_divide_each_segment_evenly(n, frames, interval, clips):
    """Exact rational arithmetic; powers of two, so that floats do not round."""
    clip = Clip(frames=frames, interval=interval)
    segment = Fraction(max(0, n - interval + 1), frames)
    expected = [[int((i + Fraction(2 * m + 1, 2 * clips)) * segment) for i in range(frames)] for m in range(clips)]
    np.testing.assert_array_equal(sampling.test_indices(n, clip, clips), expected)


@given(st.integers(1, 300), st.integers(1, 16), st.integers(0, 99))
def test_sparse_training_takes_one_frame_of_each_segment(segment_length, frames, seed):
    clip = Clip(frames=frames, interval=4)
    indices = sampling.train_indices(frames * segment_length + 3, clip, np.random.RandomState(seed))
    np.testing.assert_array_equal(indices // segment_length, np.arange(frames))


def test_every_frame_of_a_segment_is_drawn():
    drawn = [sampling.train_indices(20, Clip(frames=4, interval=1), np.random.RandomState(seed)) for seed in range(99)]
    assert set(np.concatenate(drawn)) == set(range(20))


def test_random_test_clips_are_training_clips_of_interval_1():
    clip = Clip(frames=8, interval=4)
    rng, same = np.random.RandomState(3), np.random.RandomState(3)
    expected = [sampling.train_indices(50, Clip(frames=8, interval=1), same) for _ in range(3)]
    np.testing.assert_array_equal(sampling.test_indices(50, clip, 3, rng), expected)


@given(LENGTHS, st.integers(1, 16), st.integers(1, 8), st.integers(0, 99))
def test_dense_frames_are_an_interval_apart_until_the_last_frame(n, frames, interval, seed):
    clip = Clip(frames=frames, interval=interval, sampling="dense")
    rows = [sampling.train_indices(n, clip, np.random.RandomState(seed)), *sampling.test_indices(n, clip, 3)]
    for row in rows:
        np.testing.assert_array_equal(row, np.minimum(row[0] + interval * np.arange(frames), n - 1))
        if n > (frames - 1) * interval:
            assert row[-1] == row[0] + interval * (frames - 1)
        else:
            assert row[0] == 0


def test_dense_test_clips_spread_over_the_video():
    clip = Clip(frames=4, interval=2, sampling="dense")  # spans 7 frames: 100 possible starts in 106
    np.testing.assert_array_equal(sampling.test_indices(106, clip, 4)[:, 0], [12, 37, 62, 87])
    np.testing.assert_array_equal(sampling.test_indices(106, clip, 1)[:, 0], [50])


def test_nothing_to_sample_is_refused():
    for call in (
        lambda: sampling.train_indices(0, Clip(), np.random.RandomState(0)),
        lambda: sampling.test_indices(0, Clip(), 1),
    ):
        with pytest.raises(ValueError, match="0 frames"):
            call()
    with pytest.raises(ValueError, match="at least 1"):
        sampling.test_indices(10, Clip(), 0)


@given(LENGTHS, CLIPS, CLIPS, st.integers(0, 99))
def test_a_teachers_frames_exist_are_in_order_and_of_the_same_moments(n, clip, other, seed):
    indices = np.sort(sampling.train_indices(n, clip, np.random.RandomState(seed)))
    matching = sampling.matching_indices(indices, n, clip, other)
    assert matching.shape == (other.frames,)
    assert matching.min() >= 0 and matching.max() < n and (np.diff(matching) >= 0).all()
    if clip.spans and other.spans:
        assert indices[0] <= matching[0] and matching[-1] <= indices[-1]
        if clip.frames == other.frames:
            assert np.array_equal(matching, indices)
    elif not other.spans and n > other.frames * other.interval + clip.frames * clip.interval:
        inside = min(indices[0], n - 1 - indices[-1]) > other.frames * other.interval  # far from both ends
        assert not inside or abs((matching[0] + matching[-1]) - (indices[0] + indices[-1])) <= 2
