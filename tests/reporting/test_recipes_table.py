"""What `vidstill recipes` says of training is the arithmetic that docs/models.md states, of the recipe as it is."""

import re
from pathlib import Path

import pytest

from vidstill import cli
from vidstill.config import recipe_names, resolve
from vidstill.models.catalogue import CATALOGUE, CLASSES, TRAINING_VIDEOS, configurations
from vidstill.reporting.recipes import memory, seconds, table

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def told(name: str) -> tuple[float, float]:
    row, run = configurations(name)[name], resolve(name)
    return memory(row, run), seconds(row, run)


def test_memory_and_time_of_a_plain_recipe() -> None:
    """vfl_net on UCF101: 22.2 M parameters, SGD, 8 clips of 642 MB, 27.1 GMACs, in fp16."""
    row = configurations("ucf101_vfl_net")["ucf101_vfl_net"]
    held, took = told("ucf101_vfl_net")
    assert held == pytest.approx(16 * row.parameters + 8 * 641.6e6 / 2)
    assert took == pytest.approx(9_537 * 120 * 3 * 2 * 27.141e9 / 20e12, rel=1e-3)


def test_a_teacher_adds_its_weights_and_its_forward_pass() -> None:
    alone, taught = told("ucf101_vfl_net"), told("ucf101_dvfl_net")
    teacher = configurations("ucf101_video_focalnet_base")["ucf101_video_focalnet_base"]
    assert taught[0] - alone[0] == pytest.approx(4 * teacher.parameters, rel=0.01)
    assert taught[1] - alone[1] == pytest.approx(9_537 * 120 * 2e9 * teacher.training_gmacs / 20e12, rel=0.01)
    plain, labelled = told("k400_dualformer_tiny"), told("k400_dualformer_tiny_token_labels")
    forward = 240_000 * 30 * 2e9 * CATALOGUE["dualformer_base"].gmacs / 20e12
    assert labelled[1] - plain[1] == pytest.approx(forward, rel=0.01)


def test_light_networks_take_as_long_as_their_videos_are_read() -> None:
    assert told("k400_shufflenetv2_3d_w025")[1] == pytest.approx(240_000 * 250 * 0.163 / 16)


def test_the_measured_seconds_are_those_of_the_benchmarks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "| 17.4 |" in page and "| 163.0 |" in page
    assert "17 ms of a core, 163 ms" in PAGE and "20 TFLOP/s and 1 TB/s beside 16 cores" in PAGE


def test_classes_follow_the_time() -> None:
    classes = {"minutes, CPU": 0, "hours, CPU": 1, "GPU-hours": 2, "GPU-days": 3, "GPU-weeks": 4, "GPU-months": 5}
    listed = table()
    names, times = ([cell.shown for cell in listed[title]] for title in ("recipe", "time"))
    assert names == recipe_names() and {*times} <= {*classes}
    order = sorted(zip((told(name)[1] for name in names), (classes[time] for time in times), strict=True))
    assert [rank for _, rank in order] == sorted(rank for _, rank in order)
    days = {name: told(name)[1] / 86400 for name in names}
    for name, time in zip(names, times, strict=True):
        low, high = {"GPU-hours": (0, 1), "GPU-days": (1, 14), "GPU-weeks": (14, 60)}.get(time, (0, 1))
        assert low <= days[name] < high


def test_every_data_set_of_a_recipe_has_its_count() -> None:
    assert TRAINING_VIDEOS.keys() == CLASSES.keys()


def test_patterns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["recipes", "ucf101_*"])
    shown = capsys.readouterr().out
    assert shown.count("ucf101_") == sum(name.startswith("ucf101_") for name in recipe_names()) and "k400" not in shown
    with pytest.raises(SystemExit):
        cli.main(["recipes", "ucf101_vfl"])
    assert "did you mean ucf101_vfl_net?" in capsys.readouterr().err


@pytest.mark.parametrize(("columns", "titles"), [
    (80, ["recipe", "top-1 %", "clip", "memory", "time"]),
    (200, ["recipe", "data set", "network", "top-1 %", "clip", "memory", "time"]),
])  # fmt: skip
def test_the_list_fits(
    columns: int, titles: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    cli.main(["recipes"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert re.split(r" {2,}", head.strip()) == titles
    assert len(lines) == len(recipe_names()), "one line each"
    assert max(map(len, lines)) <= columns
