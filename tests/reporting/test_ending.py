"""What the terminal says last is what the run folder holds, and what it says to type is taken."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from vidstill import cli
from vidstill.config import Run
from vidstill.data.annotations import Sample
from vidstill.evaluation.predictions import Evaluation
from vidstill.reporting.ending import ending
from vidstill.reporting.log import Log
from vidstill.tasks.testing import record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run that tested four videos, one of which could not be read."""
    home = tmp_path / "my runs" / "r"
    home.mkdir(parents=True)
    return home


def told_of(folder: Path, split: str = "test", chosen: bool = False) -> str:
    samples = [Sample(folder / "videos" / f"{n}.mp4", n % 2) for n in range(3)]
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], np.float32)
    unreadable = [("gone.mp4", "gone.mp4: no such video")]
    record(folder, Evaluation(["a", "b"], samples, scores, unreadable), Run(), split=split, chosen=chosen)
    return ending(folder)


def test_figure_videos_and_views(folder: Path) -> None:
    first, *_ = told_of(folder).splitlines()
    assert first.startswith("top-1 66.7 % (95 % interval ")
    assert first.endswith(" on 3 test videos, 4 × 3 views each, 1 unreadable left out")
    assert "unreadable: gone.mp4: no such video" in told_of(folder)


def test_a_figure_on_the_videos_that_chose_the_epoch_is_called_too_good(folder: Path) -> None:
    Log(folder, keep=lambda row: True).write({"split": "val", "step": 1, "top1": 0.5})
    told = told_of(folder, split="val", chosen=True)
    assert "on 3 validation videos" in told and "the figures are too good" in told and "--data.nested true" in told
    assert "too good" not in told_of(folder)


@pytest.mark.parametrize("inside", [True, False])
def test_the_next_commands_are_taken_as_they_stand(inside: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = folder.parent / "teacher"
    teacher.mkdir()
    known = [{"source": str(teacher)}, {"source": "released.pth"}, {"source": "hf://owner/repo/gone.pth"}]
    (folder / "teachers.json").write_text(json.dumps(known))
    if inside:
        monkeypatch.chdir(folder.parent.parent)
    told = told_of(folder)
    assert told.isprintable() or "\n" in told
    predict, bench = (line.removeprefix("next:").strip() for line in told.splitlines()[-2:])
    expected = "my runs/r" if inside else str(folder)
    assert shlex.split(predict)[1:] == ["predict", f"{expected}/videos/0.mp4", "--model", expected]
    assert shlex.split(bench)[1:] == ["bench", expected, "my runs/teacher" if inside else str(teacher)]
    taken = []

    def instead(sources: cli.tyro.conf.Positional[tuple[str, ...]], *, model: str) -> None:
        taken.append((sources, model))

    monkeypatch.setitem(cli.VERBS, "predict", instead)
    cli.main(shlex.split(predict)[1:])
    assert taken == [((f"{expected}/videos/0.mp4",), expected)]


def test_a_run_without_videos_to_test_on_says_so(folder: Path) -> None:
    assert ending(folder).splitlines()[0] == "not tested: there are neither test nor validation videos"
    assert ending(folder).splitlines()[-1].startswith("next: vidstill predict VIDEO --model ")


def test_a_test_on_other_videos_names_no_next_command(folder: Path) -> None:
    other = folder / "tests" / "elsewhere"
    other.mkdir(parents=True)
    assert "next:" not in told_of(other, split="all") and " on 3 videos, 4 × 3" in told_of(other, split="all")
