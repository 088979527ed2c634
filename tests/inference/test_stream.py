"""Windows see every frame, at the right times, and hold no more than they show."""

import itertools
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.inference.stream import sliding_windows
from vidstill.video.decode import Frame


def stream(times: list[float]) -> list[Frame]:
    return [Frame(n, t, np.full((1, 1, 3), n, np.uint8)) for n, t in enumerate(times)]


@given(st.integers(1, 150), st.sampled_from([5, 12, 15, 25, 30, 30000 / 1001, 60]), st.integers(1, 60), st.data())
def test_at_a_constant_rate_windows_are_those_counted_in_frames(
    count: int, rate: float, length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, length))
    frames = stream([n / rate for n in range(count)])
    found = list(sliding_windows(frames, length / rate, stride / rate))
    starts = [*range(0, max(0, count - length), stride), max(0, count - length)]  # the last ends with the stream
    expected = [(start, min(count, start + length)) for start in starts]
    assert [(round(w.start * rate), round(w.end * rate)) for w in found] == [
        (first, last if last - first > 1 else first) for first, last in expected
    ]
    assert [[frame.index for frame in window.frames] for window in found] == [[*range(*ends)] for ends in expected]


@given(st.lists(st.floats(0, 3), min_size=1, max_size=80), st.floats(0.2, 4), st.floats(0.05, 1))
def test_uneven_streams_are_covered_without_an_empty_window(pauses: list[float], length: float, share: float) -> None:
    times = list(itertools.accumulate(pauses))
    windows = list(sliding_windows(stream(times), length, share * length))
    shown = [[frame.index for frame in window.frames] for window in windows]
    for window, numbers in zip(windows, shown, strict=True):
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert window.start == times[numbers[0]]
        assert window.end >= times[numbers[-1]]
        assert times[numbers[-1]] - times[numbers[0]] < length + 1e-5
    assert set().union(*shown) == set(range(len(times)))
    assert sorted(shown) == shown


def test_no_more_than_a_window_is_buffered() -> None:
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

    windows = sliding_windows(endless(), 2.0, 0.5)
    while next(windows, None):
        pass
    assert 20 <= most <= 23


def test_a_window_is_there_as_soon_as_it_is_over() -> None:
    """A live picture is labelled while it runs, not at its end."""
    taken: list[int] = []

    def live() -> Iterator[Frame]:
        for frame in stream([n / 10 for n in range(100)]):
            taken.append(frame.index)
            yield frame

    windows = sliding_windows(live(), 1.0, 0.5)
    assert next(windows).end == pytest.approx(1.0)
    assert taken[-1] == 10
    assert next(windows).end == pytest.approx(1.5)
    assert taken[-1] == 15


def test_a_pause_is_stepped_over() -> None:
    windows = list(sliding_windows(stream([0, 0.5, 1e9, 1e9 + 0.5]), 1, 0.5))
    assert [(w.start, w.end) for w in windows] == [(0, 1), (1e9, 1e9 + 1)]


def test_one_frame_is_a_window_without_length() -> None:
    (window,) = sliding_windows(stream([3.0]), 10, 5)
    assert (window.start, window.end) == (3, 3)
    assert not list(sliding_windows([], 10, 5))


@pytest.mark.parametrize(("length", "stride"), [(1, 2), (1, 0), (0, 0), (-1, -1)])
def test_a_stride_that_skips_frames_is_refused(length: float, stride: float) -> None:
    with pytest.raises(ValueError, match="stride <= window"):
        list(sliding_windows(stream([0]), length, stride))
