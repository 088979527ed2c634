"""Multigrid training: properties of its plans, and a run whose phases change clips, batches and norms."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vidstill
from vidstill.config import resolve
from vidstill.data.loader import EpochBatches, cut
from vidstill.models.subnorm import Norm, SubNorm
from vidstill.training import loop
from vidstill.training.checkpoint import read_checkpoint
from vidstill.training.multigrid import eval_epochs, long_phases, long_rates, multigrid_run, norm_splits, short_cycle

GRID = ["--optim.schedule", "steps", "--optim.milestones", "[0, 2]", "--optim.factors", "[1, 0.1]",
        "--optim.reference_batch", "null", "--train.epochs", "3", "--multigrid.long", "--multigrid.short"]  # fmt: skip


class Stopped:
    """A training step that works `steps` times."""

    def __init__(self, steps: int) -> None:
        self.left, self.step = steps, loop.train_step

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.step(*arguments)


@given(
    frames=st.sampled_from([8, 16, 32]),
    size=st.sampled_from([64, 112, 224]),
    first=st.integers(10, 90),
    rest=st.integers(5, 40),
    short=st.booleans(),
)
def test_phases_end_in_order_with_full_clips(frames: int, size: int, first: int, rest: int, short: bool) -> None:
    phases = long_phases([0, first], first + rest, frames, size, short=short)
    assert [phase.end for phase in phases] == sorted(phase.end for phase in phases)
    assert phases[-1][1:4] == (1, frames, size)
    assert abs(phases[-1].end - 1.5 * (first + rest)) <= 1
    assert all(phase.frames * phase.size**2 * phase.scale <= 1.3 * frames * size**2 for phase in phases)
    milestones, factors = long_rates(phases, 0.1)
    assert len(milestones) == len(factors) == len(phases) + 1
    assert eval_epochs(phases) >= {phase.end - 1 for phase in phases if phase.end}


@pytest.mark.parametrize(("clips", "splits"), [(64, 8), (16, 2), (12, 1), (8, 1), (4, 1), (1, 1)])
def test_norms_see_eight_clips(clips: int, splits: int) -> None:
    assert norm_splits(clips) == splits


@given(length=st.integers(0, 200), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3))
def test_batches_are_cut_without_gaps(length: int, sizes: list[int]) -> None:
    rows = cut(length, sizes)
    assert [first for first, *_ in rows] == [sum(n for _, n, _ in rows[:i]) for i in range(len(rows))]
    assert [(n, place) for _, n, place in rows] == [(sizes[i % len(sizes)], i % len(sizes)) for i in range(len(rows))]
    assert 0 <= length - sum(n for _, n, _ in rows) < sizes[len(rows) % len(sizes)]


def test_ranks_share_a_cycle() -> None:
    cycle = short_cycle(2, 112, 112)
    alone = list(EpochBatches(40, 4, 3, cycle=[(2 * clips, side) for clips, side in cycle]))
    ranks = [list(EpochBatches(40, 2, 3, rank, 2, cycle)) for rank in range(2)]
    for together, *parts in zip(alone, *ranks, strict=True):
        assert sorted(together) == sorted(key for part in parts for key in part)


def test_what_multigrid_cannot_follow_is_refused() -> None:
    with pytest.raises(ValueError, match=r"which train\.ema cannot follow"):
        resolve(None, ["--multigrid.short", "--train.ema", "0.9"])
    with pytest.raises(ValueError, match=r"optim\.schedule is cosine: set it to steps"):
        multigrid_run(resolve(None, ["--multigrid.long"]))


def test_short_cycles_alone_take_any_schedule() -> None:
    run = resolve(None, ["--multigrid.short", "--train.epochs", "10"])
    whole, (phase,) = multigrid_run(run)
    assert (whole.train.epochs, phase.end, run.train.epochs) == (15, 15, 10)


def test_a_run_goes_through_its_phases_and_goes_on_after_a_stop(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ["--model.name", "slowfast_r50", "--model.options", "{width: 8, depths: [1, 1, 1, 1], alpha: 2, beta: 4}"]
    clip = ["--clip.frames", "8", "--clip.size", "32", "--clip.sampling", "timed_window", "--clip.views", "torch"]
    jitter = ["--augment.crop", "scaled", "--augment.scales", "[36, 44]", "--train.precise_norms", "2"]
    settings = [*small, *model, *clip, *jitter, *GRID, "--train.batch", "2", "--multigrid.norm_batch", "4"]
    whole = vidstill.train(resolve(None, [*settings, "--name", "whole"]))
    for steps in (2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_step", Stopped(steps))
            with pytest.raises(KeyboardInterrupt):
                vidstill.train(resolve(None, [*settings, "--name", "parts", "--train.save_every", "2"]))
    parts = vidstill.train(resolve(None, [*settings, "--name", "parts", "--train.save_every", "2"]))
    one, other = vidstill.load(whole).state_dict(), vidstill.load(parts).state_dict()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if row["split"] == "train"]
    run, phases = multigrid_run(resolve(None, settings))
    assert len(trained) == run.train.epochs == phases[-1].end
    assert {row["epoch"] for row in rows if row["split"] == "val"} == eval_epochs(phases)
    state = read_checkpoint(whole)
    assert state is not None and state["step"] == trained[-1]["step"]
    assert not any("split_bn" in key for key in vidstill.load(whole).state_dict())


def test_split_norms_read_any_state() -> None:
    torch.manual_seed(0)
    norm = Norm(3).train()
    norm(torch.randn(4, 3, 2, 2, 2))
    split = SubNorm(Norm(3), 2)
    split.load_state_dict(norm.state_dict())
    assert torch.equal(split.split_bn.running_mean.view(2, 3)[1], norm.running_mean)  # type: ignore[union-attr, arg-type]
    other = SubNorm(Norm(3), 4)
    other.load_state_dict(split.state_dict())
    back = Norm(3)
    back.load_state_dict(other.state_dict())
    assert all(torch.equal(back.state_dict()[key], value) for key, value in norm.state_dict().items())


def test_epochs_that_end_before_the_last_milestone(caplog: pytest.LogCaptureFixture) -> None:
    """As the released GhostNet: the plan goes back, and what lies beyond its end is not trained."""
    run, phases = multigrid_run(resolve("k400_slowfast_ghostnet"))
    assert "beyond train.epochs 100" in caplog.text
    assert run.train.epochs == phases[-1].end < phases[-2].end
    assert max(eval_epochs(phases)) == run.train.epochs - 1
