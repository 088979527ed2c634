"""Figures of a test: from the scores of every video to accuracy, confusion and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADLINES = {"mAP": "mAP", "top1": "top-1"}  # in a run folder → in print
MISSED = 0.05  # share of the rightly labelled videos that may score less than what a class needs


@dataclass(frozen=True)
class ClassRow:
    """One line of the per-class table. `confused` is the class its videos are most often taken for instead."""

    name: str
    videos: int
    accuracy: float  # in multi-label data the average precision; nan without videos
    confused: str | None


@dataclass(frozen=True)
class Metrics:
    """Shares are 0..1. `mean_class`: mean accuracy of the classes that have videos; `loss`: mean of -log probability.

    `confusion` (K,K) counts videos, rows true, columns predicted.
    """

    videos: int
    top1: float
    top5: float
    mean_class: float
    loss: float
    calibration_error: float
    confusion: np.ndarray
    classes: list[ClassRow]

    @property
    def figures(self) -> dict[str, float]:
        """The single numbers by the names under which a run folder keeps them."""
        return {name: getattr(self, name) for name in ("loss", "top1", "top5", "mean_class", "calibration_error")}


@dataclass(frozen=True)
class MultiLabelMetrics:
    """Of videos that may have several classes. `mean_average_precision` 0..1: the mean over the classes that occur;
    `loss`: binary cross-entropy, its mean over videos and classes; `chance`: the mAP that scores without meaning have
    on average in a large set, the mean share of videos that a class has.
    """

    videos: int
    mean_average_precision: float
    chance: float
    loss: float
    classes: list[ClassRow]

    @property
    def figures(self) -> dict[str, float]:
        return {"loss": self.loss, "mAP": self.mean_average_precision}


def headline(figures: Mapping[str, Any]) -> tuple[str, float] | None:
    """The figure that models are judged by, mAP or top-1, with its name; None where there is neither."""
    return next(((name, figures[key]) for key, name in HEADLINES.items() if key in figures), None)


def lowest_right_score(scores: np.ndarray, right: np.ndarray, missed: float = MISSED) -> float | None:
    """Of the rows of `scores` (N,K) that are `right` (N,), the highest of their best scores that no more than a share
    of `missed` fall short of; None where there are none.

    >>> lowest_right_score(np.array([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6]]), np.array([True, True, False]))
    0.7
    """
    best = np.sort(scores.max(1)[right])
    return float(best[int(missed * len(best) + 1e-9)]) if len(best) else None


def interval(share: float, videos: int) -> tuple[float, float]:
    """95% interval of a share seen in so many videos (Wilson 1927)."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * videos)) / (1 + z2 / videos)
    half = math.sqrt(share * (1 - share) * z2 / videos + (z2 / (2 * videos)) ** 2) / (1 + z2 / videos)
    return middle - half, middle + half


def per_cent(share: float, digits: int = 1) -> str:
    """As people read a share; nothing for one that is not there (nan).

    >>> per_cent(0.75)
    '75.0 %'
    """
    return "" if math.isnan(share) else f"{100 * share:.{digits}f} %"


def weakest_first(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """Those with videos, the least accurate first; of equals the one with more videos."""
    return sorted((row for row in rows if row.videos), key=lambda row: (row.accuracy, -row.videos, row.name))


def confusions(metrics: Metrics, most: int) -> list[tuple[str, str, int, int]]:
    """The most frequent: true class, what it is taken for, how often, of how many videos."""
    names, wrong = [row.name for row in metrics.classes], metrics.confusion.copy()
    np.fill_diagonal(wrong, 0)
    pairs = [divmod(int(place), len(names)) for place in np.argsort(-wrong, axis=None, kind="stable")[:most]]
    return [(names[i], names[j], int(wrong[i, j]), int(metrics.confusion[i].sum())) for i, j in pairs if wrong[i, j]]


def topk_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of rows of `scores` (N,K) whose label (N,) is among the k highest; of equal scores the first count.

    All rows where k is K or more.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean accuracy of the classes that have videos."""
    confusion = confusion_matrix(scores.argmax(1), labels, scores.shape[1])
    return float(np.diag(confusion_shares(confusion))[confusion.sum(1) > 0].mean())


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Area under precision over recall of each column of `scores` (N,K), `targets` 0 or 1; nan without a 1.

    Equal scores come in together.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked, hits = np.take_along_axis(scores, order, 0), np.take_along_axis(targets, order, 0) > 0
    right = hits.cumsum(0)
    last = np.ones(hits.shape, dtype=bool)
    last[:-1] = ranked[1:] != ranked[:-1]  # of its equals
    columns = []
    for number in range(scores.shape[1]):
        at = np.flatnonzero(last[:, number])
        gained = np.diff(right[at, number], prepend=0)
        with np.errstate(invalid="ignore"):
            columns.append((gained * right[at, number] / (at + 1)).sum() / np.float64(right[-1, number]))
    return np.array(columns)


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Of several labels per video: mean over the classes that occur; scores and targets (N,K)."""
    return float(np.nanmean(average_precision(scores, targets)))


def reliability(scores: np.ndarray, labels: np.ndarray, bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Videos, mean confidence and accuracy in each of `bins` equal bins of confidence; nan where a bin is empty."""
    confidence, correct = scores.max(1).astype(np.float64), scores.argmax(1) == labels
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    videos, sure, right = (np.bincount(which, weights, bins) for weights in (None, confidence, correct))
    with np.errstate(invalid="ignore"):
        return videos, sure / videos, right / videos


def expected_calibration_error(scores: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean over equal bins of confidence, by size, of |accuracy - confidence| (Naeini et al. 2015)."""
    videos, sure, right = reliability(scores, labels, bins)
    return float(np.nansum(videos * abs(right - sure)) / len(labels))


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts (K,K): rows true class, columns predicted class."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def confusion_shares(counts: np.ndarray) -> np.ndarray:
    """Of the videos of each true class, the share that is taken for each class; 0 for a class without videos."""
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def measure(scores: np.ndarray, labels: np.ndarray, classes: list[str]) -> Metrics:
    """All figures for probabilities (N,K) and labels (N,).

    Raises ValueError without a video, for a label that is no class, and for scores that are not finite.
    """
    if len(labels) and (labels.min() < 0 or labels.max() >= len(classes)):
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, the {len(classes)} classes from 0")
    _check_scores(scores)
    confusion = confusion_matrix(scores.argmax(1), labels, len(classes))
    videos = confusion.sum(1)
    with np.errstate(invalid="ignore"):
        accuracy = np.diag(confusion) / videos
    off_diagonal = confusion - np.diag(np.diag(confusion))
    rows = [
        ClassRow(name, int(n), float(share), classes[int(others.argmax())] if others.any() else None)
        for name, n, share, others in zip(classes, videos, accuracy, off_diagonal, strict=True)
    ]
    likelihood = np.clip(scores[np.arange(len(labels)), labels], 1e-12, None)
    return Metrics(
        videos=len(labels),
        top1=topk_accuracy(scores, labels, 1),
        top5=topk_accuracy(scores, labels, 5),
        mean_class=mean_class_accuracy(scores, labels),
        loss=float(-np.log(likelihood).mean()),
        calibration_error=expected_calibration_error(scores, labels),
        confusion=confusion,
        classes=rows,
    )


def measure_multi_label(scores: np.ndarray, targets: np.ndarray, classes: list[str]) -> MultiLabelMetrics:
    """All figures for sigmoids (N,K) and targets (N,K), 0 or 1.

    Raises ValueError without a video, and for scores that are not finite.
    """
    _check_scores(scores)
    precision, videos = average_precision(scores, targets), targets.sum(0)
    right = np.clip(np.where(targets > 0, scores, 1 - scores.astype(np.float64)), 1e-12, None)
    return MultiLabelMetrics(
        videos=len(scores),
        mean_average_precision=mean_average_precision(scores, targets),
        chance=float(videos[videos > 0].mean() / len(scores)),
        loss=float(-np.log(right).mean()),
        classes=[ClassRow(name, int(n), float(p), None) for name, n, p in zip(classes, videos, precision, strict=True)],
    )


def _check_scores(scores: np.ndarray) -> None:
    if not len(scores):
        raise ValueError("no tested video: there is nothing to measure")
    if broken := int((~np.isfinite(scores)).any(1).sum()):
        raise ValueError(f"{broken} of {len(scores)} videos have scores that are not finite: the weights are damaged")
