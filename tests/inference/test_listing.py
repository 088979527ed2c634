"""Predictions as lists: csv rows that add up to the predictions, and how many of class folders are right."""

import csv
from pathlib import Path

import numpy as np
import pytest

from vidstill.inference.listing import filed, rows, summary, write_windows
from vidstill.inference.predictor import Prediction, WindowScores

CLASSES = ["walk", "=run", "sit down"]


def prediction(source: str, *scores: list[float], none_below: float | None = None) -> Prediction:
    windows = [WindowScores(n / 3, n / 3 + 1, np.array(each)) for n, each in enumerate(scores)]
    return Prediction(source, CLASSES, windows, 1.0, none_below)


def test_every_window_has_a_row(tmp_path: Path) -> None:
    predictions = [
        prediction("videos/a, b.mp4", [0.2, 0.7, 0.1], [0.6, 0.1, 0.3]),
        prediction("c.mp4", [0.3, 0.3, 0.4], none_below=0.5),
    ]
    write_windows(tmp_path / "w.csv", predictions, 2)
    with (tmp_path / "w.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["source", "start", "end", "class", "score", "class_2", "score_2"]
    assert [row["source"] for row in found] == ["videos/a, b.mp4"] * 2 + ["c.mp4"]
    assert [(row["class"], row["score"]) for row in found] == [
        ("'=run", "0.7"), ("walk", "0.6"), ("none of these", "")
    ]  # fmt: skip
    assert [(row["class_2"], float(row["score_2"])) for row in found] == [
        ("walk", 0.2), ("sit down", 0.3), ("sit down", 0.4)
    ]  # fmt: skip
    assert (found[1]["start"], found[1]["end"]) == ("0.333", "1.333")


def test_there_are_no_more_columns_than_classes() -> None:
    header, row = rows([prediction("a.mp4", [0.2, 0.7, 0.1])], 10)
    assert len(header) == len(row) == 3 + 2 * 3
    assert list(rows([], 2)) == [["source", "start", "end", "class", "score", "class_2", "score_2"]]


def test_those_in_class_folders_are_counted_the_weakest_first() -> None:
    predictions = [
        prediction("v/walk/right.mp4", [0.9, 0.05, 0.05]),
        prediction("v/sit down/wrong.mp4", [0.5, 0.3, 0.2]),
        prediction("v/walk/barely.mp4", [0.4, 0.3, 0.3]),
        prediction("v/walk/unsure.mp4", [0.45, 0.3, 0.25], none_below=0.5),
        prediction("v/other/x.mp4", [0.9, 0.05, 0.05]),
        prediction("x.mp4", [0.9, 0.05, 0.05]),
        prediction("rtsp://host/walk/x", [0.9, 0.05, 0.05]),
    ]
    videos = filed(predictions)
    assert [Path(video.source).stem for video in videos] == ["wrong", "unsure", "barely", "right"]
    assert [video.label for video in videos] == ["walk", "none of these", "walk", "walk"]
    assert [video.score for video in videos] == pytest.approx([0.2, 0.45, 0.4, 0.9])
    assert summary(videos) == "2 of 4 right (50.0 %), by the folders that they lie in"
    assert filed(predictions[4:]) == []
