"""Windows see every frame, at the right times, and hold no more than they show."""

import itertools
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.config import Clip
from vidstill.data import sampling
from vidstill.data.views import test_clips
from vidstill.inference.stream import clip_frames, frame_side, sliding_windows
from vidstill.video.decode import Frame, iter_frames

SPARSE = Clip(frames=4, size=8, interval=2)
DENSE = Clip(frames=4, size=8, interval=2, sampling="dense")


def stream(times: list[float], clip: Clip = SPARSE) -> list[Frame]:
    """Frames that carry their own number as colour."""
    side = frame_side(clip)
    return [Frame(n, t, np.full((side, side + 3, 3), n, np.uint8)) for n, t in enumerate(times)]


@given(st.integers(1, 150), st.sampled_from([5, 12, 15, 25, 30, 30000 / 1001, 60]), st.integers(1, 60), st.data())
def test_at_a_constant_rate_windows_are_those_counted_in_frames(
    count: int, rate: float, length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, length))
    frames = stream([n / rate for n in range(count)])
    found = list(sliding_windows(frames, SPARSE, length / rate, stride / rate))
    starts = [*range(0, max(0, count - length), stride), max(0, count - length)]  # the last ends with the stream
    expected = [(start, min(count, start + length)) for start in starts]
    assert [(round(w.start * rate), round(w.end * rate)) for w in found] == [
        (first, last if last - first > 1 else first) for first, last in expected
    ]
    for window, (first, last) in zip(found, expected, strict=True):
        shown = first + sampling.test_indices(last - first, SPARSE, 1)[0]
        assert window.views.shape == (1, 4, 8, 8, 3)
        assert window.views[0, :, 0, 0, 0].tolist() == shown.tolist()


@given(st.lists(st.floats(0, 3), min_size=1, max_size=80), st.floats(0.2, 4), st.floats(0.05, 1))
def test_uneven_streams_are_covered_without_an_empty_window(pauses: list[float], length: float, share: float) -> None:
    times = list(itertools.accumulate(pauses))
    every = Clip(frames=80, size=8, interval=1)  # of a window of up to 80 frames it shows all
    windows = list(sliding_windows(stream(times, every), every, length, share * length))
    shown = [sorted(set(window.views[0, :, 0, 0, 0].tolist())) for window in windows]
    for window, numbers in zip(windows, shown, strict=True):
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert window.start == times[numbers[0]]
        assert window.end >= times[numbers[-1]]
        assert times[numbers[-1]] - times[numbers[0]] < length + 1e-5
    assert set().union(*shown) == set(range(len(times)))
    assert sorted(shown) == shown


@pytest.mark.parametrize(("clip", "count", "views"), [(SPARSE, 30, 1), (DENSE, 30, 4), (DENSE, 7, 1), (DENSE, 3, 1)])
def test_a_window_is_sampled_like_a_video_in_a_test(clip: Clip, count: int, views: int) -> None:
    """A dense window is seen by as many clips as fit, spread as the clips of a test."""
    (window,) = sliding_windows(stream([n / 10 for n in range(count)], clip), clip, 100, 100)
    shown = window.views[:, :, 0, 0, 0]
    np.testing.assert_array_equal(shown, sampling.test_indices(count, clip, views))
    assert views == max(1, count // clip_frames(clip)) or clip.sampling == "segments"


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("clip", [Clip(frames=4, size=32), Clip(frames=4, size=32, interval=2, sampling="dense")])
def test_a_whole_file_gives_the_views_of_a_test(embedded: Path, clip: Clip, crops: int) -> None:
    path = next(embedded.rglob("*.mp4"))
    frames = iter_frames(path, short_side=frame_side(clip, crops))
    (window,) = sliding_windows(frames, clip, 1000, 1000, crops)
    np.testing.assert_array_equal(window.views, test_clips(path, clip, 1, crops))


def test_no_more_than_a_window_is_held() -> None:
    alive, most = [0], 0

    def gone() -> None:
        alive[0] -= 1

    def endless() -> Iterator[Frame]:
        nonlocal most
        for n in range(300):
            pixels = np.zeros((9, 9, 3), np.uint8)
            weakref.finalize(pixels, gone)
            alive[0] += 1
            most = max(most, alive[0])
            yield Frame(n, n / 10, pixels)

    for _ in sliding_windows(endless(), SPARSE, 2.0, 0.5):
        pass
    assert 20 <= most <= 23


def test_a_window_is_there_as_soon_as_it_is_over() -> None:
    """A live picture is labelled while it runs, not at its end."""
    taken: list[int] = []

    def live() -> Iterator[Frame]:
        for frame in stream([n / 10 for n in range(100)]):
            taken.append(frame.index)
            yield frame

    windows = sliding_windows(live(), SPARSE, 1.0, 0.5)
    assert next(windows).end == pytest.approx(1.0)
    assert taken[-1] == 10
    assert next(windows).end == pytest.approx(1.5)
    assert taken[-1] == 15


def test_a_pause_is_stepped_over() -> None:
    windows = list(sliding_windows(stream([0, 0.5, 1e9, 1e9 + 0.5]), SPARSE, 1, 0.5))
    assert [(w.start, w.end) for w in windows] == [(0, 1), (1e9, 1e9 + 1)]


def test_one_frame_is_a_window_without_length() -> None:
    (window,) = sliding_windows(stream([3.0]), SPARSE, 10, 5)
    assert (window.start, window.end) == (3, 3)
    assert not list(sliding_windows([], SPARSE, 10, 5))


@pytest.mark.parametrize(("length", "stride"), [(1, 2), (1, 0), (0, 0), (-1, -1)])
def test_a_stride_that_skips_frames_is_refused(length: float, stride: float) -> None:
    with pytest.raises(ValueError, match="stride <= window"):
        list(sliding_windows(stream([0]), SPARSE, length, stride))
