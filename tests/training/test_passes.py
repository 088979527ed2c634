"""Epochs of several passes: who learns when, at which rate, and that a stopped run goes on exactly."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vidstill
from vidstill.config import Clip, Optim, resolve
from vidstill.models.registry import VideoModel
from vidstill.objectives.objective import Objective
from vidstill.tasks.recognition import Recognition
from vidstill.tasks.task import Pass
from vidstill.training import loop
from vidstill.training.checkpoint import read_checkpoint
from vidstill.training.schedules import Schedule

PROBE = Optim(name="adam", lr=0.01, reference_batch=None, schedule="constant", clip_grad=None)


class Guess(Objective):
    """A probe learns to guess the logits from the mean colour, while the network stays as it is."""

    def __init__(self, model: VideoModel, probe: nn.Module) -> None:
        super().__init__()
        self.probe, self.frozen = probe, (model,)
        self.fixed = nn.Parameter(torch.ones(3))

    @property
    def model(self) -> VideoModel:  # type: ignore[override]
        return self.frozen[0]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        with torch.no_grad():
            logits = self.frozen[0](batch["clips"])
        return {"loss": F.mse_loss(self.probe(batch["clips"].mean((2, 3, 4))) * self.fixed.sum(), logits)}


class Follow(Objective):
    """The network learns its classes and to be guessed, while the probe stays as it is; gradients go through it."""

    def __init__(self, model: VideoModel, probe: nn.Module) -> None:
        super().__init__()
        self.model, self.frozen = model, (probe,)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        logits = self.model(batch["clips"])
        away = F.mse_loss(logits, self.frozen[0](batch["clips"].mean((2, 3, 4))))
        return {"loss": F.cross_entropy(logits, batch["targets"]) + 0.1 * away, "away": away}


@pytest.fixture(autouse=True)
def _two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(self: Recognition, model: VideoModel, iterations: int) -> list[Pass]:
        torch.manual_seed(1)
        probe = nn.Linear(3, model.num_classes)
        first = Pass("guess", Guess(model, probe), PROBE, learns=lambda name: name.startswith("probe."))
        return [first, Pass("follow", Follow(model, probe), self.run.optim)]

    monkeypatch.setattr(Recognition, "passes", passes)


def bits(module: nn.Module) -> bytes:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).numpy().tobytes()


def test_each_pass_teaches_its_own_at_its_own_rate(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float, bytes, bytes]] = []
    step = loop.train_step

    def watched(fabric: Any, objective: Any, optimiser: Any, *rest: Any) -> Any:
        terms = step(fabric, objective, optimiser, *rest)
        bare = objective.module
        probe = bare.probe if isinstance(bare, Guess) else bare.frozen[0]
        state = [
            torch.cat([p.detach().flatten() for p in m.parameters()]).numpy().tobytes() for m in (bare.model, probe)
        ]
        seen.append((type(bare).__name__, optimiser.param_groups[0]["lr"], state[0], state[1]))
        return terms

    monkeypatch.setattr(loop, "train_step", watched)
    run = resolve(None, [*small, "--train.epochs", "2"])
    vidstill.train(run)
    iterations = len(seen) // 4
    assert [name for name, *_ in seen] == ([*["Guess"] * iterations, *["Follow"] * iterations]) * 2
    schedule = Schedule(run.optim, 2, iterations, run.train.batch)
    rates = [rate for name, rate, *_ in seen if name == "Follow"]
    assert rates == pytest.approx([schedule.rate(n) for n in range(2 * iterations)])
    assert {rate for name, rate, *_ in seen if name == "Guess"} == {0.01}
    for (_, _, model, probe), (name, _, next_model, next_probe) in itertools.pairwise(seen):
        assert (model == next_model) == (name == "Guess")
        assert (probe == next_probe) == (name == "Follow")


@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_stopped_in_any_pass_it_goes_on_exactly(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    settings = [*small, "--train.save_every", "1", "--train.ema", "0.9"]
    whole = vidstill.train(resolve(None, [*settings, "--name", "whole"]))
    left, step = steps, loop.train_step

    def stopping(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            vidstill.train(resolve(None, [*settings, "--name", "parts"]))
    parts = vidstill.train(resolve(None, [*settings, "--name", "parts"]))
    a, b = read_checkpoint(whole), read_checkpoint(parts)
    assert a is not None and b is not None and a["step"] == b["step"]
    assert a["weights"].keys() == {"guess", "follow"}
    for name, saved in a["weights"].items():
        assert all(torch.equal(value, b["weights"][name]["model"][key]) for key, value in saved["model"].items())
    assert (whole / "predictions.csv").read_bytes() == (parts / "predictions.csv").read_bytes()


def test_each_pass_has_its_own_formats(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes with teachers of their own; one format is wanted by both."""
    run = resolve(None, small)
    wide, long = (run.clip.model_copy(update=update) for update in ({"size": 40}, {"frames": 6}))
    seen: dict[str, list[tuple[int, ...]]] = {}

    def watched(kind: type[Objective], formats: list[Clip]) -> None:
        def prepare(self: Objective, *arguments: Any) -> dict[str, Any]:
            batch = Objective.prepare(self, *arguments)
            seen[kind.__name__] = [tuple(clips.shape[2:]) for clips in batch["teacher_clips"]]
            return batch

        monkeypatch.setattr(kind, "formats", formats)
        monkeypatch.setattr(kind, "prepare", prepare)

    watched(Guess, [wide])
    watched(Follow, [long, wide, run.clip])
    vidstill.train(run)
    assert seen == {"Guess": [(4, 40, 40)], "Follow": [(6, 32, 32), (4, 40, 40), (4, 32, 32)]}


def test_the_curves_name_every_pass(small: list[str]) -> None:
    import json

    folder = vidstill.train(resolve(None, small))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if row["split"] == "train"]
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["guess_loss"]) for row in trained)
