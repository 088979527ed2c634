"""Runners of the DualFormer goldens about schedules, parameter groups, training steps and token labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from dualformer_model import build, check_keys, clips, load_filled
from focal_model import filled
from focal_training import first_gradient_norms
from lightning_fabric import Fabric
from reading import formula, named

from vidstill.config import Optim
from vidstill.config import TokenLabels as TokenLabelSettings
from vidstill.evaluation.engine import score_views
from vidstill.evaluation.metrics import topk_accuracy
from vidstill.models.registry import create_model
from vidstill.models.weights import load_weights
from vidstill.objectives.recognise import Recognise
from vidstill.objectives.token_labels import TokenLabels, token_label_loss, token_targets
from vidstill.training.loop import train_step
from vidstill.training.optim import make_optimiser, parameter_groups
from vidstill.training.schedules import Schedule

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]

GROUPINGS = {"as_released": "longest", "intended": "combined"}


def run_lr(golden: Golden, arrays: Arrays) -> None:
    for case in golden["cases"]:
        about, iterations = case["lr_config"], case["iters_per_epoch"]
        assert about["policy"] == "CosineAnnealing" and about.get("warmup") in ("linear", None)
        warmup = about["warmup_iters"] if about.get("warmup") else 0
        rates = []
        for lr in case["base_lrs"]:
            optim = Optim(
                lr=lr,
                schedule="epoch_cosine" if about.get("by_epoch", True) else "iteration_cosine",
                min_lr=about["min_lr"] if about.get("min_lr") is not None else about["min_lr_ratio"] * lr,
                warmup_epochs=warmup if about.get("warmup_by_epoch") else warmup / iterations,
                warmup_lr=about.get("warmup_ratio", 0.1) * lr,
                reference_batch=None,
            )
            schedule = Schedule(optim, case["epochs"], iterations, batch=8)
            rates.append([schedule.rate(n) for n in range(case["epochs"] * iterations)])
        rtol = golden["tolerance"]["rtol"]
        assert list(arrays[case["name"]].shape) == case.get("array_shape", list(np.shape(rates))[::-1])
        np.testing.assert_allclose(np.transpose(rates), arrays[case["name"]], rtol=rtol, atol=1e-12)


def optim_of(config: Golden, grouping: str) -> Optim:
    about, names = dict(config), {"lr_mult": "lr", "decay_mult": "decay"}
    kind, rule = about.pop("type"), dict(about.pop("paramwise_cfg", {}))
    keys = rule.pop("custom_keys", {})
    assert not rule and about.pop("eps", 1e-8) == 1e-8, f"{sorted(rule)} or eps would go unread"
    own = {"AdamW": {"weight_decay": 0.01}, "Adam": {"weight_decay": 0}}.get(kind)
    own = own or {"weight_decay": 0, "momentum": 0, "dampening": 0, "nesterov": False}  # PyTorch's defaults
    multipliers = {key: {names[name]: value for name, value in of.items()} for key, of in keys.items()}
    about = {**own, "multipliers": multipliers or {"": {}}, "grouping": GROUPINGS[grouping], **about}
    return Optim(name=kind.lower(), **about)


def run_param_groups(golden: Golden, arrays: Arrays) -> None:
    about = golden["config"]
    if "model" in about:
        model = Recognise(build(about))
    else:
        found = re.search(r"dualformer_(tiny|small|base)_", about["reference_config"])
        assert found
        token_head = any(".token_linear." in name for name in golden["as_released"])
        model = Recognise(create_model(f"dualformer_{found[1]}", device="meta", token_head=token_head))
    names = {parameter: name.removeprefix("model.") for name, parameter in model.named_parameters()}
    for grouping in GROUPINGS.keys() & golden.keys():
        groups = parameter_groups(model, optim_of(golden["config"]["optimizer"], grouping))
        ours = {names[p]: [group["lr"], group["weight_decay"]] for group in groups for p in group["params"]}
        # A frozen annotation model is none of ours to optimise.
        theirs = {name: of for name, of in golden[grouping].items() if not name.startswith("teacher.")}
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            assert ours[name] == pytest.approx(expected), name


def run_train_step(golden: Golden, arrays: Arrays) -> None:
    fabric, every = Fabric(accelerator="cpu", devices=1), golden["update_interval"]
    text, tolerance = golden["input"]["seed"], golden["tolerance"]
    seed, labels = re.findall(r"clip\(([^,]+), *shape\)", text), re.findall(r"RandomState\(.*\)", text)
    assert len(seed) == len(labels) == 1, text
    batch, views, *shape = golden["input"]["shape"]
    assert views == 1
    for grouping, expected in golden["outputs"].items():
        model = build(golden["config"])
        load_filled(model, golden)
        optim = optim_of(golden["optimizer"], grouping)
        objective = fabric.setup_module(Recognise(model).train())
        optimiser = fabric.setup_optimizers(make_optimiser(model, optim))
        norms = first_gradient_norms(model)
        for i in range(golden["iterations"]):
            targets = torch.from_numpy(formula(labels[0], i=i)).flatten()
            x = clips({"seed": formula(seed[0], i=i), "shape": [batch, *shape]})
            update = (i + 1) % every == 0
            terms = train_step(fabric, objective, optimiser, {"clips": x, "targets": targets}, every, update)
            assert terms["loss"].item() == pytest.approx(expected["losses"][i], rel=tolerance["loss_rtol"])
        assert len(expected["losses"]) == golden["iterations"]
        if expected["first_gradient_norms"] != "same":
            check_norms(norms, expected["first_gradient_norms"], tolerance["grad_norm_rtol"], every)
        drift = optim.lr * (golden["iterations"] // every)  # of parameters without a true gradient
        state = model.state_dict()
        for name, (total, norm) in expected["after"].items():
            values = state[name].double()
            loose = drift * values.numel() if without_gradient(name) else 0.0
            assert abs(values.sum().item() - total) <= 2e-3 * norm + loose, (grouping, name)
            assert abs(values.norm().item() - norm) <= 1e-3 * norm + loose, (grouping, name)
        for name, values in arrays.items():
            if name.startswith(f"{grouping}/"):
                assert list(values.shape) == golden["arrays"].get(name, list(values.shape))
                ours = state[name.removeprefix(f"{grouping}/")].flatten()[: len(values)]
                np.testing.assert_allclose(ours, values, rtol=1e-3, atol=drift / 4, err_msg=name)


def without_gradient(name: str) -> bool:
    """Biases of keys, which softmax ignores, and what precedes a batch norm."""
    return name.endswith(("qkv.bias", "kv.bias", "lr.0.bias"))


def check_norms(norms: dict[str, float], expected: dict[str, float], rtol: float, accumulate: int = 1) -> None:
    """Of the undivided loss."""
    assert norms.keys() == {name for name in expected if not name.startswith("teacher.")}
    for name, ours in norms.items():
        least = 1e-4 if without_gradient(name) else 1e-7
        assert accumulate * ours == pytest.approx(expected[name], rel=rtol, abs=least), name


def run_tokenlabel_loss(golden: Golden, arrays: Arrays) -> None:
    config, outputs, atol = golden["config"], golden["outputs"], golden["tolerance"]["atol"]
    assert config["tokens"] == len(arrays["token_preds"])
    names = ("cls_score", "token_preds", "teacher_preds", "labels")
    logits, tokens, annotated, labels = (torch.from_numpy(arrays[name]) for name in names)
    assert list(logits.shape) == [config["batch"], config["classes"]]
    np.testing.assert_allclose(token_targets(annotated, config["k"]), arrays["soft_label"], rtol=0, atol=atol)
    for only, expected in ((False, outputs), (True, golden.get("variant_topk_only"))):
        if expected is None:
            continue
        logits, tokens = (values.detach().requires_grad_() for values in (logits, tokens))
        terms = token_label_loss(
            logits, tokens, annotated, labels, gamma=config["gamma"], top=config["k"], topk_only=only
        )
        for ours, theirs in (("loss", "loss"), ("clip", "loss_class"), ("tokens", "loss_token")):
            assert theirs not in expected or abs(terms[ours].item() - expected[theirs]) <= atol
        if not only:
            terms["loss"].backward()
            np.testing.assert_allclose(logits.grad, arrays["grad_cls_score"], rtol=0, atol=atol)
            np.testing.assert_allclose(tokens.grad, arrays["grad_token_preds"], rtol=0, atol=atol)
        else:
            ours = token_targets(annotated, config["k"], topk_only=True)
            np.testing.assert_allclose(ours, arrays[expected["array"]], rtol=0, atol=atol)


def run_tokenlabel(golden: Golden, arrays: Arrays) -> None:
    about, atol = golden["config"], golden["tolerance"]["atol"]
    model = build(about["student"])
    annotator = build(about["teacher_backbone"], about["teacher_head"])
    check_keys(model, golden)
    teacher = {key: shape for key, shape in golden["keys"].items() if key.startswith("teacher.")}
    inside = {key.removeprefix("teacher."): value for key, value in filled(teacher).items()}
    assert not load_weights(annotator, {"state_dict": inside}).ignored
    assert sum(p.numel() for each in (model, annotator) for p in each.parameters()) == golden["params"]
    load_filled(model, golden)
    x, labels = clips(golden["input"]), torch.tensor(golden["input"]["labels"])
    settings = TokenLabelSettings(gamma=named(golden["how"], "gamma"), top=int(named(golden["how"], "top")))
    objective = TokenLabels(model, annotator, settings)
    with torch.no_grad():
        logits, tokens = model.eval().forward_tokens(x)
        seen = {"logits": logits, "token_logits": tokens, "teacher_token_logits": annotator.annotate(x)}
        seen["test_prob_1view"] = score_views(model, x[:1, None])
    for name, shape in golden["arrays"].items():
        ours = seen[name]
        assert list(ours.shape) == shape
        scale = max(1.0, float(np.abs(arrays[name]).max()))
        np.testing.assert_allclose(ours, arrays[name], rtol=0, atol=atol * scale, err_msg=name)
    outputs = golden["outputs"]
    for suffix in [name.removeprefix("train_loss_") for name in outputs if name.startswith("train_loss_")]:
        assert suffix in ("as_released", "aligned")
        settings.alignment = "released" if suffix == "as_released" else "neighbours"
        model.zero_grad()
        state = {key: value.clone() for key, value in model.state_dict().items()}
        terms = objective.train()({"clips": x, "targets": labels})
        assert terms["loss"].item() == pytest.approx(outputs[f"train_loss_{suffix}"], abs=atol)
        terms["loss"].backward()
        norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
        check_norms(norms, outputs[f"grad_norms_{suffix}"], golden["tolerance"]["grad_norms_rtol"])
        assert not annotator.training
        with torch.no_grad():
            scores = model(x).numpy()
        for name in outputs:
            if found := re.fullmatch(r"top(\d+)_acc", name):
                assert topk_accuracy(scores, labels.numpy(), int(found[1])) == outputs[name]
        model.load_state_dict(state)


RUNNERS = {
    ("dualformer", kind): run
    for kind, run in {
        "lr": run_lr,
        "param_groups": run_param_groups,
        "train_step": run_train_step,
        "tokenlabel_loss": run_tokenlabel_loss,
        "tokenlabel": run_tokenlabel,
    }.items()
}
