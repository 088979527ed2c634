"""The page is whole, self-contained and safe whatever the run folder holds."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from vidstill.config import resolve
from vidstill.data.annotations import Sample
from vidstill.evaluation.report import write_report
from vidstill.evaluation.views import Evaluation, write_predictions

VOID = {"meta", "img", "br", "line", "polyline", "circle"}


class Page(HTMLParser):
    """Every tag closed in order, and every address inside the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            assert name not in ("src", "href") or (value or "").startswith("data:"), f"{name}={value}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def folder_with(tmp_path: Path, classes: int, videos: int) -> Path:
    names = ["<b>bold</b>", *(f"class {n}" for n in range(1, classes))]
    rng = np.random.RandomState(0)
    samples = [Sample(Path(f"gone & lost/{n}.mp4"), int(rng.randint(classes))) for n in range(videos)]
    scores = rng.dirichlet(np.ones(classes), videos)
    write_predictions(tmp_path / "predictions.csv", Evaluation(names, samples, scores, []))
    rows = [
        {"epoch": 0, "step": 4, "split": "train", "loss": 2.0, "lr": 0.1},
        {"epoch": 0, "step": 4, "split": "val", "loss": float("nan"), "top1": 0.5},
        {
            "split": "test",
            "step": 0,
            "top1": 0.5,
            "videos": videos,
            "unreadable": 1,
            "unreadable_videos": [["x", "x: <i>bad"]],
        },
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "config.yaml").write_text(resolve().to_yaml())
    return tmp_path


@pytest.mark.parametrize("classes", [2, 12, 101])
def test_a_tested_run(tmp_path: Path, classes: int) -> None:
    page = Page(write_report(folder_with(tmp_path, classes, 50)))
    assert "<b>bold</b>" in page.text, "names are text, not markup"
    assert "x: <i>bad" in page.text
    assert "script" not in page.tags
    assert ("img" in page.tags) == (classes > 40), "large matrices are pictures; missing videos have none"


def test_an_empty_folder_still_gives_a_page(tmp_path: Path) -> None:
    assert tmp_path.name in Page(write_report(tmp_path)).text


def test_mistakes_show_their_frames(tmp_path: Path, embedded: Path) -> None:
    video = next(embedded.rglob("*.mp4"))
    scores = np.array([[0.1, 0.9]])
    write_predictions(tmp_path / "predictions.csv", Evaluation(["a", "b"], [Sample(video, 0)], scores, []))
    page = Page(write_report(tmp_path))
    assert "img" in page.tags
    assert "taken for b (90 %)" in " ".join(page.text.split())
