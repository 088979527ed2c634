"""Windows see every frame, at the right times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.config import Clip
from vidstill.inference.stream import frame_side, sliding_windows
from vidstill.video.decode import Frame

CLIP = Clip(frames=4, size=8)


def stream(times: list[float]) -> list[Frame]:
    """Frames that carry their own number as colour."""
    side = frame_side(CLIP)
    return [Frame(n, t, np.full((side, side + 3, 3), n, np.uint8)) for n, t in enumerate(times)]


@given(count=st.integers(1, 120), fps=st.floats(5, 40), length=st.floats(0.2, 3), share=st.floats(0.2, 1))
def test_windows_cover_the_stream(count: int, fps: float, length: float, share: float) -> None:
    times = [n / fps for n in range(count)]
    windows = list(sliding_windows(stream(times), CLIP, length, share * length))
    assert windows[0].start == 0
    assert windows[-1].end == times[-1]
    for window in windows:
        assert window.clip.shape == (4, 8, 8, 3)
        assert window.end - window.start <= length
        shown = window.clip[:, 0, 0, 0] / fps
        assert (shown >= window.start - 1e-6).all() and (shown <= window.end + 1e-6).all()
    for one, other in zip(windows, windows[1:], strict=False):
        assert one.start < other.start <= one.end + 1 / fps + 1e-6, "no frame between two windows is missed"


def test_a_short_stream_is_one_window() -> None:
    (window,) = sliding_windows(stream([0, 0.1, 0.2]), CLIP, 10, 5)
    assert (window.start, window.end) == (0, 0.2)


def test_a_gap_in_the_stream_is_stepped_over() -> None:
    windows = list(sliding_windows(stream([0, 0.5, 60, 60.5]), CLIP, 1, 1))
    assert [(w.start, w.end) for w in windows] == [(0, 0.5), (60, 60.5)]


def test_a_stride_that_skips_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="stride <= window"):
        list(sliding_windows(stream([0]), CLIP, 1, 2))
