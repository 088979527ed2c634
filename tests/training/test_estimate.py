"""What is said of the time of a run is arithmetic on its first steps, and what would shorten it is true of the run."""

import logging
import re
from typing import Any

import pytest
import torch

from vidstill.config import Run, resolve
from vidstill.evaluation.cost import gmacs
from vidstill.models.registry import create_model
from vidstill.training.estimate import Estimate, Work, sentence

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WORK = Work(steps=12_000, sweep=100, several=False, clips=8, validations=120, validated=0, tested=0)


def told(work: Work = WORK, per_step: float = 3.4, waiting: float = 0.0, device: Any = CPU, **more: Any) -> str:
    run = more.get("run") or resolve("ucf101_vfl_net")
    return sentence(run, work, more.get("done", 10), per_step, waiting, 101, device)


def test_the_time_is_that_of_the_steps() -> None:
    line = told()
    assert line.startswith("about 11 h on this machine: 11,990 steps of 3.4 s; shorter: ")  # 40,766 s
    assert told(per_step=0.004) == "", "under a minute nothing is said"
    assert told(per_step=0.01) == "about 2 min on this machine: 11,990 steps of 0.01 s"
    resumed = told(done=6_000)
    assert resumed.startswith("about 5.7 h on this machine: 6,000 of 12,000 steps are left, of 3.4 s each")
    assert told(done=11_990) == "", "with little left nothing is said"


@pytest.mark.parametrize(("waiting", "expected"), [(0.0, 1 / 3), (1.0, 1.0), (0.5, 2 / 3)])
def test_validations_and_the_test_count(waiting: float, expected: float) -> None:
    """36,000 validated and 12,000 tested clips, of which each takes `expected` of the 0.425 s of a training clip."""
    work = Work(12_000, 100, False, 8, 120, 300, 12_000)
    seconds = 0.425 * expected * (36_000 * 11_990 / 12_000 + 12_000)
    found = re.search(r"and about ([\d.]+) h for validation and test", told(work, waiting=waiting))
    assert found and float(found[1]) == pytest.approx(seconds / 3600, abs=0.06)


def test_a_smaller_clip_is_as_much_cheaper_as_its_multiply_adds() -> None:
    run = resolve("ucf101_vfl_net")
    found = re.search(r"--clip.size (\d+) \(about (.+?)\)", told())
    assert found and int(found[1]) == 112
    model = create_model("vfl_net", 101, device="meta", **run.model.options)
    share = gmacs(model, run.clip.model_copy(update={"size": 112})) / gmacs(model, run.clip)
    assert found[2] == "¼" and share == pytest.approx(0.25, abs=0.02)


def test_only_what_applies_is_suggested() -> None:
    assert "a GPU" in told() and "bf16" not in told()
    fp32 = resolve("ucf101_vfl_net", ["--train.precision", "fp32"])
    assert "a GPU" not in told(run=fp32, device=GPU) and "--train.precision bf16" in told(run=fp32, device=GPU)
    assert "bf16" not in told(device=GPU), "the recipe has fp16"
    assert "--train.epochs 60 (about ½)" in told()
    stepped = resolve("k400_slowfast_r50_stepwise")
    assert stepped.optim.schedule == "steps" and "--train.epochs" not in told(run=stepped)
    assert "a smaller network, as " not in told(), "vfl_net is the smallest of its family"
    assert "a smaller network, as video_focalnet_small (about 56 %)" in told(run=resolve("ucf101_video_focalnet_base"))
    tiny = resolve("demo", ["--clip.size", "64"])
    assert "--clip.size" not in told(run=tiny) and "smaller network" not in told(run=tiny)
    patient = resolve("ucf101_vfl_net", ["--train.patience", "3"])
    assert told(run=patient).startswith("at most about 11 h")


def test_where_videos_are_waited_for_smaller_clips_do_not_help() -> None:
    line = told(waiting=0.8)
    assert "80 % of it waits for videos to be read" in line and "--clip.size" not in line and "network" not in line


def test_what_is_suggested_is_taken() -> None:
    for recipe in ("ucf101_vfl_net", "k400_slowfast_r50", "k400_dualformer_tiny", "jester_mobilenetv2_3d"):
        line = told(run=resolve(recipe))
        settings = [word for pair in re.findall(r"(--[\w.]+) ([\w.]+)", line) for word in pair]
        run = resolve(recipe, settings)
        model = create_model(run.model.name, 10, device="meta", **run.model.options)
        assert settings and gmacs(model, run.clip) > 0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def listen(caplog: pytest.LogCaptureFixture, work: Work, steps: list[float], waits: list[float]) -> list[str]:
    """What is said while steps take these seconds, after waiting for so many of them."""
    clock, waited = Clock(), 0.0
    estimate = Estimate(Run(), work, 10, CPU, clock)
    with caplog.at_level(logging.INFO, logger="vidstill"):
        for number, (seconds, wait) in enumerate(zip(steps, waits, strict=True), 1):
            clock.now += seconds
            waited += wait
            estimate.step(number, waited)
    return [record.getMessage() for record in caplog.records]


def test_the_first_two_steps_do_not_count_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = listen(caplog, WORK, [90.0, 30.0, *[1.0] * 60], [80.0, 20.0, *[0.25] * 60])
    assert "11,990 steps of 1 s" in line and "25 % of it waits" in line


def test_short_epochs_and_several_passes_are_measured_over_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    short = Work(3_000, 3, False, 8, 1_000, 0, 0)
    assert "2,997 steps of 0.5 s" in listen(caplog, short, [9.0, 9.0, 0.5, 7.0, 7.0], [0.0] * 5)[0]
    caplog.clear()
    two = Work(8_000, 40, True, 8, 200, 0, 0)
    (line,) = listen(caplog, two, [1.0] * 20 + [3.0] * 20 + [1.0] * 9, [0.0] * 49)
    assert "7,960 steps of 2.1 s" in line  # 18 of 1 s and 20 of 3 s
