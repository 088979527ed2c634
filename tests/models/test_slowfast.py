"""SlowFast networks: costs, formulas of their parts by independent means, what their input may be."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vidstill.config import Clip
from vidstill.evaluation.engine import scores_of
from vidstill.models.catalogue import CATALOGUE
from vidstill.models.convolution import Chain, Conv3d, conv_norm, max_pool
from vidstill.models.pathways import CMDA, PositionAttention, slow_frames
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.slowfast import Head, NonLocal
from vidstill.models.subnorm import Norm, split_norms
from vidstill.models.weights import load_weights

FAMILY = [name for name, entry in CATALOGUE.items() if entry.module in ("slowfast", "light3d")]
MICRO = {"width": 8, "depths": (1, 1, 1, 1), "beta": 4}
TINY = [
    ("slowfast_r50", {**MICRO, "alpha": 4}),
    ("slowfast_r50", {**MICRO, "alpha": 4, "nonlocal_blocks": [[[], []], [[0], []], [[0], [0]], [[], []]]}),
    ("slowfast_dual_r50", {**MICRO, "alpha": 4}),
    ("i3d_r50", MICRO),
    ("slowfast_shufflenet", {"width": 1, "groups": 3}),
    ("slowfast_shufflenetv2", {"width": 0.25}),
    ("slowfast_mobilenetv2", {"width": 0.5}),
    ("slowfast_ghostnet", {"width": 0.5}),
    ("shufflenet_3d", {"width": 0.25}),
    ("shufflenetv2_3d", {"width": 0.25}),
    ("mobilenetv2_3d", {"width": 0.25}),
]


def clips(frames: int = 8, size: int = 64, batch: int = 1) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, frames, size, size, 3).permute(0, 4, 1, 2, 3)


def drawn(name: str, options: dict[str, object], classes: int = 5) -> VideoModel:
    """With statistics and weights of norms that are not those of a fresh network."""
    torch.manual_seed(0)
    model = create_model(name, classes, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("name", FAMILY)
def test_the_catalogue_is_true(name: str) -> None:
    entry = CATALOGUE[name]
    model = create_model(name, device="meta").eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    frames, size = (int(part.rstrip("²")) for part in entry.input.split("x"))
    assert (model.input.frames, model.input.size) == (frames, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, frames, size, size, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(entry.gmacs, abs=0.005)


@pytest.mark.parametrize(("name", "options"), TINY)
def test_every_network_answers_and_learns(name: str, options: dict[str, object]) -> None:
    model = drawn(name, options)
    frames = 16 if name.endswith("_3d") else 8
    x = clips(frames)
    with torch.no_grad():
        logits = model(x)
        features = model.forward_features(x)
        torch.testing.assert_close(model.forward_head(features), logits)
        torch.testing.assert_close(model(x.contiguous()), logits, rtol=1e-4, atol=1e-5)
    assert logits.shape == (1, 5) and all(feature.ndim == 5 for feature in features.values())
    assert model.get_submodule(model.cam_layer) is not None
    model.train()(clips(frames, batch=2)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.reset_classifier(3)
    assert model.eval()(x).shape == (1, 3) and model.num_classes == 3
    model.reset_classifier(0)
    assert model(x).ndim == 2


@pytest.mark.parametrize(("name", "options"), TINY)
def test_the_form_for_inference_gives_the_same(name: str, options: dict[str, object]) -> None:
    model, x = drawn(name, options), clips(16, 48)
    with torch.inference_mode():
        expected = model(x)
        given = model.optimise_for_inference()(x)
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        assert model(clips(32, 64)).shape == (1, 5)  # packed weights take other clips too


def test_recomputing_changes_neither_gradients_nor_statistics() -> None:
    states = []
    for checkpointing in (False, True):
        model = drawn("slowfast_r50", {**MICRO, "alpha": 4, "dropout": 0.0}).train()
        model.checkpointing = checkpointing
        model(clips(batch=2)).square().sum().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        states.append([*gradients, *(b for name, b in model.named_buffers() if "num_batches" not in name)])
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other)


def test_a_still_clip_moves_neither_fusion() -> None:
    """Position attention and channel attention against their formulas, written out."""
    torch.manual_seed(0)
    fusion = CMDA(12, 3, alpha=2, beta=4, reduction=1).eval()
    nn.init.constant_(fusion.attention_spatial_s2f.gamma, 0.7)
    slow, fast = torch.randn(2, 12, 2, 3, 4), torch.randn(2, 3, 4, 3, 4)
    with torch.no_grad():
        slow_out, fast_out = fusion([slow, fast])
        pooled = F.max_pool3d(fast, (2, 1, 1))
        gate = fusion.attention_channel_f2s.conv(pooled.mean((2, 3, 4))[:, None]).sigmoid()[:, 0, :, None, None, None]
        torch.testing.assert_close(slow_out, torch.cat([slow, F.relu(fusion.bn_f2s(pooled * gate))], 1))
        layer = fusion.attention_spatial_s2f
        reduced = fusion.downsample_c_of_slow(slow)
        attended = layer.gamma * written_out(layer, reduced) + reduced
        expected = F.interpolate(F.relu(fusion.bn_s2f(attended)), scale_factor=(2, 1, 1))
        torch.testing.assert_close(fast_out, torch.cat([expected, fast], 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduction", [1, 2])
def test_attention_is_that_of_all_places(reduction: int) -> None:
    torch.manual_seed(0)
    layer, x = PositionAttention(4, reduction), torch.randn(2, 4, 2, 3, 5)
    nn.init.constant_(layer.gamma, 1.0)
    torch.testing.assert_close(layer(x), written_out(layer, x) + x, rtol=1e-4, atol=1e-5)


def written_out(layer: PositionAttention, x: Tensor) -> Tensor:
    q, k, v = (F.conv3d(x, m.weight, m.bias).flatten(2) for m in (layer.query_conv, layer.key_conv, layer.value_conv))
    return torch.einsum("bij,bcj->bci", torch.einsum("bci,bcj->bij", q, k).softmax(-1), v).view_as(x)


@pytest.mark.parametrize("kind", ["softmax", "dot_product"])
@pytest.mark.parametrize("groups", [1, 2])
def test_nonlocal_blocks(kind: str, groups: int) -> None:
    torch.manual_seed(0)
    block, x = NonLocal(8, kind, (1, 2, 2), groups).eval(), torch.randn(2, 8, 4, 4, 6)
    parts = []
    with torch.no_grad():
        for clip in x.chunk(groups, 2):
            pooled = F.max_pool3d(clip, (1, 2, 2))
            layers = ((block.conv_theta, clip), (block.conv_phi, pooled), (block.conv_g, pooled))
            q, k, v = (F.conv3d(y, m.weight, m.bias).flatten(2) for m, y in layers)
            scores = torch.einsum("bci,bcj->bij", q, k)
            scores = (scores / 2).softmax(-1) if kind == "softmax" else scores / k.shape[-1]
            gathered = torch.einsum("bij,bcj->bci", scores, v).unflatten(2, clip.shape[2:])
            parts.append(clip + block.bn(F.conv3d(gathered, block.conv_out.weight, block.conv_out.bias)))
        torch.testing.assert_close(block(x), torch.cat(parts, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 1, 1), (5, 1, 1), (3, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions_are_conv3d(kernel: tuple[int, ...], stride: tuple[int, ...], groups: int) -> None:
    torch.manual_seed(0)
    layer, norm = Conv3d(4, 8, kernel, stride, groups=groups), Norm(8).eval()
    nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    x = clips(6, 7).repeat(2, 2, 1, 1, 1)[:, :4]
    expected = F.conv3d(x, layer.weight, None, stride, layer.padding, 1, groups)  # type: ignore[arg-type]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
            both = conv_norm(x, layer, norm, "relu", plus=expected)
            torch.testing.assert_close(both, F.relu(norm(expected) + expected), rtol=1e-4, atol=1e-5)
    chain = Chain(layer, norm, nn.ReLU6())
    torch.testing.assert_close(chain(x), F.relu6(norm(expected)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (2, 1, 1)])
def test_pooling_is_max_pool3d(kernel: tuple[int, ...]) -> None:
    x = clips(6, 9)
    stride = tuple(min(k, 2) for k in kernel)
    expected = F.max_pool3d(x, kernel, stride, tuple(k // 2 if k % 2 else 0 for k in kernel))
    assert torch.equal(max_pool(x, kernel, stride), expected)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_larger_test_crop_averages_the_scores_of_its_windows(activation: str) -> None:
    torch.manual_seed(0)
    head = Head([4], 3, 0.0, [(2, 2, 2)], activation).eval()
    nn.init.normal_(head.projection.weight)
    x = torch.randn(2, 4, 2, 3, 2)
    places = [scores_of(head.projection(x[:, :, :, i : i + 2].mean((2, 3, 4))), activation) for i in range(2)]
    torch.testing.assert_close(scores_of(head([x]), activation), (places[0] + places[1]) / 2)


def test_the_activation_of_a_model_is_that_of_its_windows() -> None:
    model = create_model("slowfast_r50", 5, **MICRO)
    model.activation = "sigmoid"
    assert model.head.activation == model.activation == "sigmoid"


@pytest.mark.parametrize(("frames", "alpha", "expected"), [
    (32, 4, (0, 4, 8, 13, 17, 22, 26, 31)), (32, 8, (0, 10, 20, 31)), (16, 4, (0, 5, 10, 15)), (8, 4, (0, 7)),
])  # fmt: skip
def test_slow_frames(frames: int, alpha: int, expected: tuple[int, ...]) -> None:
    assert slow_frames(frames, alpha) == expected


@pytest.mark.parametrize(("name", "options", "message"), [
    ("slowfast_shufflenetv2", {"width": 0.3}, "width 0.3: there are 0.25, 0.5, 1.0, 1.5, 2.0"),
    ("slowfast_shufflenet", {"groups": 5}, "groups 5: there are 1, 2, 3, 4, 8"),
    ("slowfast_r50", {"pathways": ("fastest",)}, "no pathway 'fastest': allowed are slow, fast, c2d, i3d"),
    ("slowfast_r50", {"widht": 8}, r"no option 'widht' \(did you mean width\?\)"),
    ("slowfast_ghostnet", {"groups": 3}, "no option 'groups'; allowed: width, beta, in_channels, alpha, dropout"),
    ("slowfast_mobilenetv2", {"width": 0.25}, "a layer from 1 to 0 channels: take a larger width or a smaller beta"),
    ("slowfast_r50", {"width": 4}, "a layer from 3 to 0 channels"),
    ("slowfast_shufflenet", {"beta": 0}, "alpha 4, beta 0: both must be at least 1"),
    ("slowfast_dual_r50", {"alpha": 0}, "alpha 0, beta 8"),
])  # fmt: skip
def test_wrong_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, device="meta", **options)


def test_wrong_clips() -> None:
    model = create_model("slowfast_r50", 5, **MICRO)
    with pytest.raises(ValueError, match="6 frames: give a multiple of alpha, 4"):
        model(clips(6))
    with pytest.raises(ValueError, match=r"clips are \(B,3,T,H,W\), got \(1, 8, 64, 64, 3\)"):
        model(clips().permute(0, 2, 3, 4, 1))
    with pytest.raises(ValueError, match="8 frames: give a multiple of 16"):
        create_model("shufflenet_3d", 5, width=0.25)(clips(8))


def test_split_norms_and_back() -> None:
    model = drawn("slowfast_dual_r50", {**MICRO, "alpha": 4}).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parameters = list(model.parameters())
    split_norms(model, 2)
    model(clips(batch=4))
    assert list(model.parameters()) == parameters
    report = load_weights(create_model("slowfast_dual_r50", 5, **MICRO, alpha=4), model.state_dict())
    assert report.notes
    split_norms(model, 1)
    assert list(model.state_dict()) == list(before)


def test_reversed_channels() -> None:
    plain, reverse = (drawn("slow_r50", {**MICRO, "reverse_channels": flag}) for flag in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(reverse(clips()), plain(clips().flip(1)))


def test_input_says_how_clips_are_made() -> None:
    spec = create_model("slowfast_r50", device="meta").input
    assert isinstance(spec, Clip) and (spec.sampling, spec.views, spec.fps) == ("timed_window", "torch", 30)


def test_c2d_without_pooling_along_time_takes_the_same_weights() -> None:
    """Released as C2D_NOPOOL: nothing sees two frames, so the logits of frames are averaged before the head."""
    pooled = create_model("c2d_r50", device="meta", test_window=[8, 224])
    plain = create_model("c2d_r50", device="meta", test_window=[8, 224], pool_frames=False)
    shapes = [[(key, value.shape) for key, value in model.state_dict().items()] for model in (pooled, plain)]
    assert shapes[0] == shapes[1]
    for frames, model in ((4, pooled), (8, plain)):
        clip = torch.empty(1, 3, 8, 256, 256, device="meta")
        assert model.eval().forward_features(clip)["s5.0"].shape == (1, 2048, frames, 8, 8)
        assert model(clip).shape == (1, 400)
    small, x = drawn("c2d_r50", {**MICRO, "pool_frames": False}), clips(3)
    with torch.no_grad():
        frames = small.forward_features(x)["s5.0"].unbind(2)
        for frame, alone in zip(frames, x.unbind(2), strict=True):
            torch.testing.assert_close(small.forward_features(alone.unsqueeze(2))["s5.0"][:, :, 0], frame)


def test_reversed_channels_are_of_colours() -> None:
    with pytest.raises(ValueError, match="reverse_channels swaps red and blue, in_channels is 2: leave it out"):
        create_model("slow_r50", device="meta", in_channels=2, reverse_channels=True)
