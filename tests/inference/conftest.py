"""A camera that is not there."""

from collections.abc import Callable, Iterator
from threading import Semaphore

import pytest

from vidstill.inference import sources
from vidstill.inference.live import Live
from vidstill.video.decode import Frame

Frames = Callable[[int | None], Iterator[Frame]]
Plug = Callable[[Frames], None]


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Lets every source be a camera of these frames (of a short side), which shows one when the one before was taken:
    a real one would also wait, but by the clock."""

    def connect(frames: Frames) -> None:
        wanted, take = Semaphore(0), Live.__next__

        def next_frame(live: Live) -> Frame:
            wanted.release()
            return take(live)

        def read(source: object, *, short_side: int | None = None) -> Iterator[Frame]:
            for frame in frames(short_side):
                wanted.acquire()
                yield frame

        monkeypatch.setattr(Live, "__next__", next_frame)
        monkeypatch.setattr(sources, "iter_frames", read)

    return connect
