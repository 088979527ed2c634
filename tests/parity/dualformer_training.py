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
from lightning_fabric import Fabric

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
        about = case["lr_config"]
        assert about["policy"] == "CosineAnnealing" and about.get("by_epoch", True) and about["warmup_by_epoch"]
        assert about["warmup"] == "linear"
        rates = []
        for lr in case["base_lrs"]:
            least = about["min_lr"] if "min_lr" in about else about["min_lr_ratio"] * lr
            optim = Optim(
                lr=lr, schedule="epoch_cosine", min_lr=least, warmup_epochs=about["warmup_iters"],
                warmup_lr=about.get("warmup_ratio", 0.1) * lr, reference_batch=None,
            )  # fmt: skip
            schedule = Schedule(optim, case["epochs"], case["iters_per_epoch"], batch=8)
            rates.append([schedule.rate(n) for n in range(case["epochs"] * case["iters_per_epoch"])])
        rtol = golden["tolerance"]["rtol"]
        np.testing.assert_allclose(np.transpose(rates), arrays[case["name"]], rtol=rtol, atol=1e-12)


def optim_of(config: Golden, grouping: str) -> Optim:
    assert config["type"] == "AdamW"
    names = {"lr_mult": "lr", "decay_mult": "decay"}
    keys = config["paramwise_cfg"]["custom_keys"]
    multipliers = {key: {names[name]: value for name, value in of.items()} for key, of in keys.items()}
    values = {key: config[key] for key in ("lr", "betas", "weight_decay")}
    return Optim(name="adamw", multipliers=multipliers, grouping=GROUPINGS[grouping], **values)


def run_param_groups(golden: Golden, arrays: Arrays) -> None:
    found = re.search(r"dualformer_(tiny|small|base)_", golden["config"]["reference_config"])
    assert found
    token_head = any(".token_linear." in name for name in golden["as_released"])
    model = Recognise(create_model(f"dualformer_{found[1]}", device="meta", token_head=token_head))
    names = {parameter: name.removeprefix("model.") for name, parameter in model.named_parameters()}
    for grouping in GROUPINGS:
        groups = parameter_groups(model, optim_of(golden["config"]["optimizer"], grouping))
        ours = {names[p]: [group["lr"], group["weight_decay"]] for group in groups for p in group["params"]}
        # A frozen annotation model is none of ours to optimise.
        theirs = {name: of for name, of in golden[grouping].items() if not name.startswith("teacher.")}
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            assert ours[name] == pytest.approx(expected), name


def run_train_step(golden: Golden, arrays: Arrays) -> None:
    fabric, every = Fabric(accelerator="cpu", devices=1), golden["update_interval"]
    seed = int(re.search(r"clip\((\d+)\+i", golden["input"]["seed"])[1])  # type: ignore[index]
    batch, _, *shape = golden["input"]["shape"]
    for grouping, expected in golden["outputs"].items():
        model = build(golden["config"])
        load_filled(model, golden)
        optim = optim_of(golden["optimizer"], grouping)
        objective = fabric.setup_module(Recognise(model).train())
        optimiser = fabric.setup_optimizers(make_optimiser(model, optim))
        classes = model.num_classes
        for i in range(golden["iterations"]):
            labels = torch.from_numpy(np.random.RandomState(seed + i).randint(0, classes, (batch, 1))).flatten()
            x = clips({"seed": seed + i, "shape": [batch, *shape]})
            terms = train_step(
                fabric, objective, optimiser, {"clips": x, "targets": labels}, every, update=(i + 1) % every == 0
            )
            assert terms["loss"].item() == pytest.approx(expected["losses"][i], rel=golden["tolerance"]["loss_rtol"])
            if i == 0 and expected["first_gradient_norms"] != "same":
                check_norms(model, expected["first_gradient_norms"], golden["tolerance"]["grad_norm_rtol"], every)
        drift = optim.lr * (golden["iterations"] // every)  # of parameters without a true gradient
        state = model.state_dict()
        for name, (total, norm) in expected["after"].items():
            values = state[name].double()
            loose = drift * values.numel() if without_gradient(name) else 0.0
            assert abs(values.sum().item() - total) <= 2e-3 * norm + loose, (grouping, name)
            assert abs(values.norm().item() - norm) <= 1e-3 * norm + loose, (grouping, name)
        for name, values in arrays.items():
            if name.startswith(f"{grouping}/"):
                ours = state[name.removeprefix(f"{grouping}/")].flatten()[: len(values)]
                np.testing.assert_allclose(ours, values, rtol=1e-3, atol=drift / 4, err_msg=name)


def without_gradient(name: str) -> bool:
    """Biases of keys, which softmax ignores, and what precedes a batch norm."""
    return name.endswith(("qkv.bias", "kv.bias", "lr.0.bias"))


def check_norms(model: torch.nn.Module, expected: dict[str, float], rtol: float, accumulate: int = 1) -> None:
    """Of the undivided loss."""
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        ours = accumulate * parameter.grad.norm().item()
        assert ours == pytest.approx(expected[name], rel=rtol, abs=1e-4 if without_gradient(name) else 1e-7), name


def run_tokenlabel_loss(golden: Golden, arrays: Arrays) -> None:
    config, outputs, atol = golden["config"], golden["outputs"], golden["tolerance"]["atol"]
    names = ("cls_score", "token_preds", "teacher_preds", "labels")
    logits, tokens, annotated, labels = (torch.from_numpy(arrays[name]) for name in names)
    assert list(logits.shape) == [config["batch"], config["classes"]]
    np.testing.assert_allclose(token_targets(annotated, config["k"]), arrays["soft_label"], rtol=0, atol=atol)
    for only, expected in ((False, outputs), (True, golden["variant_topk_only"])):
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
    settings = TokenLabelSettings()  # the released γ and top five
    objective = TokenLabels(model, annotator, settings)
    with torch.no_grad():
        logits, tokens = model.eval().forward_tokens(x)
        seen = {"logits": logits, "token_logits": tokens, "teacher_token_logits": annotator.annotate(x)}
        seen["test_prob_1view"] = score_views(model, x[:1, None])
    for name, ours in seen.items():
        assert list(ours.shape) == golden["arrays"][name]
        scale = max(1.0, float(np.abs(arrays[name]).max()))
        np.testing.assert_allclose(ours, arrays[name], rtol=0, atol=atol * scale, err_msg=name)
    outputs = golden["outputs"]
    for suffix in ("as_released", "aligned"):
        if f"train_loss_{suffix}" not in outputs:
            continue
        settings.alignment = "released" if suffix == "as_released" else "neighbours"
        model.zero_grad()
        state = {key: value.clone() for key, value in model.state_dict().items()}
        terms = objective.train()({"clips": x, "targets": labels})
        assert terms["loss"].item() == pytest.approx(outputs[f"train_loss_{suffix}"], abs=atol)
        terms["loss"].backward()
        check_norms(model, outputs[f"grad_norms_{suffix}"], golden["tolerance"]["grad_norms_rtol"])
        assert not annotator.training
        with torch.no_grad():
            scores = model(x).numpy()
        for k in (1, 5):
            assert topk_accuracy(scores, labels.numpy(), k) == outputs[f"top{k}_acc"]
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
