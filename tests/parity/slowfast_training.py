"""Runners of the SlowFast goldens about training: multigrid, rates, groups, batch norm, steps."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from fill import clip
from focal_training import first_gradient_norms
from lightning_fabric import Fabric
from reading import formula, named
from slowfast_model import build_from_overrides, filled
from torch import nn

from vidstill.config import Multiplier, Optim, Run
from vidstill.data.loader import EpochBatches, cut
from vidstill.data.transforms import jitter_scales
from vidstill.objectives.recognise import Recognise
from vidstill.training.loop import train_step
from vidstill.training.multigrid import (
    Phase,
    eval_epochs,
    longest_interval,
    multigrid_run,
    norm_splits,
    short_cycle,
)
from vidstill.training.optim import make_optimiser, parameter_groups
from vidstill.training.schedules import Schedule, exact_rate
from vidstill.training.statistics import precise_statistics

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]

log = logging.getLogger(__name__)

POLICIES = {"cosine": "exact_cosine", "steps_with_relative_lrs": "steps"}


def run_settings(source: Golden) -> Run:
    """The part of a run that a golden's solver settings describe."""
    optim = {
        "lr": source["BASE_LR"],
        "schedule": POLICIES[source["LR_POLICY"]],
        "milestones": source["STEPS"],
        "factors": source["LRS"],
        "warmup_epochs": source["WARMUP_EPOCHS"],
        "warmup_lr": source["WARMUP_START_LR"],
        "reference_batch": None,
        "decay_rate": source.get("GAMMA", 0.1),
    }
    values: Golden = {"optim": optim, "train": {"epochs": source["MAX_EPOCH"]}}
    if "NUM_FRAMES" in source:
        values["clip"] = {
            "frames": source["NUM_FRAMES"],
            "size": source["TRAIN_CROP_SIZE"],
            "interval": source["SAMPLING_RATE"],
            "sampling": "dense",
        }
        values["augment"] = {"crop": "scaled", "scales": source["JITTER"]}
        names = {
            "SHORT_CYCLE": "short",
            "LONG_CYCLE": "long",
            "EPOCH_FACTOR": "epoch_factor",
            "BN_BASE_SIZE": "norm_batch",
        }
        values["multigrid"] = {ours: source[name] for name, ours in names.items() if name in source}
    return Run.model_validate(values)


def multigrid(golden: Golden, arrays: Arrays) -> None:
    cases = [case for case in golden.values() if isinstance(case, dict)]
    assert cases
    for case in cases:
        source = case["source"]
        run = run_settings(source)
        whole, phases = multigrid_run(run)
        if source["LONG_CYCLE"]:
            assert [[p.interval, [p.scale, p.frames, p.size], p.end] for p in phases] == case["schedule"]
        else:
            assert case["schedule"] is None and len(phases) == 1
        assert whole.optim.milestones == case["STEPS"] and whole.train.epochs == case["MAX_EPOCH"]
        assert whole.optim.factors == pytest.approx(case["LRS"], rel=1e-12)
        halves = [exact_rate(whole.optim, whole.train.epochs, n / 2) for n in range(2 * whole.train.epochs)]
        assert halves == pytest.approx(case["lr_at_half_epochs"], rel=1e-9)
        schedule = Schedule(whole.optim, whole.train.epochs, 2, 1)
        assert [schedule.rate(n) for n in range(len(halves))] == pytest.approx(halves, rel=1e-12)
        if source["LONG_CYCLE"]:
            assert sorted(eval_epochs(phases)) == case["eval_epochs_0based"] == case["checkpoint_epochs_0based"]
        for key, rows in case.items():
            if key.startswith("transitions_num_gpus_"):
                transitions(run, phases, rows, int(key.rsplit("_", 1)[1]), source["BATCH_SIZE"])


def transitions(run: Run, phases: list[Phase], rows: list[Golden], processes: int, batch: int) -> None:
    begins = [0, *(phase.end for phase in phases[:-1])]
    by_epoch = dict(zip(begins, phases, strict=True))
    if run.multigrid.long:
        shapes = [(phase.frames, phase.size) for phase in phases]
        changed = {
            begin
            for begin, now, before in zip(begins, shapes, [(0, 0), *shapes], strict=False)
            if now != before and begin < phases[-1].end
        }
        assert {row["epoch"] for row in rows if row["changed"]} == changed
    for row in rows:
        phase = by_epoch[row["epoch"]]
        clips = batch * phase.scale
        assert (row["BATCH_SIZE"], row["NUM_FRAMES"], row["TRAIN_CROP_SIZE"]) == (clips, phase.frames, phase.size)
        splits = norm_splits(clips / processes, run.multigrid.norm_batch)
        share = clips / processes / run.multigrid.norm_batch
        if row["NORM_TYPE"] == "sub_batchnorm":
            assert share > 1 and splits == row["NUM_SPLITS"]
        elif row["NORM_TYPE"] == "sync_batchnorm":  # the release joins the norms of several devices; ours stay apart
            assert share < 1 and splits == 1 and row["NUM_SYNC_DEVICES"] == int(1 / share)
        else:
            assert share == splits == 1
        interval = run.clip.interval
        assert longest_interval(interval, phase.frames, run.clip.frames) == row["LONG_CYCLE_SAMPLING_RATE"]
        cycle = short_cycle(clips // processes, phase.size, run.clip.size)
        assert [each for each, _ in cycle] == row["short_cycle_batch_per_gpu"]
        assert [side for _, side in cycle] == row["short_cycle_crop"]
        least = [jitter_scales(run.augment, side, run.clip.size)[0] for _, side in cycle]
        assert least == row["short_cycle_min_scale"]


def shortcycle(golden: Golden, arrays: Arrays) -> None:
    cases = [case for case in golden.values() if isinstance(case, dict)]
    assert cases
    for case in cases:
        n, batch, drop = case["dataset_size"], case["batch_size"], case["drop_last"]
        cycle = short_cycle(batch, case["TRAIN_CROP_SIZE"], case["DEFAULT_S"])
        sizes = [clips for clips, _ in cycle]
        assert sizes == case["batch_sizes"]
        batches = cut(n, sizes)
        begun = sum(rows for _, rows, _ in batches)
        if begun < n and not drop:  # what is left we keep for the next epoch
            batches.append((begun, n - begun, len(batches) % len(sizes)))
        assert [list(row) for row in batches] == case["batches"]
        mean = sum(sizes) / len(sizes)
        assert case["reported_len"] == (int(n / mean) if drop else int(np.ceil(n / mean)))
        if drop:
            sampler = EpochBatches(n, batch, seed=0, cycle=cycle)
            drawn = list(sampler)
            assert len(drawn) == len(sampler) == len(batches)
            assert [len(keys) for keys in drawn] == [size for _, size, _ in batches]
            assert [{key[2] for key in keys} for keys in drawn] == [{cycle[i][1]} for *_, i in batches]


def lr(golden: Golden, arrays: Arrays) -> None:
    cases = [case for case in golden.values() if isinstance(case, dict)]
    assert cases
    for case in cases:
        run = run_settings(case["solver"])
        rates = [exact_rate(run.optim, run.train.epochs, epoch) for epoch in case["epochs"]]
        assert rates == pytest.approx(case["lr"], rel=1e-9, abs=1e-15)


def optim_groups(golden: Golden, arrays: Arrays) -> None:
    cases = [case for case in golden.values() if isinstance(case, dict)]
    assert cases
    for case in cases:
        model = build_from_overrides(case["yaml"], case["overrides"])
        names = {parameter: name for name, parameter in model.named_parameters()}
        decay, of_norms = case["WEIGHT_DECAY"], case["BN_WEIGHT_DECAY"]
        assert decay > 0 and decay != of_norms
        multipliers = {"bn": Multiplier(decay=of_norms / decay)}
        groups = parameter_groups(model, Optim(weight_decay=decay, multipliers=multipliers))
        spared = [names[p] for group in groups if group["weight_decay"] == of_norms for p in group["params"]]
        decayed = {names[p] for group in groups if group["weight_decay"] == decay for p in group["params"]}
        assert spared == case["bn_group"] and len(names) == case["num_params"] == len(spared) + len(decayed)
        norms = [p for m in model.modules() if isinstance(m, nn.BatchNorm3d) for p in m.parameters()]
        assert [names[p] for p in norms if names[p] in decayed] == case["bn_affine_in_decay_group"]


def precise_bn(golden: Golden, arrays: Arrays) -> None:
    channels = golden["channels"]
    prefixes, drawn = (re.findall(text, golden["recipe"]) for text in (r"fill\('(.*?)' ?\+", r"batch i = (.*?);"))
    net = nn.Sequential(nn.BatchNorm3d(channels), nn.ReLU(), nn.BatchNorm3d(channels))
    shapes = {k: list(v.shape) for k, v in net.state_dict().items() if v.is_floating_point()}
    net.load_state_dict(filled(shapes, *prefixes), strict=False)
    about = {"seed": golden["seed"], "n": golden["batch"], "c": channels}
    batches = [torch.from_numpy(formula(*drawn, i=i, **about)) for i in range(golden["num_batches"])]
    precise_statistics(net.eval(), batches)
    for key in arrays:
        np.testing.assert_allclose(net.state_dict()[key], arrays[key], rtol=0, atol=golden["tolerance"], err_msg=key)
    assert not net.training and net[0].momentum == 0.1


class Steps(NamedTuple):
    logits: torch.Tensor  # of the first step
    losses: list[float]
    gradients: dict[str, float]  # norms of the first step
    state: dict[str, float]  # norms after the last


# Relative noise of the clips that a golden's steps are tried with: none, then from what float32 makes of the input to
# what it makes of the logits.
NOISE = (0.0, 1e-7, 3e-7, 1e-6)


def train_steps(golden: Golden, arrays: Arrays) -> None:
    """Steps on the same batch by the product's own optimiser, of which the first gives what the golden says.

    Batch norm over four places of a few clips: an activation that is zero but for rounding falls on either side of its
    ReLU and moves gradients by percents, and a later step makes 1e-4 of what was 1e-6. What comes before the first
    gradient is held to the golden's tolerance at once. For what comes after, the golden is one draw of what rounding
    makes: at most four clips, which differ by rounding, are other draws, and the later losses and all but one in a
    hundred norms must be as near to these, in each figure, as these are to each other, or within the golden's
    tolerance. How many clips it took is logged.
    """
    ((state_name, count),) = [
        (name, int(found[1])) for name in golden if (found := re.fullmatch(r"state_norms_after_(\d+)_steps", name))
    ]
    assert count == len(golden["losses"])
    of_loss, of_norms = named(golden["tolerance"], "loss"), named(golden["tolerance"], "norms")
    gradients = Envelope(golden["grad_norms_step1"], of_norms)
    state = Envelope(golden[state_name], of_norms)
    losses = Envelope({f"loss {i}": loss for i, loss in enumerate(golden["losses"][1:], 2)}, of_loss)
    x = torch.from_numpy(clip(golden["seed"], tuple(golden["shape"])))
    for tried, noise in enumerate(NOISE, 1):
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(tried))
        run = steps(golden, x * (1 + noise * drawn))
        np.testing.assert_allclose(run.logits, arrays["train_logits"], rtol=1e-3, atol=1e-4)
        assert run.losses[0] == pytest.approx(golden["losses"][0], rel=of_loss)
        assert run.gradients.keys() == golden["grad_norms_step1"].keys()
        outside = [*gradients.take(run.gradients), *state.take(run.state)]
        far = losses.take({f"loss {i}": loss for i, loss in enumerate(run.losses[1:], 2)})
        log.info(
            "%s: %d clips, %d of %d norms and %d of %d later losses out of reach", golden["yaml"], tried,
            len(outside), len(gradients.names) + len(state.names), len(far), len(losses.names),
        )  # fmt: skip
        if not far and len(outside) <= (len(gradients.names) + len(state.names)) / 100:
            return
    raise AssertionError(f"out of reach of {len(NOISE)} clips within rounding of the golden's: {far} {outside}")


class Envelope:
    """From the least to the largest of each figure so far, and as much again to either side; at least a share of what
    is expected."""

    def __init__(self, expected: dict[str, float], tolerance: float) -> None:
        self.expected = np.array(list(expected.values()))
        self.names = list(expected)
        # a figure that is 0 but for rounding, e.g. the gradient of a bias before a softmax, is held to the others' size
        usual = np.median(self.expected) if expected else 0.0
        self.room = tolerance * np.maximum(self.expected, 1e-2 * usual)
        self.low, self.high = np.full(len(expected), np.inf), np.full(len(expected), -np.inf)

    def take(self, figures: dict[str, float]) -> list[str]:
        """The names of those that are still out of reach."""
        values = np.array([figures[name] for name in self.names])
        self.low, self.high = np.minimum(self.low, values), np.maximum(self.high, values)
        room = self.room + self.high - self.low
        out = (self.expected < self.low - room) | (self.expected > self.high + room)
        return [name for name, far in zip(self.names, out, strict=True) if far]


def steps(golden: Golden, x: torch.Tensor) -> Steps:
    fabric = Fabric(accelerator="cpu", devices=1)
    model = build_from_overrides(golden["yaml"], golden["overrides"])
    shapes = {key: list(value.shape) for key, value in model.state_dict().items() if value.is_floating_point()}
    model.load_state_dict(filled(shapes), strict=False)
    batch = {"clips": x, "targets": torch.tensor(golden["labels"])}
    text = golden["optimizer"]
    assert text.startswith("SGD") and "except 'bn'" in text
    multipliers = {"bn": Multiplier(decay=named(text, "group") / named(text, "weight decay"))}
    optim = Optim(
        lr=golden["lr"], weight_decay=named(text, "weight decay"), multipliers=multipliers, nesterov="nesterov" in text,
        momentum=named(text, "momentum"), dampening=named(text, "dampening", 0), reference_batch=None,
    )  # fmt: skip
    objective = fabric.setup_module(Recognise(model).train(), move_to_device=False)
    optimiser = fabric.setup_optimizers(make_optimiser(model, optim))
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    norms = first_gradient_norms(model)
    losses = [train_step(fabric, objective, optimiser, batch)["loss"].item() for _ in golden["losses"]]
    after = {key: value.double().norm().item() for key, value in model.state_dict().items()}
    return Steps(seen[0], losses, norms, after)


RUNNERS = {
    ("slowfast", "multigrid"): multigrid,
    ("slowfast", "shortcycle"): shortcycle,
    ("slowfast", "lr"): lr,
    ("slowfast", "optim_groups"): optim_groups,
    ("slowfast", "precise_bn"): precise_bn,
    ("slowfast", "train_step"): train_steps,
}
