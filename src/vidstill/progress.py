"""What a long task shows of itself: a bar where a person watches, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from vidstill.terminal import plain

PLAIN_SECONDS = 30.0  # at most between two lines of a task that nobody watches
WORTH_A_LINE = 5.0  # seconds that a task takes before its end is worth a plain line
SEPARATOR = "  "  # between the figures of a detail

Report = Callable[[dict[str, Any]], None]


def duration(seconds: float) -> str:
    """In the unit that a person would take, two digits where they tell something.

    >>> [duration(s) for s in (0.4, 42, 200, 5400, 9000, 86400, 3e5)]
    ['1 s', '42 s', '3.3 min', '90 min', '2.5 h', '24 h', '3.5 days']
    """
    units = (("s", 1, 90), ("min", 60, 100), ("h", 3600, 60), ("days", 86400, math.inf))
    unit, size = next((unit, size) for unit, size, most in units if seconds < most * size)
    number = max(1.0, seconds / size)
    return f"{number:.{1 if number < 10 and unit != 's' else 0}f}".removesuffix(".0") + f" {unit}"


class Task:
    """What was reported of one task, and how fast it goes."""

    def __init__(self, what: str, now: float) -> None:
        self.what, self.began, self.said = what, now, now
        self.done = self.total = 0
        self.detail = ""
        self.since: tuple[float, float] | None = None  # when it was first heard of, and how much was done by then

    def hear(self, event: dict[str, Any], now: float) -> None:
        self.done, self.total, self.detail = event["done"], event["total"], plain(event.get("detail", ""))
        self.since = self.since or (now, self.done)  # what starting takes, or a run did before, is no part of the pace

    @property
    def finished(self) -> bool:
        return self.done >= self.total

    def left(self, now: float) -> float | None:
        """Seconds to the end at the pace so far; None where nothing is known of it."""
        if self.since is None or self.done <= self.since[1] or self.finished:
            return None
        return (now - self.since[0]) / (self.done - self.since[1]) * (self.total - self.done)

    def line(self, now: float) -> str:
        left = self.left(now)
        end = f"took {duration(now - self.began)}" if self.finished else f"{duration(left)} left" if left else ""
        return SEPARATOR.join(filter(None, (f"{self.what} {self.done}/{self.total}", self.detail, end)))


class Plain:
    """Lines through `write` for what is reported: one at the end of a task, and one every half a minute before."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.write, self.clock = write, clock
        self.tasks: dict[str, Task] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        what, now = plain(event["what"]), self.clock()
        task = self.tasks.setdefault(what, Task(what, now))
        task.hear(event, now)
        if task.finished:
            del self.tasks[what]
        if now - task.began >= WORTH_A_LINE if task.finished else now - task.said >= PLAIN_SECONDS:
            task.said = now
            self.write(task.line(now))


class Bars:
    """A bar for each task that is reported, in a `console` of rich. Where it is narrow the figures of the detail go,
    from the last on; bar, count and time left stay."""

    def __init__(self, console: Any, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
        from rich.table import Column

        class Detail(ProgressColumn):
            def render(self, task: Any) -> Any:
                return _Fitting(task.fields["detail"])

        def fixed() -> Column:
            return Column(no_wrap=True)

        narrow = console.width < 100
        self.clock, self.tasks, self.numbers = clock, dict[str, Task](), dict[str, Any]()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=16)),
            BarColumn(bar_width=8 if narrow else 24, table_column=fixed()),
            MofNCompleteColumn(table_column=fixed()),
            TextColumn("{task.fields[left]}", markup=False, table_column=fixed()),
            Detail(table_column=Column(no_wrap=True, ratio=1)),
            console=console, transient=True, expand=True, redirect_stdout=sys.stdout.isatty(),
        )  # fmt: skip

    def __call__(self, event: dict[str, Any]) -> None:
        what, now = plain(event["what"]), self.clock()
        task = self.tasks.setdefault(what, Task(what, now))
        task.hear(event, now)
        if what not in self.numbers:
            self.numbers[what] = self.progress.add_task(what, detail="", left="")
        left = task.left(now)
        self.progress.update(
            self.numbers[what], completed=task.done, total=task.total, detail=task.detail,
            left=f"{duration(left)} left" if left else "", visible=not task.finished,
        )  # fmt: skip
        if task.finished:
            del self.tasks[what]


class _Fitting:
    """As many of the figures of a detail, from the first on, as a place of the terminal has room for."""

    def __init__(self, detail: str) -> None:
        self.detail = detail

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.cells import cell_len
        from rich.text import Text

        figures = self.detail.split(SEPARATOR)
        while len(figures) > 1 and cell_len(SEPARATOR.join(figures)) > options.max_width:
            figures.pop()
        yield Text(SEPARATOR.join(figures), no_wrap=True, overflow="ellipsis")

    def __rich_measure__(self, console: Any, options: Any) -> Any:
        from rich.measure import Measurement

        return Measurement(1, options.max_width)


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """What to report {"what", "done", "total", "detail"} to; what the library logs is shown as well, above the bars.

    All on standard error, so that standard output has results alone. Where that is no terminal, plain lines.
    """
    from rich.console import Console

    console = Console(stderr=True)
    with _logged_to(console):
        if console.is_terminal and not console.is_dumb_terminal:
            bars = Bars(console)
            with bars.progress:
                yield bars
        else:
            yield Plain(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))


@contextlib.contextmanager
def _logged_to(console: Any) -> Iterator[None]:
    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            style = "yellow" if record.levelno >= logging.WARNING else None
            console.print(
                plain(record.getMessage(), keep="\n"), style=style, markup=False, highlight=False, soft_wrap=True
            )

    logger, handler = logging.getLogger("vidstill"), Lines()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
