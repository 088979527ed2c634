"""Figures against torchmetrics and against loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from vidstill.evaluation.metrics import expected_calibration_error, measure, reliability, topk_accuracy


def drawn(seed: int, videos: int, classes: int, all_classes: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float32 (N,K) without ties, and labels (N,)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (videos, classes))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = rng.integers(classes, size=videos)
    if all_classes:
        labels[:classes] = np.arange(classes)
    return scores.astype(np.float32), labels


def names(classes: int) -> list[str]:
    return [f"class {number}" for number in range(classes)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 12), st.integers(1, 20))
def test_topk_is_what_a_loop_counts(seed: int, videos: int, classes: int, k: int) -> None:
    scores, labels = drawn(seed, videos, classes)
    right = sum(sum(other > row[label] for other in row) < k for row, label in zip(scores, labels, strict=True))
    assert topk_accuracy(scores, labels, k) == pytest.approx(right / videos)


@pytest.mark.parametrize("classes", [2, 6, 30])
def test_figures_equal_torchmetrics(classes: int) -> None:
    scores, labels = drawn(classes, 200, classes, all_classes=True)
    m = measure(scores, labels, names(classes))
    p, y = torch.from_numpy(scores), torch.from_numpy(labels)
    for k, ours in ((1, m.top1), (5, m.top5)):
        theirs = multiclass_accuracy(p, y, classes, average="micro", top_k=min(k, classes))
        assert ours == pytest.approx(theirs.item(), abs=1e-6)
    assert m.mean_class == pytest.approx(multiclass_accuracy(p, y, classes, average="macro").item(), abs=1e-6)
    np.testing.assert_array_equal(m.confusion, multiclass_confusion_matrix(p, y, classes).numpy())
    assert m.calibration_error == pytest.approx(multiclass_calibration_error(p, y, classes, n_bins=15).item(), abs=1e-6)
    assert m.loss == pytest.approx(torch.nn.functional.nll_loss(p.log(), y).item(), abs=1e-5)


def test_the_table_of_classes_is_what_a_loop_counts() -> None:
    scores, labels = drawn(3, 150, 7)
    said = scores.argmax(1)
    for number, row in enumerate(measure(scores, labels, names(7)).classes):
        own = [int(answer) for answer, label in zip(said, labels, strict=True) if label == number]
        wrong = [answer for answer in own if answer != number]
        most = max(sorted(set(wrong)), key=wrong.count)
        assert (row.videos, row.confused) == (len(own), f"class {most}")
        assert row.accuracy == pytest.approx(own.count(number) / len(own))


def test_a_class_without_videos_counts_in_no_mean() -> None:
    scores = np.eye(4, dtype=np.float32)[[0, 1, 1, 3]]
    m = measure(scores, np.array([0, 1, 0, 0]), names(4))
    assert [row.videos for row in m.classes] == [3, 1, 0, 0]
    assert math.isnan(m.classes[2].accuracy)
    assert m.classes[2].confused is None
    assert m.mean_class == pytest.approx((1 / 3 + 1) / 2)
    assert m.confusion[0].tolist() == [1, 1, 0, 1]


def test_equal_scores_are_not_all_right() -> None:
    """A model that says the same of all classes is as good as always naming the first one."""
    scores, labels = np.full((8, 4), 0.25, np.float32), np.arange(8) % 4
    assert topk_accuracy(scores, labels, 1) == 0.25
    assert topk_accuracy(scores, labels, 3) == 0.75
    assert topk_accuracy(scores, labels, 5) == 1


def test_calibration_by_hand() -> None:
    scores = np.array([[0.85, 0.15], [0.85, 0.15], [0.55, 0.45], [0.25, 0.75]], np.float32)
    labels = np.array([0, 1, 0, 1])
    # bins of a tenth: 0.55 right in 1 of 1, 0.75 in 1 of 1, 0.85 in 1 of 2
    assert expected_calibration_error(scores, labels, bins=10) == pytest.approx((0.45 + 0.25 + 2 * 0.35) / 4, abs=1e-6)
    videos, sure, right = reliability(scores, labels, bins=10)
    assert videos.tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 2, 0]
    assert sure[8] == pytest.approx(0.85)
    assert right[8] == 0.5
    assert math.isnan(right[0])


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((0, 2)), [], "nothing to measure"),
        (np.full((2, 2), 0.5), [1, 2], "labels go from 1 to 2, the 2 classes from 0"),
        (np.full((2, 2), 0.5), [-1, 0], "labels go from -1"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), [0, 0], "1 of 2 videos have scores that are not finite"),
    ],
)
def test_what_cannot_be_measured_is_said(scores: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(scores, np.array(labels, np.int64), names(2))
