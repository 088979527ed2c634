"""What a long task shows: a bar that fits its terminal, plain lines elsewhere, results never among them."""

import io
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from vidstill.progress import PLAIN_SECONDS, Bars, Plain, duration

DETAIL = "loss 1.234  lr 0.05  grad_norm 12.3  clips_per_s 23.45  data_wait 2 %"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drawn(width: int, what: str = "training", done: int = 1200, total: int = 12000) -> str:
    """The line of a bar after a report at second 0, and one 100 steps and 340 seconds later."""
    clock = Clock()
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bars = Bars(console, clock)
    for step, seconds in ((done - 100, 0.0), (done, 340.0)):
        clock.now = seconds
        bars({"what": what, "done": step, "total": total, "detail": DETAIL})
    with console.capture() as captured:
        console.print(bars.progress.get_renderable())
    (line,) = captured.get().splitlines()
    return line


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bar_count_and_time_left_are_whole_at_any_width(width: int) -> None:
    line = drawn(width)
    assert cell_len(line) <= width
    assert re.match(r"training +[━╸╺ ]{8,} +1200/12000 +10 h left +loss 1\.234", line), line  # 10,800 steps of 3.4 s
    figures = re.split(r" {2,}", line.strip().partition(" left ")[2])
    assert figures == DETAIL.split("  ")[: len(figures)], "whole figures, the last ones first to go"
    following = DETAIL.split("  ")[len(figures) : len(figures) + 1]
    assert all(cell_len(line.rstrip()) + 2 + len(figure) > width for figure in following), "as many as fit"


def test_a_long_name_and_large_counts_leave_the_time() -> None:
    line = drawn(80, what="a task with a rather long name", done=1_000_000, total=12_000_000)
    assert cell_len(line) <= 80 and "1000000/12000000" in line and "days left" in line


def plain_lines(events: list[tuple[float, dict[str, object]]]) -> list[tuple[float, str]]:
    clock, lines = Clock(), list[tuple[float, str]]()
    report = Plain(lambda line: lines.append((clock.now, line)), clock)
    for now, event in events:
        clock.now = now
        report(event)
    return lines


def test_a_plain_line_at_least_every_half_a_minute_and_one_at_the_end() -> None:
    steps = [(3.0 * n, {"what": "training", "done": n, "total": 100, "detail": "loss 1.2"}) for n in range(1, 101)]
    lines = plain_lines(steps)
    times = [0.0, *(when for when, _ in lines)]
    assert max(after - before for before, after in itertools.pairwise(times)) <= PLAIN_SECONDS + 3
    assert len(lines) == 10
    assert lines[0][1] == "training 11/100  loss 1.2  4.5 min left"  # 89 steps of 3 s
    assert lines[-1][1] == "training 100/100  loss 1.2  took 5 min"


def test_a_task_of_a_moment_has_no_line_and_one_begun_again_its_own() -> None:
    once = [(1.0, {"what": "testing", "done": 1, "total": 2}), (1.5, {"what": "testing", "done": 2, "total": 2})]
    assert plain_lines(once) == []
    again = [(at + 100, event) for at, event in once] + [(190.0, {"what": "testing", "done": 2, "total": 2})]
    assert plain_lines(once + again[:1] + again[2:]) == [(190.0, "testing 2/2  took 89 s")]


def test_what_a_resumed_run_did_before_says_nothing_of_its_pace() -> None:
    lines = plain_lines([(at, {"what": "t", "done": done, "total": 1000}) for at, done in ((0.0, 900), (40.0, 910))])
    assert lines == [(40.0, "t 910/1000  6 min left")]


@pytest.mark.parametrize("seconds", [0.0, 59.9, 89.9, 90, 5999, 6001, 35_999, 36_001, 215_999, 216_001, 1e7])
def test_a_duration_is_within_its_rounding(seconds: float) -> None:
    number, unit = duration(seconds).split()
    size = {"s": 1, "min": 60, "h": 3600, "days": 86400}[unit]
    assert float(number) * size == pytest.approx(max(seconds, 1), rel=0.06) and float(number) < 130


def test_a_pipe_gets_results_on_one_end_and_plain_lines_on_the_other(embedded: Path, tmp_path: Path) -> None:
    code = """
import logging, sys, time
from vidstill import progress
progress.PLAIN_SECONDS = progress.WORTH_A_LINE = 0
with progress.progress() as report:
    logging.getLogger("vidstill").warning("mind \\x1b[2J")
    for done in (1, 2):
        report({"what": "x\\x1b[2J", "done": done, "total": 2, "detail": "a\\x07"})
sys.stdout.write("result\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "result\n"
    assert re.fullmatch(r"mind \\x1b\[2J\nx\\x1b\[2J 1/2  a\\x07\nx\\x1b\[2J 2/2  a\\x07  took 1 s\n", done.stderr)
