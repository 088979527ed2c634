"""Live sources: a thread takes the frames of one that does not wait for its reader, and none is seen too late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from threading import Condition, Thread

from vidstill.video.decode import Frame

STALE = 2.0  # seconds for which a frame may wait; the memory of so much video is what a slow reader costs


def is_live(source: str) -> bool:
    """A camera or URL, which is read once and whose length is unknown."""
    return source.startswith(("camera:", "/dev/video")) or "://" in source


def never_waits(source: str) -> bool:
    """A camera or broadcast: what is not read in time is lost, or read late. HTTP gives what is asked for."""
    return is_live(source) and not source.startswith(("http://", "https://", "file://"))


class Live(Iterator[Frame]):
    """The frames of `source`, without those that have waited for more than `STALE` seconds.

    An error of the source is raised where its frames end. `dropped` counts the frames left out.
    """

    def __init__(self, source: Iterable[Frame]) -> None:
        self.dropped = 0
        self._newest = 0.0
        self._waiting: deque[tuple[float, Frame]] = deque()  # each with the time at which it came
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._changed = Condition()
        Thread(target=self._read, args=(source,), daemon=True).start()

    def newest(self) -> float:
        """Seconds of the frame that came last."""
        return self._newest

    def __next__(self) -> Frame:
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            self._drop()
            if self._waiting:
                return self._waiting.popleft()[1]
        raise self._error or StopIteration

    def close(self) -> None:
        """Let go of the source with its next frame."""
        self._closed = True

    def _read(self, source: Iterable[Frame]) -> None:
        error: BaseException | None = None
        try:
            for frame in source:
                with self._changed:
                    self._waiting.append((time.monotonic(), frame))
                    self._newest = frame.seconds
                    self._drop()
                    self._changed.notify()
                if self._closed:
                    break
        except BaseException as raised:  # whatever it is, it is the reader's
            error = raised
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify()

    def _drop(self) -> None:
        """The last one stays: something is always to be seen."""
        late = time.monotonic() - STALE
        while len(self._waiting) > 1 and self._waiting[0][0] < late:
            self._waiting.popleft()
            self.dropped += 1
