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
    multilabel_average_precision,
)

from vidstill.evaluation.metrics import (
    expected_calibration_error,
    headline,
    measure,
    measure_multi_label,
    reliability,
    topk_accuracy,
)


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


def ap_by_hand(scores: np.ndarray, hits: np.ndarray) -> float:
    """Precision where each hit comes in, its mean over the hits; scores without ties."""
    order = sorted(range(len(scores)), key=lambda n: -scores[n])
    found = [place for place, n in enumerate(order, 1) if hits[n]]
    return sum(count / place for count, place in enumerate(found, 1)) / len(found)


@pytest.mark.parametrize("seed", range(5))
def test_multi_label_figures_against_loops_and_libraries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (40, 6)).astype(np.float32)
    targets = (rng.random((40, 6)) < 0.3).astype(np.float32)
    targets[:6] = np.eye(6)
    scores = 1 / (1 + np.exp(-logits))
    m = measure_multi_label(scores, targets, names(6))
    for number, row in enumerate(m.classes):
        assert row.videos == targets[:, number].sum()
        assert row.accuracy == pytest.approx(ap_by_hand(scores[:, number], targets[:, number]))
    p, y = torch.from_numpy(scores), torch.from_numpy(targets).long()
    assert m.mean_average_precision == pytest.approx(multilabel_average_precision(p, y, 6).item(), abs=1e-6)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logits), y.float())
    assert m.loss == pytest.approx(expected.item(), abs=1e-5)
    assert m.chance == pytest.approx(targets.mean())
    assert m.figures == {"loss": m.loss, "mAP": m.mean_average_precision}


def test_a_class_that_never_occurs_counts_in_no_map() -> None:
    scores, targets = np.array([[0.9, 0.2, 0.3], [0.1, 0.8, 0.4]]), np.array([[1, 0, 0], [1, 1, 0]])
    m = measure_multi_label(scores, targets, names(3))
    assert m.mean_average_precision == 1 and m.chance == 0.75
    assert m.classes[2].videos == 0 and math.isnan(m.classes[2].accuracy)
    with pytest.raises(ValueError, match="1 of 2 videos have scores that are not finite"):
        measure_multi_label(np.array([[0.1], [np.inf]]), np.array([[1], [0]]), ["a"])
    with pytest.raises(ValueError, match="nothing to measure"):
        measure_multi_label(np.zeros((0, 2)), np.zeros((0, 2)), names(2))


def test_the_headline_is_map_or_top1() -> None:
    assert headline({"loss": 1.0, "mAP": 0.5}) == ("mAP", 0.5)
    assert headline({"loss": 1.0, "top1": 0.4, "top5": 0.9}) == ("top-1", 0.4)
    assert headline({"loss": 1.0}) is None
