"""Runners of the focal goldens about the network: forward passes, 2-D initialisation, maps of the modulators."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fill import clip, fill
from reading import channels_first
from torch import Tensor, nn

from vidstill.models.focal import Modulators, capture_modulators, modulator_map
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import load_weights

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def build(config: dict[str, Any]) -> VideoModel:
    """The model that a golden's `config` describes, in eval mode, weights as they were drawn."""
    options = dict(config)
    # Frame count and size come from the input; patches of 4 and 3 channels are the architecture.
    options.pop("img_size", None), options.pop("num_frames", None)
    assert options.pop("patch_size", 4) == 4 and options.pop("in_chans", 3) == 3
    options["width"] = options.pop("embed_dim")
    return create_model("video_focalnet_tiny", **options).eval()


def filled(keys: dict[str, list[int]], prefix: str = "") -> dict[str, Tensor]:
    return {key: torch.from_numpy(fill(prefix + key, tuple(shape))) for key, shape in keys.items()}


def clips(described: dict[str, Any], seed_step: int = 0) -> Tensor:
    """The golden's input (B,3,T,H,W), in whose axis order it may be."""
    assert described.get("normalised", True)
    return channels_first(clip(described["seed"] + seed_step, tuple(described["shape"])), described["layout"])


def run_model(golden: Golden, arrays: Arrays) -> None:
    model = build(golden["config"])
    assert not golden.get("int_keys")
    assert list(model.state_dict()) == list(golden["keys"])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == golden["keys"]
    if "params" in golden:
        assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
    report = load_weights(model, {"model": filled(golden["keys"]), "epoch": 1})
    assert sorted(report.loaded) == sorted(golden["keys"])

    outputs = forward(model, clips(golden["input"]))
    assert set(golden["outputs"]) == set(arrays)
    tolerance = golden["tolerance"]
    for name, about in golden["outputs"].items():
        ours, stride = outputs[name], about.get("flat_stride", 1)
        assert list(ours.shape) == about["shape"], name
        largest = about["abs_max"]
        atol = tolerance["logits_abs"] if name == "logits" else tolerance["intermediates_rel_to_abs_max"] * largest
        part = ours.reshape(-1)[::stride] if stride > 1 else ours
        np.testing.assert_allclose(part, arrays[name], rtol=0, atol=atol, err_msg=name)
        assert abs(ours.abs().max().item() - largest) <= atol, name
    if change := golden.get("sensitivity", {}).get("logits_max_abs_change_for_clip_seed_plus_1000"):
        other = forward(model, clips(golden["input"], 1000))["logits"]
        assert abs((other - outputs["logits"]).abs().max().item() - change) <= 4 * tolerance["logits_abs"]


@torch.no_grad()
def forward(model: VideoModel, x: Tensor) -> dict[str, Tensor]:
    """Logits and every intermediate that a golden may ask for, under the golden's names and in its shapes."""
    seen: dict[str, Any] = {}
    watched: dict[str, nn.Module] = {"patch_embed": model.patch_embed, "head": model.head}
    watched |= {f"stage{i}": stage for i, stage in enumerate(model.layers)}
    hooks = [module.register_forward_hook(functools.partial(_remember, seen, name)) for name, module in watched.items()]
    try:
        with capture_modulators(model) as captured:
            logits = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    found = {"logits": logits, "pooled": seen["head"][0], "patch_embed": _tokens(seen["patch_embed"][1])}
    found |= {f"stage{i}": _tokens(seen[f"stage{i}"][1][-1]) for i in range(len(model.layers))}
    blocks: list[Modulators] = list(captured.values())
    for place, block in (("first", blocks[0]), ("last", blocks[-1])):
        found |= {f"modulator_spatial_{place}": block.spatial, f"modulator_temporal_{place}": block.temporal}
        found |= {f"gates_spatial_{place}": block.gates, f"gates_temporal_{place}": block.gates_temporal}
    return found


def run_inflate_2d(golden: Golden, arrays: Arrays) -> None:
    model = build(golden["config_video"])
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == golden["keys_video"] and list(shapes) == list(golden["keys_video"])
    own = filled(golden["keys_video"])
    model.load_state_dict(own)
    prefix = re.search(r"fill\('(.*?)' ?\+ ?key", golden["fill"]["2d checkpoint"])
    images = filled(golden["keys_2d"], prefix[1] if prefix else "")
    report = load_weights(model, {"model": images}, head="fresh")

    expected, after = golden["expected"], model.state_dict()
    stem = "patch_embed.proj.weight"
    assert (stem in report.resized) == (expected[stem] != "copied")
    copied = set(expected["copied_unchanged_from_2d"])
    assert set(report.loaded) - {stem} == copied - {stem}
    assert set(report.kept) == set(expected["kept_from_video_model"])
    assert set(report.ignored) - set(model.head_keys) == set(expected["ignored_2d_keys"]) - set(model.head_keys)
    for key in after.keys() - {stem}:
        assert torch.equal(after[key], images[key] if key in copied else own[key]), key

    outputs = forward(model, clips(golden["input"]))
    for name, expected in arrays.items():
        ours, atol = (after[name], 1e-7) if name in after else (outputs[name], golden["tolerance"])
        np.testing.assert_allclose(ours, expected, rtol=0, atol=atol, err_msg=name)
    assert stem in arrays and arrays.keys() & outputs.keys()


def run_modulator_maps(golden: Golden, arrays: Arrays) -> None:
    model = build(golden["config"])
    load_weights(model, filled(golden["keys"]))
    x = clips(golden["input"])
    with torch.no_grad(), capture_modulators(model) as captured:
        model(x)
    assert {name.rsplit("_", 1)[0] for name in arrays} <= golden["outputs"].keys()
    for name, shape in golden["outputs"].items():
        stage, place, kind = re.fullmatch(r"stage(\d+)_(first|last)_block_(spatial|temporal)", name).groups()  # type: ignore[union-attr]
        block = model.depths[int(stage)] - 1 if place == "last" else 0
        modulator = getattr(captured[f"layers.{stage}.blocks.{block}"], kind)
        norm = modulator_map(modulator)
        assert list(norm.shape) == shape
        drawn = modulator_map(modulator, tuple(x.shape[-2:]))
        for key, ours in ((f"{name}_norm", norm), (f"{name}_upsampled", drawn)):
            if key in arrays:
                expected = arrays[key]
                step = -(-ours.shape[-1] // expected.shape[-1])  # every second row and column may be all that is kept
                atol = golden["tolerance"]["relative_to_array_max"] * np.abs(expected).max()
                np.testing.assert_allclose(ours[..., ::step, ::step], expected, rtol=0, atol=atol, err_msg=key)


def _remember(seen: dict[str, Any], name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    seen[name] = (inputs[0], output)


def _tokens(x: Tensor) -> Tensor:
    """(B,T,H,W,C) → (B·T,H·W,C), as the goldens store tokens."""
    return x.flatten(2, 3).flatten(0, 1)


RUNNERS = {"model": run_model, "inflate_2d": run_inflate_2d, "modulator_maps": run_modulator_maps}
