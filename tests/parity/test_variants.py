"""Goldens of the same kinds with other values; what they expect comes from formulas or from those that are here."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import dualformer_model
import numpy as np
import pytest
import slowfast_model
import torch
from fill import clip, fill
from focal_model import build as build_focal
from focal_model import filled
from PIL import Image
from test_goldens import check, read
from test_runners import FOLDER
from torch import Tensor, nn
from torch.nn import functional as F

Golden = dict[str, Any]
Arrays = dict[str, np.ndarray]
Variant = Callable[[], tuple[Golden, Arrays]]


def sample(name: str) -> tuple[Golden, Arrays]:
    golden, arrays = read(FOLDER / f"{name}.json")
    return copy.deepcopy(golden), arrays


def focal_steps() -> tuple[Golden, Arrays]:
    """Three steps of another batch by PyTorch's own SGD, not clipped."""
    golden, arrays = sample("focal_train_step")
    golden["input"] |= {"seed": 7, "shape": [2, 2, 3, 40, 32], "labels": [6, 0], "targets": "one-hot (stored)"}
    golden["recipe"] = {"optimizer": "SGD, momentum 0.8, lr 0.02, weight_decay 0.1"}
    targets = torch.eye(7)[[6, 0]]
    x = torch.from_numpy(clip(7, (2, 2, 3, 40, 32))).transpose(1, 2)
    arrays = {"soft_targets": targets.numpy()}
    for rule, expected in golden["results"].items():
        model = build_focal(golden["config"])
        model.load_state_dict(filled(golden["keys"]))
        decayed = [p for name, p in model.named_parameters() if name in expected["decay"]]
        spared = [p for name, p in model.named_parameters() if name not in expected["decay"]]
        sgd = torch.optim.SGD([{"params": spared}, {"params": decayed, "weight_decay": 0.1}], 0.02, momentum=0.8)
        expected["losses"], norms = plain_steps(model.train(), sgd, [(x, targets)] * 3, 1)
        del expected["grad_norm_before_clip"]
        golden["grad_norms_step0"] = norms
        with torch.no_grad():
            arrays[f"logits_after_{rule}"] = model.eval()(x).numpy()
    return golden, arrays


def plain_steps(
    model: nn.Module, optimiser: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]], accumulate: int
) -> tuple[list[float], dict[str, float]]:
    """Losses, and the norms of the first gradients."""
    losses, norms = [], {}
    for i, (x, targets) in enumerate(batches, 1):
        loss = F.cross_entropy(model(x), targets)
        (loss / accumulate).backward()
        losses.append(loss.item())
        if i == 1:
            norms = {name: accumulate * p.grad.norm().item() for name, p in model.named_parameters()}
        if i % accumulate == 0:
            optimiser.step()
            optimiser.zero_grad()
    return losses, norms


def dualformer_steps(every: int, iterations: int, seed: int, batch: int) -> Variant:
    """PyTorch's own AdamW, with rates and decays by the two rules as the specification words them."""

    def make() -> tuple[Golden, Arrays]:
        golden, _ = sample("dualformer_train_step")
        shape = [batch, 1, 3, 16, 64, 96]
        golden |= {"iterations": iterations, "update_interval": every}
        draws = f"clip({seed}+i, shape) and labels RandomState({seed}+2*i).randint(0,11,({batch},1))"
        golden["input"] = {"seed": f"iteration i uses {draws}", "shape": shape}
        arrays: Arrays = {}
        for rule in golden["outputs"]:
            model = dualformer_model.build(golden["config"])
            dualformer_model.load_filled(model, golden)
            groups = []
            for name, parameter in model.named_parameters():
                keys = [key for key in ("pos_block", "norm", "backbone") if key in name]
                keys = sorted(keys, key=lambda key: (-len(key), key))[:1] if rule == "as_released" else keys
                lr, decay = 0.1 if "backbone" in keys else 1, 0 if {"pos_block", "norm"} & {*keys} else 1
                groups.append({"params": [parameter], "lr": 1e-3 * lr, "weight_decay": 0.02 * decay})
            batches = []
            for i in range(iterations):
                labels = np.random.RandomState(seed + 2 * i).randint(0, 11, (batch, 1))
                x = clip(seed + i, (batch, *shape[2:]))
                batches.append((torch.from_numpy(x), torch.from_numpy(labels).flatten()))
            losses, norms = plain_steps(model.train(), torch.optim.AdamW(groups), batches, every)
            state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
            after = {name: [value.sum().item(), value.norm().item()] for name, value in state.items()}
            golden["outputs"][rule] = {"losses": losses, "first_gradient_norms": norms, "after": after}
            arrays[f"{rule}/cls_head.fc_cls.weight"] = state["cls_head.fc_cls.weight"].flatten()[:100].numpy().copy()
        golden["arrays"] = {name: [100] for name in arrays}
        return golden, arrays

    return make


def dualformer_sampled_inflation() -> tuple[Golden, Arrays]:
    """Every fourth channel of the features, three of the kernels."""
    golden, arrays = sample("dualformer_inflation")
    golden["stored"] = "5-D arrays: first 3 output channels; features_*: backbone output, eval, channel stride 4"
    arrays = {name: array[:, ::4] if name.startswith("features") else array[:3] for name, array in arrays.items()}
    golden["result_arrays"] = {name: list(array.shape) for name, array in arrays.items()}
    return golden, arrays


def dualformer_token_model() -> tuple[Golden, Arrays]:
    """The student of a token-label golden as a model golden with `token_logits`."""
    about, given = sample("dualformer_tokenlabel")
    golden, _ = sample("dualformer_micro")
    golden |= {"config": about["config"]["student"], "input": about["input"], "how": "test"}
    for name in ("keys", "int_keys"):
        golden[name] = {key: shape for key, shape in about[name].items() if not key.startswith("teacher.")}
    arrays = {"logits": given["logits"], "token_logits": given["token_logits"][:, ::2, ..., 1:]}
    stored = {"logits": "whole", "token_logits": "array[:, ::2, ..., 1:]"}
    golden["outputs"] = {
        name: {"shape": list(given[name].shape), "stored": stored[name], "max_abs": float(np.abs(given[name]).max())}
        for name in arrays
    }
    del golden["params"], golden["params_backbone"]
    return golden, arrays


def dualformer_rates() -> tuple[Golden, Arrays]:
    """By iteration: the cosine moves at every one; warm-up in iterations or epochs, or none; a least share."""
    golden, _ = sample("dualformer_lr")
    common = {"policy": "CosineAnnealing", "by_epoch": False, "min_lr_ratio": 0.01}
    configs = {
        "epochs": {**common, "warmup": "linear", "warmup_by_epoch": True, "warmup_iters": 1.5, "warmup_ratio": 0.2},
        "iterations": {**common, "warmup": "linear", "warmup_iters": 9},
        "none": {**common, "warmup": None},
    }
    golden["cases"], arrays = [], {}
    for name, config in configs.items():
        each, epochs, base = 7, 4, [0.01, 0.002]
        golden["cases"].append(
            {"name": name, "base_lrs": base, "lr_config": config, "iters_per_epoch": each, "epochs": epochs}
        )
        warmup = {"epochs": 1.5 * each, "iterations": 9, "none": 0}[name]
        rows = []
        for t in range(each * epochs):
            cosine = [0.01 * lr + 0.99 * lr * (1 + math.cos(math.pi * t / (each * epochs))) / 2 for lr in base]
            least = config.get("warmup_ratio", 0.1)
            rows.append([rate * (1 - (1 - t / warmup) * (1 - least)) if t < warmup else rate for rate in cosine])
        arrays[name] = np.array(rows)
    return golden, arrays


def dualformer_option_values() -> tuple[Golden, Arrays]:
    golden, arrays = sample("dualformer_cfg_options")
    golden["values"]["rows"] = [
        ["nan", "nan"], ["-inf", "-inf"], ["1e400", "inf"], ["[nan,1]", "[nan, 1]"], ["(None,2.0)", "('None', 2.0)"],
        ["-3", "-3"], ["3.", "3.0"], ["TRUE", "True"], ["a b", "'a b'"],
    ]  # fmt: skip
    golden["merges"] = [{"args": ["a.b=nan", "fp16=(1,x)"], "result": {"a": {"b": math.nan}, "fp16": (1, "x")}}]
    golden["base"] = {"fp16": None}
    return golden, arrays


def dualformer_regrouped_clips() -> tuple[Golden, Arrays]:
    """The frames of a test's two clips as one clip, and as clips of one frame."""
    golden, arrays = sample("dualformer_pipeline")
    (case,) = [case for case in golden["cases"] if case["name"] == "raw_test_120x160"]
    golden["cases"], given = [], arrays["raw_test_120x160"]  # (crops·clips,3,frames,H,W)
    arrays = {}
    for clips in (1, 4):
        length = 4 // clips
        frames = given.reshape(3, 2, 3, 2, *given.shape[3:]).transpose(0, 1, 3, 2, 4, 5)  # (crops,clips,frames,3,H,W)
        views = frames.reshape(3 * clips, length, 3, *given.shape[3:]).swapaxes(1, 2)
        shape = [3 * clips, 3, length, 224, 224]
        about = {"name": str(clips), "num_clips": clips, "clip_len": length, "output_shape": shape}
        golden["cases"].append({**case, **about})
        arrays[str(clips)] = views
    return golden, arrays


def dualformer_confusions() -> tuple[Golden, Arrays]:
    golden, arrays = sample("dualformer_metrics")
    scores, labels = arrays["scores"], arrays["labels"]
    arrays["scores3"] = np.roll(scores, 1, 1)
    counts = np.zeros((9, 9), int)
    np.add.at(counts, (labels, scores.argmax(1)), 1)
    there = golden["outputs"]["confusion_labels"]
    counts = counts[np.ix_(there, there)]
    both = 2 * scores + 0.5 * arrays["scores2"] + arrays["scores3"]
    pred = np.nan_to_num(counts / np.where(counts.sum(0), counts.sum(0), 1))
    golden["outputs"] = {
        "confusion_matrix": counts.tolist(),
        "confusion_matrix_pred": pred.tolist(),
        "confusion_matrix_all": (counts / counts.sum()).tolist(),
        "weighted_2_0.5_1": {"top1": float((both.argmax(1) == labels).mean())},
        "top_k_accuracy": {"2": float((np.argsort(-scores)[:, :2] == labels[:, None]).any(1).mean())},
    }
    return golden, arrays


def dualformer_mixup() -> tuple[Golden, Arrays]:
    """Views of other shapes, classes and seeds."""
    golden, _ = sample("dualformer_blending")
    shape, share, perm = (2, 2, 3, 1, 6, 8), 0.25, [1, 0]
    case = {"name": "a", "op": "mixup", "lam": share, "perm": perm, "smoothing": 0.2, "input_seed": 5}
    golden["cases"] = [{**case, "input_shape": list(shape), "labels": [3, 0], "num_classes": 4}]
    x, targets = clip(5, shape), 0.8 * np.eye(4)[[3, 0]] + 0.05
    return golden, {
        "a_imgs": share * x + (1 - share) * x[perm],
        "a_labels": share * targets + (1 - share) * targets[perm],
    }


def dualformer_jittered_samples() -> tuple[Golden, Arrays]:
    """Random starts, then every frame moved by less than the interval, in OpenMMLab's order of draws."""
    golden, _ = sample("dualformer_sampling")
    args = {
        "clip_len": 4,
        "frame_interval": 3,
        "num_clips": 2,
        "temporal_jitter": True,
        "out_of_bound_opt": "repeat_last",
    }
    golden["cases"] = [{"name": "a", "op": "SampleFrames", "args": args, "total_frames": 40, "numpy_seed": 3}]
    rng = np.random.RandomState(3)
    part = (40 - 12 + 1) // 2
    starts = np.arange(2) * part + rng.randint(part, size=2)
    places = starts[:, None] + np.arange(4) * 3 + rng.randint(3, size=(2, 4))
    return golden, {"a": np.minimum(places, 39).reshape(-1)}


def focal_two_clips() -> tuple[Golden, Arrays]:
    """The first two of four random clips, which are drawn one after another."""
    golden, arrays = sample("focal_sampling")
    golden["T"] = [8]
    return golden, {"T8_multiclip2": arrays["T8_multiclip4"][:, :16], "T8_train": arrays["T8_train"]}


def focal_coarse_maps() -> tuple[Golden, Arrays]:
    """Of one stage, drawn maps kept at every fourth row and column."""
    golden, arrays = sample("focal_modulator_maps")
    golden["outputs"] = {name: shape for name, shape in golden["outputs"].items() if "stage0_last" in name}
    return golden, {
        name: array[..., ::2, ::2] if name.endswith("upsampled") else array
        for name, array in arrays.items()
        if "stage0_last" in name
    }


def focal_batch_of_clips_first() -> tuple[Golden, Arrays]:
    """Blended clips whose channels come before their frames."""
    golden, _ = sample("focal_blending")
    golden["input"] |= {"layout": "NCTHW", "shape": [2, 3, 2, 8, 8]}
    case = {"clip_seed": 4, "labels": [0, 5], "permutation": [1, 0], "box_x1_y1_x2_y2": [0, 2, 4, 6]}
    golden["cases"] = [{**case, "kind": "cutmix", "drawn_lambda": 0.7, "effective_lambda": 0.75}]
    x, targets = clip(4, (2, 3, 2, 8, 8)), 0.9 * np.eye(6)[[0, 5]] + 0.1 / 6
    blended = x.copy()
    blended[..., 2:6, 0:4] = x[::-1, ..., 2:6, 0:4]
    return golden, {"case0_clip": blended.reshape(-1), "case0_target": 0.75 * targets + 0.25 * targets[::-1]}


def slowfast_step() -> tuple[Golden, Arrays]:
    """One step by the formula of SGD with Nesterov's momentum."""
    golden, _ = sample("slowfast_train_step_shufflenetv2")
    golden |= {"seed": 8, "shape": [2, 3, 8, 64, 64], "labels": [2, 9], "lr": 0.05}
    golden["optimizer"] = "SGD momentum 0.8 nesterov, dampening 0, weight decay 1e-2 except 'bn' group 0.005"
    del golden["state_norms_after_2_steps"]
    model = slowfast_model.build_from_overrides(golden["yaml"], golden["overrides"]).train()
    floats = {key: list(value.shape) for key, value in model.state_dict().items() if value.is_floating_point()}
    model.load_state_dict(filled(floats), strict=False)
    logits = model(torch.from_numpy(clip(8, tuple(golden["shape"]))))
    loss = F.cross_entropy(logits, torch.tensor(golden["labels"]))
    loss.backward()
    golden["losses"] = [loss.item()]
    golden["grad_norms_step1"] = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            slope = parameter.grad + (0.005 if "bn" in name else 0.01) * parameter
            parameter -= 0.05 * (slope + 0.8 * slope)
    state = {name: value for name, value in model.state_dict().items() if name in floats}
    golden["state_norms_after_1_steps"] = {name: value.norm().item() for name, value in state.items()}
    return golden, {"train_logits": logits.detach().numpy()}


def slowfast_cam_of(layer: str) -> Variant:
    """Of a layer that is not looked at by default, with gradients kept by PyTorch."""

    def make() -> tuple[Golden, Arrays]:
        golden, _ = sample("slowfast_gradcam")
        case = golden["dual_s5"]
        case |= {"target_layer": layer, "seed": 3, "target_class": 2}
        golden = {name: about for name, about in golden.items() if not isinstance(about, dict) or name == "tolerance"}
        model = slowfast_model.build_from_overrides(case["yaml"], case["overrides"])
        floats = {key: list(value.shape) for key, value in model.state_dict().items() if value.is_floating_point()}
        model.load_state_dict(filled(floats), strict=False)
        taken: list[Tensor] = []

        def take(module: nn.Module, inputs: Any, output: list[Tensor]) -> list[Tensor]:
            taken.extend(output)
            for each in output:
                each.retain_grad()
            return [each.clone() for each in output]

        model.get_submodule(layer).register_forward_hook(take)
        score = model(torch.from_numpy(clip(3, tuple(case["shape"])))).softmax(1)[0, 2]
        score.backward()
        arrays: Arrays = {}
        for speed, maps in zip(("slow", "fast"), taken, strict=True):
            a, slope = maps.detach()[0].numpy(), maps.grad[0].mean((2, 3)).numpy()  # type: ignore[index]
            before = np.maximum(0, 1 + np.einsum("ct,chw->thw", slope, a.mean(1)))
            low, high = before.min((1, 2), keepdims=True), before.max((1, 2), keepdims=True)
            grey = ((before - low) / (high - low) * 255).astype(np.uint8)
            size = case["shape"][-1], case["shape"][-2]
            drawn = [np.asarray(Image.fromarray(each).resize(size, Image.Resampling.LANCZOS)) for each in grey]
            arrays[f"a/standard_relu_{speed}"] = np.maximum(0, np.einsum("ct,cthw->thw", slope, a))
            arrays[f"a/released_pre_norm_{speed}"] = before
            arrays[f"a/released_final_{speed}"] = np.stack(drawn) / np.float32(255)
            case[f"{speed}_frames"] = a.shape[1]
        case |= {"class_score": score.item(), "map_hw": list(taken[0].shape[3:])}
        return {**golden, "a": case}, arrays

    return make


def slowfast_other_decay() -> tuple[Golden, Arrays]:
    golden, arrays = sample("slowfast_optim_groups")
    case = golden["dual_tiny"] | {"BN_WEIGHT_DECAY": 0.003, "WEIGHT_DECAY": 0.01}
    return {"family": "slowfast", "kind": "optim_groups", "one": case}, arrays


def slowfast_shorter_multigrid() -> tuple[Golden, Arrays]:
    """The short cycle alone stretches the epochs by a factor that the golden may state."""
    golden, arrays = sample("slowfast_multigrid")
    case = golden["short_cycle_only"]
    source = case["source"] | {"EPOCH_FACTOR": 2.0}
    steps = [2 * step for step in source["STEPS"]]
    kept = {name: case[name] for name in ("yaml", "overrides", "schedule", "LRS")}
    edges, end = [*steps, 200], source["WARMUP_EPOCHS"]

    def rate(epoch: float) -> float:
        at = next(i for i, edge in enumerate(edges[1:]) if epoch < edge)
        return source["BASE_LR"] * source["LRS"][at]

    begin = source["WARMUP_START_LR"]
    halves = [n / 2 for n in range(400)]
    rates = [begin + e / end * (rate(end) - begin) if e < end else rate(e) for e in halves]
    case = {**kept, "source": source, "STEPS": steps, "MAX_EPOCH": 200, "lr_at_half_epochs": rates}
    return {"family": "slowfast", "kind": "multigrid", "one": case}, arrays


def slowfast_more_norms() -> tuple[Golden, Arrays]:
    """Split norms of another batch, by NumPy."""
    golden, _ = sample("slowfast_subbn")
    golden |= {"seed": 2, "shape": [6, 2, 1, 3, 3], "num_splits": 3}
    golden["recipe"] = re.sub(r"x = .*? for", "x = 3*clip(seed,shape)+0.1*i for", golden["recipe"])
    x = 3 * clip(2, (6, 2, 1, 3, 3)) + 0.1 * np.arange(6, dtype=np.float32).reshape(-1, 1, 1, 1, 1)
    weight, bias = (fill(f"subbn.{name}", (2,)).reshape(1, 2, 1, 1, 1) for name in ("weight", "bias"))
    mean, var = np.zeros((3, 2)), np.ones((3, 2))
    out = np.empty_like(x)
    for turn in (x, 0.5 * x + 1):
        for split in range(3):
            part = turn[split::3].astype(float)
            m, v = part.mean((0, 2, 3, 4)), part.var((0, 2, 3, 4))
            if turn is x:
                normed = (part - m.reshape(1, 2, 1, 1, 1)) / np.sqrt(v + golden["eps"]).reshape(1, 2, 1, 1, 1)
                out[split::3] = normed * weight + bias
            mean[split] += 0.1 * (m - mean[split])
            var[split] += 0.1 * (v * 18 / 17 - var[split])
    whole = mean.mean(0)
    spread = var.mean(0) + ((mean - whole) ** 2).mean(0)
    scaled = (x - whole.reshape(1, 2, 1, 1, 1)) / np.sqrt(spread + golden["eps"]).reshape(1, 2, 1, 1, 1)
    return golden, {
        "x": x, "train_out": out, "split_running_mean": mean.reshape(-1), "split_running_var": var.reshape(-1),
        "agg_running_mean": whole, "agg_running_var": spread, "eval_out": scaled * weight + bias,
    }  # fmt: skip


VARIANTS: dict[str, Variant] = {
    "dualformer steps, each an update": dualformer_steps(every=1, iterations=2, seed=20, batch=1),
    "dualformer steps, one left over": dualformer_steps(every=2, iterations=3, seed=30, batch=1),
    "dualformer inflation, sampled": dualformer_sampled_inflation,
    "dualformer token model": dualformer_token_model,
    "dualformer rates by iteration": dualformer_rates,
    "dualformer values of options": dualformer_option_values,
    "dualformer clips regrouped": dualformer_regrouped_clips,
    "dualformer other figures": dualformer_confusions,
    "dualformer other mixup": dualformer_mixup,
    "dualformer jittered samples": dualformer_jittered_samples,
    "focal steps, unclipped": focal_steps,
    "focal two clips": focal_two_clips,
    "focal coarse maps": focal_coarse_maps,
    "focal clips, channels first": focal_batch_of_clips_first,
    "slowfast step": slowfast_step,
    "slowfast cam of s4_fuse": slowfast_cam_of("s4_fuse"),
    "slowfast cam of s2": slowfast_cam_of("s2"),
    "slowfast other decay": slowfast_other_decay,
    "slowfast shorter multigrid": slowfast_shorter_multigrid,
    "slowfast more norms": slowfast_more_norms,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_golden_of_other_values(name: str) -> None:
    golden, arrays = VARIANTS[name]()
    golden["remark"] = "a field that nobody reads"
    check(golden, arrays)
