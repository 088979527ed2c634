"""Runners of the DualFormer goldens about the network: forward passes, views, image weights, token labels, Grad-CAM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fill import clip
from focal_model import filled
from reading import channels_first, kept, named
from torch import Tensor, nn

from vidstill.evaluation.engine import score_views, view_logits
from vidstill.explain.gradcam import grad_cam
from vidstill.explain.pictures import blend
from vidstill.models.dualformer import DualFormer
from vidstill.models.registry import create_model
from vidstill.models.weights import load_weights

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]

# What the released class takes where its configuration is silent, as far as ours takes another.
RELEASED_DEFAULTS: Golden = {"qkv_bias": False, "drop_path_rate": 0, "num_heads": [1, 2, 4, 8], "depths": [2, 2, 10, 4]}


def build(config: Golden, head: Golden | None = None) -> DualFormer:
    """The network that a golden's config describes, with its head or, where the config is a backbone, without one."""
    assert config.get("norm_eps", 1e-5) == 1e-5
    config = config.get("model", config)
    backbone = {**RELEASED_DEFAULTS, **config.get("backbone", config)}
    head = head or config.get("cls_head", {"in_channels": backbone["embed_dims"][-1], "num_classes": 0})
    assert backbone.pop("type") == "DualFormer" and backbone.pop("in_chans", 3) == 3
    for unused in ("num_classes", "pretrained", "pretrained2d"):  # of the backbone; weights come from the golden
        backbone.pop(unused, None)
    assert head["in_channels"] == backbone["embed_dims"][-1] and head.get("spatial_type", "avg") == "avg"
    backbone["token_head"] = head.get("type") == "I3DHead_TL"
    backbone["dropout_ratio"] = head.get("dropout_ratio", 0.5)
    checkpointing = backbone.pop("use_checkpoint", False)
    model = create_model("dualformer_tiny", head["num_classes"], **backbone).eval()
    assert isinstance(model, DualFormer)
    model.checkpointing = checkpointing
    return model


def check_keys(model: DualFormer, golden: Golden) -> None:
    """Names, their order and shapes of the model's state; an annotation model is none of it."""
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    floats = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    given = {key: shape for key, shape in golden["keys"].items() if not key.startswith("teacher.")}
    assert list(floats) == list(given) and floats == given
    assert shapes.keys() - floats.keys() == {key for key in golden["int_keys"] if not key.startswith("teacher.")}


def load_filled(model: DualFormer, golden: Golden) -> dict[str, Tensor]:
    """Fill the model as the golden says, through a checkpoint as the release writes them; returns its weights."""
    state = filled(golden["keys"])
    checkpoint = {"meta": {"epoch": 30}, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    report = load_weights(model, checkpoint)
    assert all(key.endswith("num_batches_tracked") for key in report.kept) and not report.resized
    assert sorted(report.loaded) == sorted(key for key in state if not key.startswith("teacher."))
    return state


def clips(described: Golden) -> Tensor:
    """The golden's input (…,3,T,H,W)."""
    assert described.get("normalised", True)
    x = clip(described["seed"], tuple(described["shape"]))
    return channels_first(x, described.get("layout", "NCTHW"))


@torch.no_grad()
def forward(model: DualFormer, x: Tensor) -> dict[str, Tensor]:
    """Logits and every intermediate that a golden may ask for, under the golden's names and in its shapes."""
    seen: dict[str, Tensor] = {}
    backbone: Any = model.backbone
    watched: dict[str, nn.Module] = {f"stage{i}": blocks[-1] for i, blocks in enumerate(backbone.blocks, 1)}
    watched |= {f"patch_embed{i}": embed for i, embed in enumerate(backbone.patch_embeds)}
    watched |= {f"peg{i}": position for i, position in enumerate(backbone.pos_block)}
    watched["features"] = backbone.norm
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
        for name, module in watched.items()
    ]
    try:
        logits = model(x)
        features = model.forward_features(x)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = {
        name: y.flatten(1, 3) if re.match("patch|peg", name) else y.permute(0, 4, 1, 2, 3) for name, y in seen.items()
    }
    assert torch.equal(features["features"], outputs["features"])
    if model.token_head:
        again, outputs["token_logits"] = model.forward_tokens(x)
        assert torch.equal(again, logits)
    return {**outputs, "logits": logits}


def run_model(golden: Golden, arrays: Arrays) -> None:
    model = build(golden["config"])
    check_keys(model, golden)
    for about, module in (("params", model), ("params_backbone", model.backbone)):
        if about in golden:
            assert sum(parameter.numel() for parameter in module.parameters()) == golden[about]
    load_filled(model, golden)
    outputs = forward(model, clips(golden["input"]))
    assert set(golden["outputs"]) == set(arrays)
    for name, about in golden["outputs"].items():
        ours, expected = outputs[name].numpy(), arrays[name]
        assert list(ours.shape) == about["shape"], name
        atol = golden["tolerance"]["rtol_of_max_abs"] * about["max_abs"]
        np.testing.assert_allclose(kept(ours, about["stored"]), expected, rtol=0, atol=atol, err_msg=name)
        ours_are = {"max_abs": np.abs(ours).max(), "mean": ours.mean(), "std": ours.std(ddof=1)}
        for statistic in ours_are.keys() & about.keys():
            assert abs(ours_are[statistic] - about[statistic]) <= atol, (name, statistic)


def run_views(golden: Golden, arrays: Arrays) -> None:
    for case in golden["cases"]:
        model = build(golden["config"])
        check_keys(model, golden)
        assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
        load_filled(model, golden)
        about = {
            **golden["input"],
            **{name: case[f"input_{name}"] for name in ("seed", "shape") if f"input_{name}" in case},
        }
        average, at_once = case["test_cfg"].get("average_clips"), case["test_cfg"].get("max_testing_views")
        assert average in ("prob", "score", None)
        features = case["test_cfg"].get("feature_extraction")
        if features:
            model.reset_classifier(0)
        x = clips(about)
        each = view_logits(model, x, at_once=at_once)
        if features:
            scores = each.mean(1)
        elif average == "prob":
            scores = score_views(model, x, at_once=at_once)
        else:
            scores = each.flatten(0, 1) if average is None else each.mean(1)
        assert list(scores.shape) == case.get("shape", list(scores.shape))
        atol = golden["tolerance"]["atol"]
        np.testing.assert_allclose(scores, arrays[case["name"]], rtol=0, atol=atol, err_msg=case["name"])


def run_inflation(golden: Golden, arrays: Arrays) -> None:
    model = build({**golden["config"]})
    own = {key.removeprefix("backbone."): value for key, value in model.state_dict().items()}
    assert {key: list(value.shape) for key, value in own.items() if "num_batches" not in key} == golden["keys"]
    images = filled(golden["source_2d_keys"])
    report = load_weights(model, images)
    assert {key for key in images if key not in own} == set(report.ignored)
    atol, x = golden["tolerance"]["atol"], clips(golden["input"])

    def compare(ours: Tensor, name: str) -> None:
        expected = arrays[name]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=atol * max(1.0, np.abs(expected).max()), err_msg=name)

    def compare_features(name: str) -> None:
        features = model.forward_features(x)["features"]
        if name in arrays:
            compare(features[:, :: int(named(golden["stored"], "channel stride", 1))], name)

    with torch.no_grad():
        compare_features("features_mean_init")
        for key, value in model.state_dict().items():
            if key.endswith(".lr.3.weight"):
                assert torch.allclose(value, torch.tensor(1 / value[0].numel()))
                stage = int(key.split(".")[2])
                value.fill_((1 / 16, 1 / 4)[stage])  # as released, whatever the kernel
        compare_features("features_as_released")
    state = {key.removeprefix("backbone."): value for key, value in model.state_dict().items()}
    for key, about in golden["result"].items():
        values = state[key].double()
        assert list(values.shape) == about["shape"]
        assert abs(values.sum().item() - about["sum"]) <= 1e-5 * max(1.0, about["abs_sum"]), key
        assert abs(values.abs().sum().item() - about["abs_sum"]) <= 1e-5 * max(1.0, about["abs_sum"]), key
    for key, shape in golden["result_arrays"].items():
        assert list(arrays[key].shape) == shape
        if not key.startswith("features"):
            compare(state[key][: shape[0]], key)  # the first channels are kept


def run_gradcam(golden: Golden, arrays: Arrays) -> None:
    model = build(golden["config"])
    load_filled(model, golden)
    x, denormalise = clips(golden["input"])[0], golden["input"]["denormalise"]
    assert golden["input"]["shape"][0] == 1
    mean, std = (torch.tensor(denormalise[name]).view(3, 1, 1, 1) for name in ("mean", "std"))
    frames = ((x * std + mean) / 255).permute(0, 2, 3, 4, 1).numpy()
    for case in golden["cases"]:
        target = None if case["target"] == "predicted class" else int(case["target"].removeprefix("label "))
        before = x.clone()
        cam = grad_cam(model, x, case["layer"], target, at_once=golden["config"]["test_cfg"].get("max_testing_views"))
        assert torch.equal(x, before)
        np.testing.assert_allclose(cam.scores, case["preds"][0], rtol=0, atol=1e-5)
        heat = cam.heat(*x.shape[-2:]).numpy()
        blended = blend(frames, heat, golden["colormap"], golden["alpha"])
        assert list(heat.shape) == case["map_shape"] and list(blended.shape) == case["blend_shape"]
        tolerance = golden["tolerance"]
        for ours, name in ((heat, "map"), (blended, "blend")):
            part, atol = kept(ours, case["stored"]), tolerance[f"{name}_atol"]
            np.testing.assert_allclose(part, arrays[f"{name}_{case['name']}"], rtol=0, atol=atol, err_msg=case["name"])
            assert abs(ours.mean() - case[f"{name}_mean"]) <= atol


RUNNERS = {
    ("dualformer", kind): run
    for kind, run in {
        "model": run_model,
        "views": run_views,
        "inflation": run_inflation,
        "gradcam": run_gradcam,
    }.items()
}
