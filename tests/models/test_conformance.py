"""What every registered model answers, held against every one of them."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

import vidstill
from vidstill.config import Clip
from vidstill.explain.gradcam import find_layer
from vidstill.models import convolution, model
from vidstill.models.catalogue import CATALOGUE
from vidstill.models.layers import can_pack, is_packed
from vidstill.models.model import SavedModel, VideoModel
from vidstill.models.pathways import PositionAttention
from vidstill.models.registry import create_model, list_models
from vidstill.models.weights import save

DUAL = {
    "video_size": (8, 64, 64), "embed_dims": (8, 16, 16, 16), "num_heads": (1, 2, 2, 2), "depths": (2, 2, 2, 2),
    "mlp_ratios": (2, 2, 2, 2), "local_sizes": ((2, 4, 4), (4, 2, 2), (4, 2, 2), (4, 1, 1)),
    "fine_pysizes": ((4, 4, 4), (2, 2, 2), (2, 1, 1), (4, 1, 1)), "coarse_pysizes": ((2, 1, 1),) * 4,
}  # fmt: skip
FOCAL = {"width": 8, "depths": (1, 2), "focal_levels": (2, 1), "focal_windows": (3, 3), "init_std": 0.15}
RESNET = {"width": 8, "depths": (1, 1, 1, 1), "beta": 4}
ODD = [(4, 32, 32), (1, 47, 65)]
ANY, MULTIPLES, LONG = [(4, 32, 32), (3, 48, 64)], [(4, 32, 32), (8, 48, 64)], [(16, 32, 32), (19, 48, 64)]
SMALL: dict[str, tuple[dict[str, Any], list[tuple[int, int, int]]]] = {  # options; frames, height, width
    "dualformer_tiny": (DUAL, [(8, 64, 64), (5, 47, 70)]),
    "dualformer_small": (DUAL | {"qkv_bias": False}, [(8, 64, 64), (5, 47, 70)]),
    "dualformer_base": (DUAL | {"token_head": True}, [(8, 64, 64), (5, 47, 70)]),
    "vfl_net": (FOCAL, ANY),
    "video_focalnet_tiny": (FOCAL | {"tubelet_size": 2}, [(4, 32, 32), (6, 48, 64)]),
    "video_focalnet_small": (FOCAL | {"use_conv_embed": True, "use_layerscale": True, "layerscale_value": 0.5}, ANY),
    "video_focalnet_base": (
        FOCAL | {"use_postln": True, "use_postln_in_modulation": True, "normalize_modulator": True},
        ANY,
    ),
    "slowfast_r50": (RESNET, MULTIPLES),
    "slowfast_r101": (RESNET, MULTIPLES),
    "slowfast_dual_r50": (RESNET, MULTIPLES),
    "slow_r50": (RESNET, ANY),
    "c2d_r50": (RESNET, ANY),
    "i3d_r50": (RESNET, ANY),
    "slowfast_shufflenet": ({"width": 0.5, "beta": 2}, MULTIPLES),
    "slowfast_shufflenetv2": ({"width": 0.25}, MULTIPLES),
    "slowfast_mobilenetv2": ({"width": 0.25, "beta": 2}, MULTIPLES),
    "slowfast_ghostnet": ({"width": 0.5}, MULTIPLES),
    "shufflenet_3d": ({"width": 0.25}, [(16, 32, 32), (32, 48, 64)]),
    "shufflenetv2_3d": ({"width": 0.25}, LONG),
    "mobilenetv2_3d": ({"width": 0.25}, LONG),
    "tsm_efficientnet_lite0": ({"width": 0.25}, ODD),
    "tsm_efficientnet_lite1": ({"width": 0.25, "shift": 0.25, "online": True}, ODD),
    "tsm_efficientnet_lite2": ({"width": 0.25, "shift": 0.0}, ODD),
    "tsm_mobilenetv2": ({"width": 0.25}, ODD),
}
NAMES = list_models()
EVERY = pytest.mark.parametrize("name", NAMES)
needs_packing = pytest.mark.skipif(not can_pack(torch.float32), reason="no x86 CPU with oneDNN")


def drawn(name: str, seed: int = 0, classes: int = 5, **options: Any) -> VideoModel:
    """A small one in eval mode, whose every weight and statistic shows in the logits."""
    torch.manual_seed(seed)
    model = create_model(name, classes, **{**SMALL[name][0], **options}).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        elif isinstance(module, nn.Conv3d):  # as strong behind as before, also where it is depth-wise
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
        elif isinstance(module, PositionAttention):
            nn.init.constant_(module.gamma, 0.5)
        elif name.startswith("dual") and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    return model


def clips(shape: tuple[int, int, int], batch: int = 2, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, *shape, channels, generator=generator).permute(0, 4, 1, 2, 3)


def shape_of(name: str) -> tuple[int, int, int]:
    return SMALL[name][1][0]


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()) + 1e-9)


def test_none_is_left_out() -> None:
    assert sorted(SMALL) == NAMES == sorted(CATALOGUE)


@EVERY
def test_it_builds_without_memory_and_takes_the_clips_that_it_asks_for(name: str) -> None:
    model = create_model(name, device="meta").eval()
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    frames, size = model.input.frames, model.input.size
    with torch.no_grad():
        for shape in ((frames, size, size), (2 * frames, size + 32, size)):
            features = model.forward_features(torch.empty(1, 3, *shape, device="meta"))
            assert model.forward_head(features).shape == (1, 400)


@EVERY
def test_all_that_it_is_made_of_is_in_its_state(name: str) -> None:
    model = drawn(name)
    assert {key for key, _ in (*model.named_buffers(), *model.named_parameters())} == model.state_dict().keys()
    assert model.head_keys[0] in model.state_dict()


@EVERY
def test_logits_are_the_head_of_its_features_at_every_size(name: str) -> None:
    model = drawn(name)
    for shape in SMALL[name][1]:
        x = clips(shape)
        with torch.no_grad():
            logits, features = model.forward_with_features(x)
            assert logits.shape == (2, 5) and logits.isfinite().all()
            assert all(feature.ndim == 5 and len(feature) == 2 for feature in features.values())
            close(model(x), logits)
            close(model(x.contiguous()), logits)
            assert (model(-x) - logits).abs().max() > 1e-3 * logits.abs().max(), "says the same to every clip"
            assert model(x.double()).dtype == torch.float64


@EVERY
def test_wrong_clips_are_named_in_one_line(name: str) -> None:
    model, (frames, height, width) = drawn(name), shape_of(name)
    for x in (
        torch.zeros(2, 4, frames, height, width), torch.zeros(3, frames, height, width),
        torch.zeros(2, 3, 0, height, width), torch.zeros(2, 3, frames, 0, width),
    ):  # fmt: skip
        for call in (model, model.forward_features):
            with pytest.raises(ValueError, match=r"frames|clips") as error:
                call(x)
            assert "\n" not in str(error.value)


@EVERY
def test_other_channels_than_colours(name: str) -> None:
    model, shape = drawn(name, in_channels=2), shape_of(name)
    assert model.in_channels == 2
    with torch.no_grad():
        assert model(clips(shape, channels=2)).shape == (2, 5)
        model.optimise_for_inference()
        assert model(clips(shape, channels=2)).shape == (2, 5)
    with pytest.raises(ValueError, match=r"clips are \(B,2,T,H,W\), got \(2, 3, "):
        model(clips(shape))


@EVERY
def test_a_fresh_head(name: str) -> None:
    model, x = drawn(name).to(torch.float64), clips(shape_of(name))
    model.classes = list("abcde")
    model.reset_classifier(3)
    assert model.num_classes == 3 and model.classes is None and model(x).shape == (2, 3)
    assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {torch.float64}
    model.reset_classifier(0)
    pooled = model(x)
    assert model.num_classes == 0 and pooled.ndim == 2
    model.reset_classifier(4)
    weight = dict(model.named_parameters())[model.head_keys[0]]
    assert weight.shape == (4, pooled.shape[1]) and model(x).shape == (2, 4)
    assert create_model(name, 0, **SMALL[name][0]).eval()(x.float()).shape == pooled.shape


@EVERY
def test_stages_cover_the_network_once(name: str) -> None:
    full = create_model(name, device="meta")
    head = full.head_keys[0].split(".")[0]
    body = {id(p): p.numel() for key, p in full.named_parameters() if key.split(".")[0] != head}
    staged = [id(p) for stage in full.stages() for p in stage.parameters()]
    assert len(staged) == len(set(staged)), "one stage is inside another"
    assert sum(body[key] for key in staged) > 0.95 * sum(body.values())

    model, called = drawn(name).train(), []
    assert all(any(True for _ in stage.parameters()) for stage in model.stages())
    for number, stage in enumerate(model.stages()):
        stage.register_forward_hook(lambda *_, number=number: called.append(number))
    for call in (model, model.forward_features):
        called.clear()
        call(clips(shape_of(name)))
        assert called == list(range(len(model.stages()))), "called as modules, in order: else nothing is compiled"


@EVERY
def test_recomputing_changes_neither_gradients_nor_statistics(name: str) -> None:
    states = []
    for checkpointing in (False, True):
        model = drawn(name).train()
        model.checkpointing = checkpointing
        torch.manual_seed(3)
        model(clips(shape_of(name))).square().sum().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        states.append([*gradients, *model.buffers()])
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other)


@EVERY
def test_the_layer_of_grad_cam_and_its_channels(name: str) -> None:
    model, taken = drawn(name), []
    layer = find_layer(model, model.cam_layer)
    layer.register_forward_hook(lambda module, inputs, output: taken.append(output))
    x = clips(shape_of(name))
    features = model.forward_features(x)
    outputs = [taken[0]] if isinstance(taken[0], Tensor) else list(taken[0])
    assert len(outputs) == len(model.seen_frames(x.shape[2]))
    for output in outputs:
        assert output.ndim == 5 and output.requires_grad
        assert output.movedim(model.channel_axis, 1).shape in {feature.shape for feature in features.values()}
        slope = torch.autograd.grad(model.forward_head(features).sum(), output, retain_graph=True)[0]
        assert slope.abs().sum() > 0


@EVERY
def test_a_pathway_sees_the_frames_that_it_says(name: str) -> None:
    """Another frame changes what comes first in a pathway if and only if the pathway sees it."""
    model = drawn(name)
    frames, height, width = shape_of(name)
    x = clips((frames, height, width), 1)
    with torch.no_grad():
        before = list(model.forward_features(x).items())
        pathways = model.seen_frames(frames)
        for frame in range(frames):
            changed = x.clone()
            changed[:, :, frame] += 3
            after = model.forward_features(changed)
            for seen, (key, feature) in zip(pathways, before, strict=False):
                assert torch.equal(after[key], feature) == (frame not in seen), (key, frame)


@EVERY
def test_what_is_saved_comes_back(name: str, tmp_path: Path) -> None:
    model, x = drawn(name), clips(shape_of(name))
    model.classes, model.input, model.activation = list("abcde"), Clip(frames=16, size=96, seconds=2.5), "sigmoid"
    save(model, tmp_path / "best", metrics={"top1": 50.0})
    again = vidstill.load(tmp_path)
    assert isinstance(again, SavedModel) and json.dumps(again.description()) == json.dumps(model.description())
    assert (again.classes, again.input, again.activation) == (model.classes, model.input, "sigmoid")
    for (key, one), (other, value) in zip(again.state_dict().items(), model.state_dict().items(), strict=True):
        assert key == other and torch.equal(one, value)
    with torch.no_grad():
        assert torch.equal(again(x), model(x)) and not again.training


@EVERY
def test_a_full_one_is_not_taken_for_a_bomb(name: str) -> None:
    from vidstill.models.weights import _Bounded

    with _Bounded(10**9) as bound:
        model = create_model(name, device="meta")
    assert 10**9 - bound.left <= 2 * len(model.state_dict()) + 100


@EVERY
def test_the_input_of_one_is_its_own(name: str) -> None:
    one, other = (create_model(name, device="meta") for _ in range(2))
    before = {each: create_model(each, device="meta").input for each in (name, "vfl_net")}
    one.input = one.input.model_copy(update={"frames": 64})
    one.classes = ["a"]
    assert one.input.frames == 64 and other.input == before[name] == create_model(name, device="meta").input
    assert create_model("vfl_net", device="meta").input == before["vfl_net"] and other.classes is None
    with pytest.raises(ValueError, match="frozen"):
        other.input.frames = 64


BACK: dict[str, Callable[[VideoModel], VideoModel]] = {
    "load": lambda m: (m.load_state_dict(drawn(m.name, 1).state_dict()), m)[1],
    "assign": lambda m: (m.load_state_dict(drawn(m.name, 1).state_dict(), assign=True), m)[1],
    "load around": lambda m: (nn.ModuleList([m]).load_state_dict(nn.ModuleList([drawn(m.name, 1)]).state_dict()), m)[1],
    "train": lambda m: m.train(),
    "train around": lambda m: (nn.ModuleList([m]).train(), m)[1],
    "to and back": lambda m: m.to(torch.float64).to(torch.float32),
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "to": lambda m: m.to(torch.float64),
}


def outcome(model: VideoModel, x: Tensor) -> list[Tensor | None]:
    """Logits, gradients and statistics of a step."""
    torch.manual_seed(5)
    model.zero_grad()
    logits = model(x)
    logits.square().sum().backward()
    return [logits, *(parameter.grad for parameter in model.parameters()), *model.buffers()]


def same(ours: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@needs_packing
@EVERY
def test_packed_it_says_the_same_at_every_size_without_gradients(name: str) -> None:
    model, both = drawn(name), [clips(shape) for shape in SMALL[name][1]]
    with torch.no_grad():
        plain = [model(x) for x in both]
    assert model.optimise_for_inference() is model and is_packed(model)
    for inference, number in ((True, 0), (False, 1), (False, 0), (True, 1)):
        with torch.inference_mode(inference):
            logits, features = model.forward_with_features(both[number])
            assert not logits.requires_grad and not any(feature.requires_grad for feature in features.values())
            close(logits, plain[number])
            close(model(both[number]), plain[number])
    with torch.autocast("cpu", torch.bfloat16):
        close(model(both[1]), plain[1])


@needs_packing
@EVERY
def test_packed_it_goes_back_to_the_plain_network(name: str) -> None:
    """One way back after the other, packed and used in between."""
    ours, expected, x = drawn(name), drawn(name), clips(shape_of(name))
    for what, back in BACK.items():
        ours.optimise_for_inference()
        with torch.inference_mode(len(what) % 2 == 0):
            ours(x)
        ours, expected = back(ours), back(expected.eval())
        assert not is_packed(ours) and ours.training == expected.training, what
        same(outcome(ours, x), outcome(expected, x))
    ours = ours.to(torch.float32).optimise_for_inference()
    with torch.no_grad():
        close(ours(x), expected.to(torch.float32).eval()(x))


@EVERY
def test_bfloat16_on_a_device_without_packing_is_of_all_weights(name: str) -> None:
    model = create_model(name, device="meta", **SMALL[name][0]).optimise_for_inference(bf16=True)
    floats = [value for value in model.state_dict().values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.bfloat16} and not is_packed(model)
    assert model(clips(shape_of(name)).to("meta")).dtype == torch.float32


class Kernels:
    """oneDNN's operators as a CPU with bfloat16 instructions has them, by plain convolutions; types must agree."""

    def __init__(self) -> None:
        self.called = 0
        self._convolution_pointwise = lambda x, w, b, *rest: self.convolve(x, w, b, *rest)
        self._convolution_pointwise.binary = self.plus  # type: ignore[attr-defined]

    @staticmethod
    def _reorder_convolution_weight(weight: Tensor, *_: Any) -> Tensor:
        return weight.clone()

    @staticmethod
    def _reorder_linear_weight(weight: Tensor, *_: Any) -> Tensor:
        return weight.clone()

    def convolve(self, x: Tensor, w: Tensor, b: Tensor | None, padding: Any, stride: Any, dilation: Any, groups: int,
                 act: str | None = "none", bounds: Any = (), algorithm: Any = "") -> Tensor:  # fmt: skip
        assert x.dtype == w.dtype == torch.bfloat16 and (b is None or b.dtype == w.dtype) and not w.requires_grad
        self.called += 1
        y = (F.conv3d if w.ndim == 5 else F.conv2d)(x, w, b, stride, padding, dilation, groups)  # type: ignore[operator]
        names = {act.fused[0]: act.plain for act in convolution.ACTIVATIONS.values()}
        return names[act or "none"](y)

    def plus(self, x: Tensor, other: Tensor, w: Tensor, b: Tensor | None, padding: Any, stride: Any, dilation: Any,
             groups: int, op: str, alpha: Any, act: str | None, *_: Any) -> Tensor:  # fmt: skip
        assert op == "add" and other.dtype == x.dtype
        y = self.convolve(x, w, b, padding, stride, dilation, groups) + other
        return F.relu(y) if act == "relu" else y


@EVERY
def test_bfloat16_on_a_cpu_that_packs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = clips(shape_of(name))
    with torch.no_grad():
        exact, half = drawn(name)(x), drawn(name).to(torch.bfloat16)(x)
    kernels, ours = Kernels(), drawn(name)
    monkeypatch.setattr(model, "can_pack", lambda dtype: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.ops, "mkldnn", kernels)
    ours.optimise_for_inference(bf16=True)
    logits = ours(x)
    assert is_packed(ours) and next(ours.parameters()).dtype == torch.bfloat16
    assert logits.dtype == torch.float32 and not logits.requires_grad
    assert kernels.called or not any(isinstance(module, convolution.Conv3d) for module in ours.modules())
    allowed = 3 * (half - exact).abs().max() + 0.02 * exact.abs().max()
    assert (logits - exact).abs().max() <= allowed and math.isfinite(allowed)


def test_a_cpu_without_bfloat16_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "can_pack", lambda dtype: dtype == torch.float32)
    for name in NAMES:
        ours = create_model(name, **SMALL[name][0]).optimise_for_inference(bf16=True)
        assert next(ours.parameters()).dtype == torch.float32


@EVERY
def test_frozen_norms_keep_their_statistics_and_learn_their_scales(name: str) -> None:
    model = drawn(name)
    model.freeze_norms = True
    model.train()
    norms = [each for each in model.modules() if isinstance(each, _BatchNorm)]
    before = [buffer.clone() for buffer in model.buffers()]
    model(clips(shape_of(name))).square().sum().backward()
    assert all(torch.equal(*pair) for pair in zip(before, model.buffers(), strict=True))
    assert all(norm.weight is None or norm.weight.grad is not None for norm in norms)
    model.freeze_norms = False
    assert all(norm.training for norm in model.train().modules())
