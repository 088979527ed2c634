"""Runners of the focal goldens about schedules, optimisation and distillation losses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from fill import clip
from focal_model import build, clips, filled
from lightning_fabric import Fabric

from vidstill.config import Optim
from vidstill.data.blending import one_hot
from vidstill.objectives.distil import distillation_loss
from vidstill.objectives.recognise import Recognise
from vidstill.training.loop import train_step
from vidstill.training.optim import make_optimiser, parameter_groups
from vidstill.training.schedules import Schedule

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def lr_schedule(golden: Golden, arrays: Arrays) -> None:
    for number, case in enumerate(golden["cases"]):
        names = {"lr": "base_lr", **{key: key for key in ("warmup_lr", "min_lr", "schedule", "warmup_epochs")}}
        names |= {key: key for key in ("decay_epochs", "decay_rate") if key in case}
        optim = Optim(**{ours: case[theirs] for ours, theirs in names.items()})
        accumulate = max(1, case["accum"])
        batch = case["batch"] * case["world"] * accumulate
        schedule = Schedule(optim, case["epochs"], case["iters"], batch, accumulate)
        rates = [schedule.rate(n) for n in range(case["epochs"] * case["iters"])]
        np.testing.assert_allclose(rates, arrays[f"case{number}_lr_used"], rtol=0, atol=golden["tolerance"])


def kd_loss(golden: Golden, arrays: Arrays) -> None:
    size, seed = (golden["input"]["B"], golden["input"]["K"]), golden["input"]["seed"]
    np.testing.assert_array_equal(arrays["student_logits"], 3 * clip(seed, size))
    np.testing.assert_array_equal(arrays["teacher_logits"], 4 * clip(seed + 1, size))
    teacher = torch.from_numpy(arrays["teacher_logits"])
    labels = torch.from_numpy(arrays["labels"])
    for number, case in enumerate(golden["cases"]):
        kind, _, smoothing = case["target"].partition("_smooth")
        targets = {
            "soft": torch.from_numpy(arrays["soft_targets"]),
            "hard": one_hot(labels, size[1], float(smoothing)) if smoothing else labels,
        }[kind]
        for name, form in (("as_released", "released"), ("intended", "forward")):
            student = torch.from_numpy(arrays["student_logits"]).requires_grad_()
            terms = distillation_loss(
                student, teacher, targets, alpha=case["alpha"], temperature=case["temperature"], kl=form
            )
            terms["loss"].backward()
            for ours, theirs in (("kd", "kd"), ("ce", "ce"), ("loss", "total")):
                assert terms[ours].item() == pytest.approx(case[name][theirs], rel=1e-5, abs=1e-5), (number, name, ours)
            np.testing.assert_allclose(
                student.grad, arrays[f"case{number}_grad_{name}"], rtol=0, atol=golden["tolerance"]["gradients_abs"]
            )


def two_steps(golden: Golden, arrays: Arrays) -> None:
    """Two steps of the product's own optimiser and step; "as released" is a run without weight decay."""
    fabric = Fabric(accelerator="cpu", devices=1)
    x = clips(golden["input"])
    batch = {"clips": x, "targets": torch.from_numpy(arrays["soft_targets"])}
    recipe = golden["recipe"]
    numbers = dict(re.findall(r"(momentum|lr|weight_decay) ([\d.e-]+)", recipe["optimizer"]))
    for rule, expected in golden["results"].items():
        decay = float(numbers["weight_decay"]) if expected["decay"] else 0.0
        optim = Optim(name="sgd", lr=float(numbers["lr"]), momentum=float(numbers["momentum"]), weight_decay=decay)
        model = build(golden["config"])
        model.load_state_dict(filled(golden["keys"]))
        names = {parameter: name for name, parameter in model.named_parameters()}
        groups = parameter_groups(model, optim)
        decayed = {names[p] for group in groups if group["weight_decay"] for p in group["params"]}
        assert decayed == set(expected["decay"])
        assert len(names) - len(decayed) == expected["no_decay_count"]

        objective = fabric.setup_module(Recognise(model).train())
        optimiser = fabric.setup_optimizers(make_optimiser(model, optim))
        for step, (loss, norm) in enumerate(zip(expected["losses"], expected["grad_norm_before_clip"], strict=True)):
            if step == 0:
                objective(batch)["loss"].backward()
                norms = {name: parameter.grad.norm().item() for parameter, name in names.items()}
                rel = golden["tolerance"]["grad_norms_rel"]
                assert norms == pytest.approx(golden["grad_norms_step0"], rel=rel, abs=1e-6)
                optimiser.zero_grad()
            terms = train_step(fabric, objective, optimiser, batch, clip_grad=recipe["clip_grad_norm"])
            assert terms["loss"].item() == pytest.approx(loss, abs=golden["tolerance"]["losses_abs"])
            assert float(terms["grad_norm"]) == pytest.approx(norm, rel=golden["tolerance"]["grad_norms_rel"])
        with torch.no_grad():
            logits = model.eval()(x).numpy()
        np.testing.assert_allclose(
            logits, arrays[f"logits_after_{rule}"], rtol=0, atol=golden["tolerance"]["logits_abs"]
        )


RUNNERS = {
    "lr_schedule": lr_schedule,
    "kd_loss": kd_loss,
    "train_step": two_steps,
}
