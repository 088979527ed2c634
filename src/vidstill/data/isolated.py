"""One task over many items in processes that may hang or die without harm to the rest."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lost:
    """An item without a result, and why."""

    reason: str


def isolated(
    task: Callable[[Item], Result], items: Sequence[Item], seconds: Sequence[float], workers: int | None = None
) -> Generator[tuple[int, Result | Lost]]:
    """(position, task(item)) in the order of completion; Lost where the task raised, died, or took over `seconds`.

    `workers` processes, None: one per core.
    `task` must be importable: the processes are spawned, for a fork would copy the locks of running threads.
    """
    waiting = list(reversed(range(len(items))))
    pool = [_Worker(task) for _ in range(min(workers or _cores(), len(items)))]
    try:
        while True:
            for slot, worker in enumerate(pool):
                if worker.position is None and waiting:
                    if not worker.process.is_alive():
                        worker = pool[slot] = _Worker(task)
                    position = waiting.pop()
                    worker.give(position, items[position], seconds[position])
            busy = [worker for worker in pool if worker.position is not None]
            if not busy:
                return
            wait([worker.pipe for worker in busy], max(0.0, min(worker.deadline for worker in busy) - time.monotonic()))
            for worker in busy:
                if (outcome := worker.take()) is not None:
                    yield outcome
    finally:
        for worker in pool:
            worker.stop()


class _Worker(Generic[Item, Result]):
    """A process, the position of the item that it has, and when that has to be done."""

    def __init__(self, task: Callable[[Item], Result]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(task, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that its death ends the pipe
        self.position: int | None = None
        self.deadline = 0.0

    def give(self, position: int, item: Item, seconds: float) -> None:
        self.position, self.seconds, self.deadline = position, seconds, time.monotonic() + seconds
        with contextlib.suppress(OSError):  # it died: `take` says so
            self.pipe.send(item)

    def take(self) -> tuple[int, Any] | None:
        """Position and outcome, if there is one."""
        if self.position is None:
            return None
        outcome: Any
        if self.pipe.poll():
            try:
                outcome = self.pipe.recv()
            except (EOFError, OSError):
                self.stop()
                outcome = Lost(f"crashed ({_ending(self.process.exitcode)})")
        elif time.monotonic() >= self.deadline:
            self.stop()
            outcome = Lost(f"not done after {self.seconds:g} s")
        else:
            return None
        position, self.position = self.position, None
        return position, outcome

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _serve(task: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            outcome = task(item)
        except Exception as error:
            outcome = Lost(str(error) or type(error).__name__)
        pipe.send(outcome)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
