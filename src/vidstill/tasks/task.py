"""What a task is: all that differs between recognising and, say, detecting, held by `train` and `test`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vidstill.config import Optim, Run
from vidstill.data.dataset import TrainClips
from vidstill.models.registry import VideoModel
from vidstill.objectives.objective import Objective

Report = Callable[[dict[str, Any]], None]
Figures = dict[str, float]


def ignore(event: dict[str, Any]) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Pass:
    """One sweep over the training batches of an epoch. Plain training has one, generative distillation two.

    `objective` says what is learned, `learns` which of its parameters do (by name; all that want gradients), `optim`
    with which optimiser and schedule. The model of an epoch's last pass is the one that is validated and saved.
    """

    name: str
    objective: Objective
    optim: Optim
    learns: Callable[[str], bool] = lambda name: True


class Result(Protocol):
    """What a test found: single numbers, the one to judge by, the files and the sections of a report."""

    @property
    def figures(self) -> Figures:
        """By the names under which a run folder keeps them; shares are 0..1."""

    @property
    def headline(self) -> tuple[str, float] | None:
        """The figure that models are judged by, with its name in print."""

    @property
    def videos(self) -> int:
        """How many were tested."""

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """Videos that could not be read, and why."""

    def summary(self, split: str = "", views: str = "") -> str:
        """For the terminal; `split` and `views` say what was tested."""

    def write(self, folder: Path) -> None:
        """The predictions, as files."""


class Task(Protocol):
    """Data, passes, validation and test of one kind of run. Made by `tasks.task_of(run)`."""

    splits: dict[str, Any]  # samples of "train", and where there are such of "val" and "test"
    workers: int  # loader processes
    workers_reason: str

    def build_model(self) -> VideoModel:
        """The network with its starting weights, class names and input."""

    def training_clips(self) -> TrainClips:
        """The data set of training samples."""

    def passes(self, model: VideoModel, iterations: int) -> Sequence[Pass]:
        """Those of an epoch of so many batches each. Raises ValueError for a teacher that does not fit."""

    def validate(self, model: VideoModel) -> Figures:
        """After an epoch, on the validation videos."""

    def test(self, model: VideoModel, split: str, report: Report = ignore) -> Result:
        """On a split, with the views of the run's test."""


def tested_split(splits: dict[str, Any]) -> str | None:
    """The split that a test reports: the test videos, else those of the validation; None where there are neither."""
    return next((name for name in ("test", "val") if splits.get(name)), None)


def chosen_on_test(run: Run, splits: dict[str, Any]) -> bool:
    """Whether the epoch that is tested was chosen on the very videos of the test: its figure is then too good."""
    return tested_split(splits) == "val" and run.train.epochs > 1
