"""Predictions as lists: the rows of a csv, and how many of the videos in class folders are labelled rightly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vidstill.evaluation.metrics import per_cent
from vidstill.files import write_csv
from vidstill.inference.live import is_live
from vidstill.inference.predictor import Prediction


class Filed(NamedTuple):
    """A video in a folder named after the class `own`, which scores `score`; it was labelled `label`."""

    source: str
    own: str
    score: float
    label: str

    @property
    def right(self) -> bool:
        return self.label == self.own


def filed(predictions: Sequence[Prediction]) -> list[Filed]:
    """Those of the predictions whose video lies in a folder that is named after a class of the model, the one whose
    own class scores least first."""
    found = []
    for prediction in predictions:
        own = Path(prediction.source).parent.name
        if own in prediction.classes and not is_live(prediction.source):
            score = float(prediction.probabilities[prediction.classes.index(own)])
            found.append(Filed(prediction.source, own, score, prediction.label))
    return sorted(found, key=lambda video: (video.right, video.score))


def summary(videos: Sequence[Filed]) -> str:
    """How many are right.

    >>> summary([Filed("walk/a.mp4", "walk", 0.9, "walk"), Filed("walk/b.mp4", "walk", 0.1, "run")])
    '1 of 2 right (50.0 %), by the folders that they lie in'
    """
    right = sum(video.right for video in videos)
    return f"{right} of {len(videos)} right ({per_cent(right / len(videos))}), by the folders that they lie in"


def rows(predictions: Sequence[Prediction], k: int) -> Iterator[list[object]]:
    """The columns source, start, end (seconds), class, score, class_2, score_2 … of the k likeliest; then a row for
    each window. A class that is none of these has no score, and the best one is the second."""
    k = min(k, max((len(prediction.classes) for prediction in predictions), default=k))
    names = [(f"class{number}", f"score{number}") for number in ["", *(f"_{place}" for place in range(2, k + 1))]]
    yield ["source", "start", "end", *(name for pair in names for name in pair)]
    for prediction in predictions:
        for window in prediction.windows:
            ranked = prediction.named(window.probabilities, k)
            scores = [(name, "" if math.isnan(score) else round(score, 6)) for name, score in ranked]
            times = round(window.start, 3), round(window.end, 3)
            yield [prediction.source, *times, *(cell for pair in scores for cell in pair)]


def write_windows(path: Path, predictions: Sequence[Prediction], k: int) -> None:
    """`rows` as a csv, whole or not at all."""
    write_csv(path, rows(predictions, k))
