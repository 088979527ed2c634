"""Tasks that hang, die or raise cost their own item and nothing else."""

import os
import signal
import time

from vidstill.data.isolated import Lost, isolated


def misbehave(what: str) -> str:
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise ValueError("not today")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    return what.upper()


def test_each_item_has_one_outcome() -> None:
    items = ["a", "hang", "raise", "b", "die", "exit", "c"]
    seconds = [60.0 if item != "hang" else 0.5 for item in items]
    outcomes = dict(isolated(misbehave, items, seconds, workers=2))
    assert [outcomes[n] for n in range(len(items))] == [
        "A",
        Lost("not done after 0.5 s"),
        Lost("not today"),
        "B",
        Lost("crashed (signal SIGKILL)"),
        Lost("crashed (exit code 3)"),
        "C",
    ]


def test_no_process_is_left_behind_when_the_caller_stops_early() -> None:
    outcomes = isolated(process_id, [0, 1, 2], [60.0] * 3, workers=1)
    _, process = next(outcomes)
    assert isinstance(process, int)
    outcomes.close()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return
    raise AssertionError("the worker still runs")


def process_id(item: int) -> int:
    return os.getpid()


def test_nothing_to_do_starts_nothing() -> None:
    assert list(isolated(misbehave, [], [], workers=4)) == []
