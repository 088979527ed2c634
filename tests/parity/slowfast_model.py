"""Runners of the SlowFast goldens about the networks: forward passes, the fusion by itself."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fill import clip, fill
from reading import channels_first
from slowfast_configs import configuration
from torch import Tensor, nn

from vidstill.evaluation.engine import scores_of
from vidstill.models.pathways import CMDA
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import load_weights

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]

LIGHT = {
    "SlowFastShuffleNet": "shufflenet",
    "SlowFastShuffleNetV2": "shufflenetv2",
    "SlowFastMoibleNetV2": "mobilenetv2",
    "SlowFastMobileNetV2": "mobilenetv2",
    "SlowFastGhostNet": "ghostnet",
}
SINGLE = ("ResNet", "ResNet_nopool")
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def build(config: Golden) -> VideoModel:
    """The network that a golden's configuration describes."""
    if "model" in config:
        options = {"width": config["width_mult"], "num_classes": config["num_classes"]}
        if "groups" in config:
            options["groups"] = config["groups"]
        return create_model(f"{config['model']}_3d", **options).eval()
    assert len(config["DATA.MEAN"]) == 3
    name, s = config["MODEL.MODEL_NAME"], config["SLOWFAST"]
    assert name in (*LIGHT, *SINGLE, "SlowFast", "SlowFastDualAttention"), name
    common: Golden = {
        "num_classes": config["MODEL.NUM_CLASSES"],
        "dropout": config["MODEL.DROPOUT_RATE"],
        "activation": config["MODEL.HEAD_ACT"],
        "alpha": s["ALPHA"],
        "beta": s["BETA_INV"],
        "reverse_channels": config.get("DATA.REVERSE_INPUT_CHANNEL", False),
    }
    if name in LIGHT:
        options = {**common, "width": s["WIDTH_MULTI"]}
        if LIGHT[name] == "shufflenet":
            options["groups"] = s["GROUPS"]
        if LIGHT[name] == "ghostnet":
            options["activation"] = "relu"  # what the released test scores with
        return create_model(f"slowfast_{LIGHT[name]}", **options).eval()
    r, nln = config["RESNET"], config["NONLOCAL"]
    assert r["TRANS_FUNC"] == "bottleneck_transform"
    window = None if config["MULTIGRID.SHORT_CYCLE"] else (config["DATA.NUM_FRAMES"], config["DATA.CROP_SIZE"])
    options = {
        **common,
        "depths": DEPTHS[r["DEPTH"]],
        "width": r["WIDTH_PER_GROUP"],
        "groups": r["NUM_GROUPS"],
        "temporal_blocks": r["NUM_BLOCK_TEMP_KERNEL"],
        "strides": r["SPATIAL_STRIDES"],
        "dilations": r["SPATIAL_DILATIONS"],
        "nonlocal_blocks": nln["LOCATION"],
        "nonlocal_kind": nln["INSTANTIATION"],
        "nonlocal_pool": nln["POOL"],
        "nonlocal_groups": nln["GROUP"],
        "test_window": window,
        "fusion_ratio": s["FUSION_CONV_CHANNEL_RATIO"],
        "fusion_kernel": s["FUSION_KERNEL_SZ"],
    }
    if name not in SINGLE:
        return create_model(
            "slowfast_dual_r50" if name == "SlowFastDualAttention" else "slowfast_r50", **options
        ).eval()
    arch, _, suffix = config["MODEL.ARCH"].partition("_")
    assert suffix in ("", "nopool"), config["MODEL.ARCH"]
    options |= {"pathways": (arch,), "early_stride": r["STRIDE_1X1"]}
    if suffix or name == "ResNet_nopool":  # one released file says the latter, with the architecture of the former
        options["pool_frames"] = False
    return create_model("slow_r50", **options).eval()


def build_from_overrides(yaml: str, overrides: list[str]) -> VideoModel:
    return build(configuration(yaml, overrides))


def filled(keys: dict[str, list[int]], prefix: str = "") -> dict[str, Tensor]:
    return {key: torch.from_numpy(fill(prefix + key, tuple(shape))) for key, shape in keys.items()}


def load_filled(model: VideoModel, golden: Golden) -> None:
    """Fills the weights in the released wrapper; holds names, order, shapes and number of parameters."""
    integers = set(golden["int_keys"])
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert {key: shape for key, shape in ours.items() if key not in integers} == golden["keys"]
    assert [key for key in ours if key not in integers] == list(golden["keys"])
    assert set(ours) - set(golden["keys"]) == integers
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
    zeros = {key: torch.zeros(shape, dtype=torch.long) for key, shape in golden["int_keys"].items()}
    inner = {**filled(golden["keys"]), **zeros}
    if "module." in str(golden["wrapper"]["nesting"].get("state_dict")):
        wrapped: Golden = {"state_dict": {f"module.{key}": value for key, value in inner.items()}, "best_prec1": 0.0}
    else:
        wrapped = {"model_state": inner, "epoch": 0}
    report = load_weights(model, wrapped)
    assert sorted(report.loaded) == sorted(ours)


def clips(described: Golden) -> Tensor:
    assert described.get("normalised", True)
    return channels_first(clip(described["seed"], tuple(described["shape"])), described["layout"]).contiguous()


def run_model(golden: Golden, arrays: Arrays) -> None:
    model = build(golden["config"])
    load_filled(model, golden)
    outputs = forward(model, clips(golden["input"]), golden["outputs"], single="model" in golden["config"])
    for name, about in golden["outputs"].items():
        ours = outputs[name].contiguous()
        if name == "logits":
            assert ours.numel() == np.prod(about["shape"])
            ours = ours.reshape(about["shape"])
        assert list(ours.shape) == about["shape"], name
        part = ours.reshape(-1)[:: about.get("step", 1)]
        np.testing.assert_allclose(part, arrays[name], **about["tolerance"], err_msg=name)
        for statistic, value in (("max_abs", ours.abs().max()), ("std", ours.std())):
            room = about["tolerance"]["atol"] + about["tolerance"]["rtol"] * about["max_abs"]
            assert abs(value.item() - about[statistic]) <= room, (name, statistic)


@torch.no_grad()
def forward(model: VideoModel, x: Tensor, names: Golden, single: bool) -> dict[str, Tensor]:
    """What the golden asks for, under its names: `logits` are the linear layer's at every place.

    `single`: the baselines of one stream, whose own output has no activation.
    """
    seen: dict[str, Tensor] = {}
    linear = model.get_submodule(model.head_name)
    hooks = [linear.register_forward_hook(functools.partial(_remember, seen, "logits"))]
    for name in names:
        step = name[:-2] if re.fullmatch(r"s\d+(_fuse)?\.[01]", name) else name
        if name not in ("logits", "eval_output"):
            hooks.append(model.get_submodule(step).register_forward_hook(functools.partial(_remember, seen, step)))
    try:
        logits = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    found = {"logits": seen["logits"], "eval_output": logits if single else scores_of(logits, model.activation)}
    for name, output in seen.items():
        found |= {f"{name}.{p}": y for p, y in enumerate(output)} if isinstance(output, list) else {name: output}
    features = model.forward_features(x)
    for name in names.keys() & features.keys():
        torch.testing.assert_close(found[name], features[name], rtol=0, atol=0)
    return found


def run_cmda_unit(golden: Golden, arrays: Arrays) -> None:
    fusion = CMDA(*golden["dim_in"], alpha=golden["alpha"], beta=golden["beta_inv"], reduction=golden["reduction"])
    fusion = fusion.eval()
    state = fusion.state_dict()
    assert sum(parameter.numel() for parameter in fusion.parameters()) == golden["params"]
    assert [key for key in state if "num_batches" not in key] == [k for k in golden["keys"] if "num_batches" not in k]
    fusion.load_state_dict(filled({k: s for k, s in golden["keys"].items() if "num_batches" not in k}), strict=False)
    slow, fast = (
        torch.from_numpy(clip(seed, tuple(golden[f"{speed}_shape"])))
        for seed, speed in zip(golden["seeds"], ("slow", "fast"), strict=True)
    )
    seen: dict[str, Tensor] = {}
    for name, module in (("eca", fusion.attention_channel_f2s), ("attn", fusion.attention_spatial_s2f)):
        module.register_forward_hook(functools.partial(_remember, seen, name))
    with torch.no_grad():
        seen["slow_out"], seen["fast_out"] = fusion([slow, fast])
    for name in arrays:
        np.testing.assert_allclose(seen[name], arrays[name], rtol=0, atol=golden["tolerance"], err_msg=name)


def _remember(seen: dict[str, Any], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    seen[name] = [y.clone() for y in output] if isinstance(output, list) else output.clone()


RUNNERS = {("slowfast", "model"): run_model, ("slowfast", "cmda_unit"): run_cmda_unit}
