"""Cached logits: what comes back, what is refused."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidstill.objectives.cache import LogitCache


def cache(folder: Path, classes: int = 10, kept: int = 4, **identity: object) -> LogitCache:
    return LogitCache(folder, {"seed": 0, **identity}, batches=5, batch=3, classes=classes, kept=kept, rank=0)


def test_the_largest_come_back_and_the_others_as_their_mean(tmp_path: Path) -> None:
    logits = torch.randn(3, 10)
    first = cache(tmp_path)
    assert first.read(2) is None
    written = first.write(2, logits)
    read = cache(tmp_path).read(2)  # as another process sees it
    assert read is not None and torch.equal(read, written)
    for row, original in zip(read.numpy(), logits.numpy(), strict=True):
        largest = np.argsort(original)[-4:]
        np.testing.assert_array_equal(row[largest], original[largest])
        rest = np.delete(np.arange(10), largest)
        np.testing.assert_allclose(row[rest], original[rest].mean(), rtol=1e-5)


def test_nothing_is_lost_where_all_classes_are_kept(tmp_path: Path) -> None:
    logits = torch.randn(2, 10)  # a batch that lost one clip
    assert torch.equal(cache(tmp_path, kept=32).write(0, logits), logits)


def test_complete_when_every_batch_is_there(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    for number in range(5):
        assert not kept.complete
        kept.write(number, torch.randn(3, 10))
    assert cache(tmp_path).complete


def test_logits_of_other_batches_are_refused(tmp_path: Path) -> None:
    cache(tmp_path)
    with pytest.raises(ValueError, match=r"seed 0 there, 1 here.*another distil\.cache"):
        cache(tmp_path, seed=1)


def test_a_batch_killed_in_the_middle_is_not_there(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    kept.logits[1] = 1.0
    assert cache(tmp_path).read(1) is None


def open_and_fill(folder: Path, start: Any, rank: int, seed: int) -> None:
    """Exits with 3 where the folder is refused, with another error where anything else happens."""
    start.wait()
    try:
        kept = LogitCache(folder, {"seed": seed}, batches=50, batch=8, classes=10, kept=4, rank=rank)
    except ValueError as error:
        raise SystemExit(3 if "other batches" in str(error) else 4) from error
    for moment in range(5):
        kept.write(moment, torch.arange(80.0).reshape(8, 10) + moment)


@pytest.mark.parametrize(("ranks", "seeds"), [((0, 1, 2, 3), (0,) * 4), ((0,) * 4, (0,) * 4), ((0,) * 4, (0, 0, 1, 1))])
def test_processes_that_open_a_folder_at_once_share_it(
    tmp_path: Path, ranks: tuple[int, ...], seeds: tuple[int, ...]
) -> None:
    """Ranks of one run, runs that share a cache, and runs of which only one kind may: no write is lost."""
    context = multiprocessing.get_context("fork")
    for attempt in range(2):
        folder, start = tmp_path / str(attempt), context.Event()
        processes = [
            context.Process(target=open_and_fill, args=(folder, start, rank, seed))
            for rank, seed in zip(ranks, seeds, strict=True)
        ]
        for process in processes:
            process.start()
        start.set()
        for process in processes:
            process.join()
        winner = json.loads((folder / "cache.json").read_text())["seed"]
        assert [process.exitcode for process in processes] == [0 if seed == winner else 3 for seed in seeds]
        for rank in set(ranks):
            again = LogitCache(folder, {"seed": winner}, batches=50, batch=8, classes=10, kept=4, rank=rank)
            read = [again.read(moment) for moment in range(5)]
            assert all(logits is not None and logits[3, 9] == 39 + moment for moment, logits in enumerate(read))
        assert not list(folder.glob("*.part*"))
