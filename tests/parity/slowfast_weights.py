"""Runners of the SlowFast goldens about weights: names of other libraries, split norms, networks for images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fill import fill
from reading import formula
from slowfast_model import build_from_overrides, filled

from vidstill.models.adapt import Report, inflate
from vidstill.models.slowfast import caffe2_name
from vidstill.models.subnorm import Norm, SubNorm, split_norms
from vidstill.models.weights import load_weights

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def run_caffe2_names(golden: Golden, arrays: Arrays) -> None:
    pairs = dict(golden["pairs"])
    assert {blob: caffe2_name(blob) for blob in pairs} == pairs
    model = build_from_overrides(golden["yaml"], golden.get("overrides", []))
    own = model.state_dict()
    state = {blob: own[key] + 1 for blob, key in pairs.items()}
    extra = {name: torch.zeros(1) for name in golden["ignored"]}
    report = load_weights(model, {"blobs": {**state, **extra}}, head="fresh")
    assert set(report.ignored) == set(extra)
    assert set(report.loaded) == {pairs[blob] for blob in state}
    assert all(torch.equal(own[pairs[blob]], value) for blob, value in state.items())


def run_checkpoint_keys(golden: Golden, arrays: Arrays) -> None:
    cases = {name: case for name, case in golden.items() if isinstance(case, dict)}
    assert cases
    for case in cases.values():
        model = build_from_overrides(case["yaml"], case["overrides"])
        plain = list(model.state_dict())
        split_norms(model, case["num_splits"])
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        assert shapes == case["model_keys_with_subbn"] and list(shapes) == list(case["model_keys_with_subbn"])
        split_norms(model, 1)
        assert list(model.state_dict()) == plain

        released = _values(case["saved_keys_as_released"])
        report = load_weights(model, {"model_state": released})
        missing = case["missing_in_plain_model_as_released"]
        unexpected = case["unexpected_in_plain_model_as_released"]
        assert set(plain) - set(released) == set(missing) and set(released) - set(plain) == set(unexpected)
        assert set(report.loaded) == set(plain)
        state = model.state_dict()
        for key, value in released.items():
            assert torch.equal(state[key.replace(".bn.", ".") if key in unexpected else key], value), key
        assert bool(report.notes) == bool(unexpected)


def run_inflate(golden: Golden, arrays: Arrays) -> None:
    own = {key: torch.zeros(shape) for key, shape in golden["shapes_3d"].items()}
    images = {key: torch.from_numpy(fill(name, shape)) for key, (name, shape) in zip(own, _recipe(golden), strict=True)}
    report = Report("golden")
    state = {**own, **inflate(images, own, report)}
    for key in own:
        np.testing.assert_allclose(state[key], arrays[key], rtol=1e-6, atol=1e-7, err_msg=key)
        if images[key].shape != own[key].shape:
            assert (key in report.resized) != (key in report.kept)


def run_subbn(golden: Golden, arrays: Arrays) -> None:
    shape, recipe = tuple(golden["shape"]), golden["recipe"]
    (prefix,), (drawn,) = re.findall(r"fill\('(.*?)weight'", recipe), re.findall(r"x = (.*?) for batch item i", recipe)
    steps = re.findall(r"forward\(([^)]*)\) in train mode", recipe)
    assert len(steps) == 2 and steps[0] == "x", recipe
    norm = Norm(shape[1], golden["eps"], golden["momentum"])
    norm.load_state_dict(filled({"weight": [shape[1]], "bias": [shape[1]]}, prefix), strict=False)
    layer = SubNorm(norm, golden["num_splits"]).train()
    assert list(layer.state_dict()) == golden["state_keys"]
    item = np.arange(shape[0], dtype=np.float32).reshape(-1, 1, 1, 1, 1)
    x = torch.from_numpy(formula(drawn, seed=golden["seed"], shape=shape, i=item))
    np.testing.assert_allclose(x, arrays["x"], rtol=0, atol=1e-6)
    with torch.no_grad():
        ours = {"train_out": layer(x)}
        layer(formula(steps[1], x=x))
        layer.aggregate()
        ours |= {f"split_{name}": getattr(layer.split_bn, name) for name in ("running_mean", "running_var")}
        ours |= {f"agg_{name}": getattr(layer.bn, name) for name in ("running_mean", "running_var")}
        ours["eval_out"] = layer.eval()(x)
        whole = layer.whole()
        torch.testing.assert_close(whole(x), ours["eval_out"], rtol=1e-5, atol=1e-5)
    for name in arrays.keys() - {"x"}:
        np.testing.assert_allclose(ours[name], arrays[name], rtol=0, atol=golden["tolerance"], err_msg=name)


def _recipe(golden: Golden) -> list[tuple[str, tuple[int, ...]]]:
    """The golden writes its tensors as text: fill('a1'),(4,3,7,7); …"""
    found = re.findall(r"fill\('(\w+)'\),\(([\d,]+)\)", golden["recipe"])
    return [(name, tuple(int(n) for n in text.split(",") if n)) for name, text in found]


def _values(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {
        key: torch.tensor(3) if key.endswith("num_batches_tracked") else value
        for (key, value) in filled(shapes).items()
    }


RUNNERS = {
    ("slowfast", "caffe2_names"): run_caffe2_names,
    ("slowfast", "checkpoint_keys"): run_checkpoint_keys,
    ("slowfast", "inflate"): run_inflate,
    ("slowfast", "subbn"): run_subbn,
}
