"""The page is whole, self-contained and safe, whatever the run folder holds."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidstill.config import resolve
from vidstill.data.annotations import Sample
from vidstill.evaluation.predictions import Evaluation, write_predictions
from vidstill.reporting.recognition import interval
from vidstill.reporting.report import write_report

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Every tag closed in order, and every address inside the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.images: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), f"{name}={value}"
            if name in ("src", "href"):
                assert (value or "").startswith("data:image/"), f"{name}={value}"
                self.images.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += f" {data}"


def a_run(folder: Path, classes: int, videos: int, epochs: int = 3, last: str = "") -> Path:
    """A run folder with random predictions of videos that are gone."""
    names = ["<script>alert(1)</script>", *(f"class {n}" for n in range(1, classes))]
    rng = np.random.default_rng(classes)
    samples = [Sample(Path(f"gone & lost/{n}.mp4"), int(rng.integers(classes))) for n in range(videos)]
    write_predictions(folder / "predictions.csv", Evaluation(names, samples, rng.dirichlet(np.ones(classes), videos)))
    rows: list[dict[str, Any]] = []
    for epoch in range(epochs):
        at = {"epoch": epoch, "step": 4 * epoch + 4}
        rows.append({**at, "split": "train", "loss": 2.0 - epoch / 9, "lr": 0.1, "clips_per_s": 9.5})
        rows.append({**at, "split": "val", "loss": math.nan, "top1": epoch / 10, "top5": 0.7})
    broken = [["/d/<i>.mp4", "/d/<i>.mp4: holds no video"]]
    rows.append({"split": "test", "step": 0, "top1": 0.5, "unreadable": 1, "unreadable_videos": broken})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + last)
    run = resolve("ucf101_vfl_net")
    (folder / "config.yaml").write_text(run.to_yaml())
    best = {
        "architecture": {"name": "vfl_net", "num_classes": classes, "options": {}}, "classes": names,
        "input": run.clip.model_dump(mode="json"), "provenance": {"epoch": 1, "seed": 0},
    }  # fmt: skip
    (folder / "best.json").write_text(json.dumps(best))
    return folder


@pytest.mark.parametrize("classes", [2, 12, 30, 101, 400])
def test_a_tested_run_is_shown_whole(tmp_path: Path, classes: int) -> None:
    page = Page(write_report(a_run(tmp_path, classes, 60)))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text, "names are text, not markup"
    for heading in ["Training", "Confusion", "Classes", "Surest", "Calibration", "Unreadable", "Settings"]:
        assert heading in page.text
    assert "/d/<i>.mp4 holds no video" in page.text
    assert "the model kept is that of epoch 2" in page.text
    assert "the video cannot be read any more" in page.text
    assert "sgd" in page.text
    assert ("top-5" in page.text) == (classes > 5), "five of two classes are no achievement"
    assert ("image" in page.tags) == (classes > 60)
    assert not re.search(r"https?://|@import|url\(", page.source)


def test_the_figures_are_those_of_the_predictions(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    scores = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.9, 0.05, 0.05]], np.float32)
    samples = [Sample(Path(f"{n}.mp4"), label) for n, label in enumerate((0, 0, 1, 1))]
    write_predictions(tmp_path / "predictions.csv", Evaluation(names, samples, scores))
    text = Page(write_report(tmp_path)).text
    assert "top-1 75.0 %" in text
    assert "mean class 75.0 % all 2 classes" in text
    assert "baseline 50.0 %" in text
    assert "videos tested 4" in text
    assert "true class taken for videos b a 1 of 2" in text
    assert "Said a 90 %, is b 5 %" in text
    assert "Without test videos: c" in text


def test_mistakes_show_four_frames_of_the_video(tmp_path: Path, embedded: Path) -> None:
    video = next(embedded.rglob("*.mp4"))
    write_predictions(
        tmp_path / "predictions.csv", Evaluation(["a", "b"], [Sample(video, 0)], np.array([[0.1, 0.9]], np.float32))
    )
    page = Page(write_report(tmp_path))
    pictures = [Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))) for image in page.images]
    assert [picture.format for picture in pictures] == ["JPEG"] * 4
    assert {picture.size for picture in pictures} == {(112, 112)}


def test_a_run_without_mistakes_says_so(tmp_path: Path) -> None:
    scored = Evaluation(["a", "b"], [Sample(Path("x.mp4"), 0)], np.array([[0.9, 0.1]], np.float32))
    write_predictions(tmp_path / "predictions.csv", scored)
    text = Page(write_report(tmp_path)).text
    assert "No mistake at all." in text
    assert "Surest mistakes" not in text


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.jsonl", "best.json", "predictions.csv"])
def test_any_part_may_be_missing(tmp_path: Path, missing: str) -> None:
    (a_run(tmp_path, 6, 20) / missing).unlink()
    assert Page(write_report(tmp_path)).text


def test_before_the_test_the_best_validation_is_shown(tmp_path: Path) -> None:
    a_run(tmp_path, 6, 20)
    (tmp_path / "predictions.csv").unlink()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines[:-1]))
    text = Page(write_report(tmp_path)).text
    assert "validation top-1 20.0 %" in text
    assert "not tested yet" in text


def test_one_epoch_and_a_line_cut_short_by_a_crash(tmp_path: Path) -> None:
    page = Page(write_report(a_run(tmp_path, 6, 20, epochs=1, last='{"epoch": 1, "sp')))
    assert "1 epoch, 4 steps" in page.text
    assert "circle" in page.tags


def test_an_empty_folder_still_gives_a_page(tmp_path: Path) -> None:
    text = Page(write_report(tmp_path)).text
    assert tmp_path.name in text
    assert "Neither validated nor tested yet." in text


@pytest.mark.parametrize("damaged", ["predictions.csv", "best.json", "config.yaml"])
def test_a_damaged_file_is_named_on_the_page(tmp_path: Path, damaged: str) -> None:
    (a_run(tmp_path, 6, 20) / damaged).write_text("{ <not> this:")
    text = Page(write_report(tmp_path)).text
    assert f"{damaged} cannot be read: " in text
    assert "Training" in text


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    scored = Evaluation(["a", "b"], [Sample(Path("\udcff.mp4"), 0)], np.array([[0.1, 0.9]], np.float32))
    write_predictions(tmp_path / "predictions.csv", scored)
    assert "?.mp4" in Page(write_report(tmp_path)).text


@pytest.mark.parametrize(("right", "videos"), [(0, 10), (9, 10), (10, 10), (500, 1000)])
def test_the_interval_is_where_the_score_test_turns(right: int, videos: int) -> None:
    """At both ends the observed share is 1.96 standard errors, those of the end, away."""
    low, high = interval(right / videos, videos)
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            assert abs(right / videos - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / videos), rel=1e-6)
    assert low <= right / videos <= high


def test_several_labels_per_video_are_judged_by_average_precision(tmp_path: Path) -> None:
    samples = [Sample(Path("x.mp4"), 1, more=(0,)), Sample(Path("y.mp4"), 0), Sample(Path("z.mp4"), 1)]
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.6, 0.1], [0.5, 0.4, 0.1]], np.float32)
    write_predictions(tmp_path / "predictions.csv", Evaluation(["a", "b", "c"], samples, scores, multi_label=True))
    at = {"epoch": 0, "step": 4, "loss": 0.7}
    rows = [{**at, "split": "train", "lr": 0.1}, {**at, "split": "val", "mAP": 0.375}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = Page(write_report(tmp_path))
    assert "mAP 91.7 % mean average precision of 2 classes" in page.text
    assert "baseline 66.7 %" in page.text and "classes per video 1.3" in page.text
    assert "Validation mAP 37.5 %" in page.text
    assert "class average precision videos b 83 % 2 a 100 % 2" in page.text
    assert "Said a 50 %, is b 40 %" in page.text and "Without test videos: c" in page.text
    assert not any(word in page.text for word in ("top-1", "Confusion", "Calibration"))
    (tmp_path / "predictions.csv").unlink()
    assert "validation mAP 37.5 % one view per video" in Page(write_report(tmp_path)).text


@pytest.mark.parametrize(("told", "flattered"), [
    ({"chosen_on_test": True, "tested_split": "val"}, True),
    ({"chosen_on_test": False, "tested_split": "test"}, False),
    ({}, False),  # of a run that does not say: nothing is inferred
])  # fmt: skip
def test_a_figure_of_the_videos_that_chose_the_epoch_says_so(
    tmp_path: Path, told: dict[str, Any], flattered: bool
) -> None:
    a_run(tmp_path, 6, 20, epochs=7)
    *rows, test = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join([*rows, json.dumps({**json.loads(test), **told})]))
    text = Page(write_report(tmp_path)).text
    assert ("Best of 7 epochs on these very clips; 95 % interval" in text) == flattered, "in the headline"
    assert ("An honest figure needs --data.nested true" in text) == flattered
    assert (f"{told.get('tested_split')} split, 4 × 3 views each" in text) == bool(told)
