"""Cached logits: what comes back, what is refused."""

from pathlib import Path

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
