"""Runners of the focal goldens about schedules, optimisation and distillation losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from focal_model import build, clips, filled
from lightning_fabric import Fabric
from reading import formula, named, number
from torch import Tensor, nn

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
    settings = ("warmup_lr", "min_lr", "schedule", "warmup_epochs", "decay_epochs", "decay_rate", "warmup_prefix")
    for i, case in enumerate(golden["cases"]):
        optim = Optim(lr=case["base_lr"], **{name: case[name] for name in settings if name in case})
        accumulate = max(1, case.get("accum", 1))
        batch = case["batch"] * case["world"] * accumulate
        schedule = Schedule(optim, case["epochs"], case["iters"], batch, accumulate)
        unscaled = {"base": optim.lr, "warmup": optim.warmup_lr, "min": optim.min_lr}
        for name, rate in case.get("scaled", {}).items():
            assert schedule.scale * unscaled[name] == pytest.approx(rate, rel=1e-12)
        rates = [schedule.rate(n) for n in range(case["epochs"] * case["iters"])]
        for name, ours in (("first", rates[:3]), ("last", rates[-1]), ("max", max(rates))):
            assert name not in case or ours == pytest.approx(case[name], rel=1e-12)
        np.testing.assert_allclose(rates, arrays[f"case{i}_lr_used"], rtol=0, atol=golden["tolerance"])


def kd_loss(golden: Golden, arrays: Arrays) -> None:
    about = golden["input"]
    for name in ("student_logits", "teacher_logits"):
        drawn = formula(about[name], seed=about["seed"], B=about["B"], K=about["K"])
        np.testing.assert_array_equal(arrays[name], drawn)
    teacher, labels = (torch.from_numpy(arrays[name]) for name in ("teacher_logits", "labels"))
    rel = number(golden["tolerance"]["losses"])
    for i, case in enumerate(golden["cases"]):
        kind, _, smoothing = case["target"].partition("_smooth")
        targets = {
            "soft": torch.from_numpy(arrays["soft_targets"]),
            "hard": one_hot(labels, about["K"], float(smoothing)) if smoothing else labels,
        }[kind]
        for name, form in (("as_released", "released"), ("intended", "forward")):
            if name not in case:
                continue
            student = torch.from_numpy(arrays["student_logits"]).requires_grad_()
            terms = distillation_loss(
                student, teacher, targets, alpha=case["alpha"], temperature=case["temperature"], kl=form
            )
            terms["loss"].backward()
            ours = {"kd": terms["kd"].item(), "ce": terms["ce"].item(), "total": terms["loss"].item()}
            for term, expected in case[name].items():
                assert ours[term] == pytest.approx(expected, rel=rel, abs=rel), (i, name, term)
            np.testing.assert_allclose(
                student.grad, arrays[f"case{i}_grad_{name}"], rtol=0, atol=golden["tolerance"]["gradients_abs"]
            )


def optim_of(recipe: str, decays: bool) -> Optim:
    """The optimiser that a golden describes in words; "as released" is a run without weight decay."""
    name = recipe.split(",")[0].split()[0].lower()
    about: Golden = {"lr": named(recipe, "lr"), "weight_decay": named(recipe, "weight[_ ]decay", 0) if decays else 0.0}
    if name == "sgd":
        about |= {"momentum": named(recipe, "momentum", 0), "nesterov": "nesterov" in recipe.lower()}
    return Optim(name=name, **about)


def train_steps(golden: Golden, arrays: Arrays) -> None:
    """Steps on the same batch by the product's own optimiser."""
    fabric = Fabric(accelerator="cpu", devices=1)
    x, tolerance = clips(golden["input"]), golden["tolerance"]
    targets, recipe = torch.from_numpy(arrays["soft_targets"]), golden["recipe"]
    labels = torch.tensor(golden["input"]["labels"])
    if "mix" not in (about := golden["input"]["targets"]):
        smoothing = named(about, "smoothing", 0)
        np.testing.assert_allclose(one_hot(labels, targets.shape[1], smoothing), targets, rtol=0, atol=1e-7)
    batch = {"clips": x, "targets": targets}
    for rule, expected in golden["results"].items():
        optim = optim_of(recipe["optimizer"], bool(expected["decay"]))
        model = build(golden["config"])
        model.load_state_dict(filled(golden["keys"]))
        names = {parameter: name for name, parameter in model.named_parameters()}
        groups = parameter_groups(model, optim)
        decayed = {names[p] for group in groups if group["weight_decay"] for p in group["params"]}
        assert decayed == set(expected["decay"])
        assert len(names) - len(decayed) == expected["no_decay_count"]

        objective = fabric.setup_module(Recognise(model).train())
        optimiser = fabric.setup_optimizers(make_optimiser(model, optim))
        norms = first_gradient_norms(model)
        for step, loss in enumerate(expected["losses"]):
            terms = train_step(fabric, objective, optimiser, batch, clip_grad=recipe.get("clip_grad_norm"))
            assert terms["loss"].item() == pytest.approx(loss, abs=tolerance["losses_abs"])
            if "grad_norm" in terms:
                norm = expected["grad_norm_before_clip"][step]
                assert float(terms["grad_norm"]) == pytest.approx(norm, rel=tolerance["grad_norms_rel"])
        assert norms == pytest.approx(golden["grad_norms_step0"], rel=tolerance["grad_norms_rel"], abs=1e-6)
        with torch.no_grad():
            logits = model.eval()(x).numpy()
        np.testing.assert_allclose(logits, arrays[f"logits_after_{rule}"], rtol=0, atol=tolerance["logits_abs"])


def first_gradient_norms(model: nn.Module) -> dict[str, float]:
    """The norm of each parameter's first gradient by its name, filled by the first backward pass."""
    norms: dict[str, float] = {}
    for name, parameter in model.named_parameters():

        def remember(parameter: Tensor, name: str = name) -> None:
            assert parameter.grad is not None
            norms.setdefault(name, parameter.grad.norm().item())

        parameter.register_post_accumulate_grad_hook(remember)
    return norms


RUNNERS = {"lr_schedule": lr_schedule, "kd_loss": kd_loss, "train_step": train_steps}
