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


ANY = st.builds(
    Clip,
    frames=st.integers(1, 33),
    interval=st.integers(1, 12),
    sampling=st.sampled_from(get_args(Clip.model_fields["sampling"].annotation)),
    fps=st.sampled_from([None, 15.0, 30.0]),
)
RATES = st.builds(sampling.Timing, st.sampled_from([25.0, 30.0, 60.0, 24000 / 1001]), st.sampled_from([0, 1, 512]))


@given(LENGTHS, ANY, ANY, RATES, st.integers(0, 99))
def test_a_teachers_frames_are_of_the_same_stretch_by_its_own_rule(n, clip, other, timing, seed):
    indices = sampling.train_indices(n, clip, np.random.RandomState(seed), timing)
    matching = sampling.matching_indices(indices, n, clip, other, timing)
    assert matching.shape == (other.frames,)
    assert matching.min() >= 0 and matching.max() < n
    if all(getattr(clip, name) == getattr(other, name) for name in ("sampling", "frames", "interval", "fps")):
        assert np.array_equal(matching, indices)
        return
    first, last = indices.min(), indices.max()
    if other.spans:
        assert first <= matching.min() and matching.max() <= last
        if clip.spans and clip.frames == other.frames:
            assert np.array_equal(matching, indices)
        elif not clip.spans and last - first >= other.frames > 1:  # each of its steps shows another part of the stretch
            usable = last - first - (other.interval if other.sampling == "segments" else 0)  # shortened by its rule
            assert matching[-1] - matching[0] >= usable * (1 - 2 / other.frames) - 2
        return
    length = {"timed_window": other.frames * other.interval * timing.fps / (other.fps or timing.fps)}.get(
        other.sampling, (other.frames - 1) * other.interval + 1
    )
    if n < length + other.interval or other.frames == 1:
        return
    assert matching[-1] - matching[0] == pytest.approx(length - 1, abs=1.01), "as long as its rule makes it"
    at_an_end = matching[0] <= 1 or matching[-1] >= n - 1 - other.interval
    if not at_an_end:
        assert abs((matching[0] + matching[-1]) - (first + last)) <= 3, "about the same middle"


@given(LENGTHS, ANY, RATES, st.integers(0, 99))
def test_a_teacher_of_the_students_rule_sees_its_frames(n, clip, timing, seed):
    indices = sampling.train_indices(n, clip, np.random.RandomState(seed), timing)
    larger = clip.model_copy(update={"size": 2 * clip.size, "views": "torch"})
    assert np.array_equal(sampling.matching_indices(indices, n, clip, larger, timing), indices)


def test_a_window_at_60_frames_a_second_is_as_long_as_one_at_30():
    """32 frames, 2 apart at 30 per second: 128 frames of a video of 60, where a dense clip would have 63."""
    student = Clip(frames=16, interval=2, sampling="dense")
    teacher = Clip(frames=32, interval=2, sampling="timed_window", fps=30)
    indices = sampling.train_indices(400, student, np.random.RandomState(0), sampling.Timing(60))
    taught = sampling.matching_indices(indices, 400, student, teacher, sampling.Timing(60))
    assert taught[-1] - taught[0] == 127


@given(LENGTHS, ANY, RATES)
def test_clips_that_fit_lie_side_by_side(n, clip, timing):
    clips = sampling.clips_that_fit(n, clip, timing)
    if clip.spans or clip.sampling == "dense_sample_frames":
        assert clips == 1
    else:
        length = sampling.clip_length(clip, timing)
        assert clips * length <= n + 1e-6 < (clips + 1) * length or (clips == 1 and n < 2 * length)
