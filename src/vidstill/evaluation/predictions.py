"""The result of a test: probabilities of every video, their file, and the average of several."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from vidstill.data.annotations import Sample, multi_hot
from vidstill.evaluation.metrics import (
    Metrics,
    MultiLabelMetrics,
    confusions,
    headline,
    interval,
    lowest_right_score,
    measure,
    measure_multi_label,
    per_cent,
    weakest_first,
)  # fmt: skip
from vidstill.files import read_csv, write_csv
from vidstill.video.source import Video

# Of predictions.csv; the classes follow. Of multi-label data the second one is "labels", with a ; between classes
COLUMNS = ["path", "label", "predicted", "score"]
MULTI_LABEL_COLUMNS = ["path", "labels", "predicted", "score"]
WEAKEST, CONFUSED = 5, 3  # classes and pairs of classes in a summary
NAMED_AT_MOST = 20  # unreadable videos in a summary; the report has them all


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A test: probabilities (N,K), float32, of the readable videos `samples`, and the others as (path, reason).

    `multi_label`: a video may have several classes, so that mAP is measured.
    """

    classes: list[str]
    samples: list[Sample]
    probabilities: np.ndarray
    unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    multi_label: bool = False

    @property
    def figures(self) -> dict[str, float]:
        """The single numbers by the names under which a run folder keeps them."""
        return self.metrics.figures

    @property
    def headline(self) -> tuple[str, float] | None:
        """The figure that models are judged by, with its name in print."""
        return headline(self.figures)

    @property
    def videos(self) -> int:
        return len(self.samples)

    def write(self, folder: Path) -> None:
        """predictions.csv (see `write_predictions`)."""
        write_predictions(folder / "predictions.csv", self)

    @property
    def paths(self) -> list[Path]:
        return [sample.path for sample in self.samples]

    @cached_property
    def labels(self) -> np.ndarray:
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @cached_property
    def metrics(self) -> Metrics | MultiLabelMetrics:
        if self.multi_label:
            targets = multi_hot(self.samples, len(self.classes))
            return measure_multi_label(self.probabilities, targets, self.classes)
        return measure(self.probabilities, self.labels, self.classes)

    @property
    def none_below(self) -> dict[str, float]:
        """The score that all but 5 % of the videos with a right label have, and how many those are: what a model needs
        to say that something is none of its classes. Empty where no label is right."""
        best = self.probabilities.argmax(1)
        right = np.array([label in sample.labels for label, sample in zip(best, self.samples, strict=True)])
        lowest = lowest_right_score(self.probabilities, right)
        return {} if lowest is None else {"none_below": lowest, "none_below_videos": float(right.sum())}

    def summary(self, split: str = "", views: str = "") -> str:
        """The figures, the videos that the headline is measured on (of what `split`, in what `views`), the weakest
        classes, the commonest confusions, and a line for each video that could not be read."""
        m = self.metrics
        name, value = self.headline or ("loss", m.loss)
        left_out = f", {len(self.unreadable)} unreadable left out" if self.unreadable else ""
        if isinstance(m, Metrics):
            low, high = interval(m.top1, m.videos)
            sure, top5 = f" (95 % interval {100 * low:.1f}–{per_cent(high)})", f"top-5 {per_cent(m.top5)}  "
            figures = f"mean class {per_cent(m.mean_class)}  calibration error {per_cent(m.calibration_error)}"
            figures = top5 + figures if len(m.classes) > 5 else figures
        else:
            sure, figures = "", f"a random order has about {per_cent(m.chance)}"
        videos = " ".join(filter(None, (str(m.videos), split, "video" if m.videos == 1 else "videos")))
        lines = [f"{name} {per_cent(value)}{sure} on {videos}{views and f', {views}'}{left_out}", figures]
        weakest = weakest_first(m.classes)[: min(WEAKEST, len(m.classes) // 2)]
        if weak := [f"{row.name} {100 * row.accuracy:.0f} % of {row.videos}" for row in weakest if row.accuracy < 1]:
            kind = "" if isinstance(m, Metrics) else " average precision"
            lines.append(f"weakest{kind}: {', '.join(weak)}")
        pairs = confusions(m, CONFUSED) if isinstance(m, Metrics) else []
        if pairs:
            told = (f"{true} taken for {taken} ({times} of {videos})" for true, taken, times, videos in pairs)
            lines.append(f"most confused: {', '.join(told)}")
        lines += [f"unreadable: {reason}" for _, reason in self.unreadable[:NAMED_AT_MOST]]
        if (more := len(self.unreadable) - NAMED_AT_MOST) > 0:
            lines.append(f"and {more} more, in the report")
        return "\n".join(lines)


def write_predictions(path: Path, evaluation: Evaluation) -> None:
    """predictions.csv: path, label(s), predicted, score, then the probability of every class, whole or not at all.

    `predicted` is the class with the highest score.
    """
    names = evaluation.classes
    rows: list[list[object]] = [[*(MULTI_LABEL_COLUMNS if evaluation.multi_label else COLUMNS), *names]]
    for sample, scores in zip(evaluation.samples, evaluation.probabilities.astype(np.float32), strict=True):
        best, digits = int(scores.argmax()), scores.astype(str)  # the shortest digits that read back as the same number
        labels = ";".join(names[label] for label in sample.labels)
        rows.append([sample.video, labels, names[best], digits[best], *digits])
    write_csv(path, rows)


def read_predictions(path: Path) -> Evaluation:
    """What `write_predictions` wrote; the videos that could not be read are not in it. Raises ValueError."""
    try:
        header, *rows = read_csv(path)
        names = header[4:]
        multi_label = header[:4] == MULTI_LABEL_COLUMNS
        if not (multi_label or header[:4] == COLUMNS) or not names:
            raise ValueError(f"its columns are {', '.join(header)[:80]}")
        index = {name: number for number, name in enumerate(names)}
        labels = [[index[name] for name in (row[1].split(";") if multi_label else [row[1]])] for row in rows]
        videos = [Video.parse(row[0]) for row in rows]
        samples = [
            Sample(video.path, own[0], more=tuple(own[1:]), start=video.start, end=video.end)
            for video, own in zip(videos, labels, strict=True)
        ]
        scores = np.array([row[4:] for row in rows], dtype=np.float32).reshape(len(rows), len(names))
    except (KeyError, IndexError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} holds no predictions as `vidstill test` writes them ({type(error).__name__}: {error}): test again"
        ) from None
    return Evaluation(names, samples, scores, multi_label=multi_label)


def ensemble(parts: Sequence[Evaluation], weights: Sequence[float] | None = None) -> Evaluation:
    """Several tests of the same videos as one: the weighted mean of their probabilities.

    The order of the videos may differ. Raises ValueError where videos, labels or classes do.
    """
    weights = list(weights or [1.0] * len(parts))
    if len(weights) != len(parts) or not sum(weights) > 0:
        raise ValueError(f"{len(weights)} weights for {len(parts)} predictions: give one each, of a positive sum")
    first = parts[0]
    place = {sample.video: number for number, sample in enumerate(first.samples)}
    total = np.zeros(first.probabilities.shape)
    for number, (part, weight) in enumerate(zip(parts, weights, strict=True), 1):
        if part.classes != first.classes:
            raise ValueError(f"predictions {number} are of other classes than the first: only the same can be averaged")
        labels, others = ({s.video: s.labels for s in each.samples} for each in (first, part))
        if labels != others or part.multi_label != first.multi_label:
            raise ValueError(
                f"predictions {number} are of other videos or labels than the first: test on the same list"
            )
        total[[place[sample.video] for sample in part.samples]] += weight * part.probabilities
    return dataclasses.replace(first, probabilities=(total / sum(weights)).astype(np.float32), unreadable=[])
