"""Shifted 2-D networks: the shift and the padding by brute force, the images' networks by an independent package."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidstill.models.convolution import SameConv2d
from vidstill.models.registry import create_model
from vidstill.models.shift import shift
from vidstill.models.weights import load_weights

SMALL = {"width": 0.25}


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shift_by_hand(frames: int, online: bool) -> None:
    x = torch.randn(2, 7, frames, 3, 4)
    expected = x.clone()
    for t in range(frames):
        expected[:, :2, t] = x[:, :2, t - 1] if t else 0
        if not online:
            expected[:, 2:4, t] = x[:, 2:4, t + 1] if t + 1 < frames else 0
    assert torch.equal(shift(x, 2, online), expected)


@pytest.mark.parametrize("size", [(224, 224), (7, 10), (5, 9), (1, 2)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (5, 1)])
def test_padding_is_tensorflows(size: tuple[int, int], kernel: int, stride: int) -> None:
    """Output i of SAME sees the inputs from i·stride - ⌊missing/2⌋ on, where missing makes ⌈n/stride⌉ outputs."""
    torch.manual_seed(0)
    layer = SameConv2d(2, 3, kernel, stride)
    x = torch.randn(1, 2, 2, *size)
    y = layer(x)
    outs = [-(-n // stride) for n in size]
    assert y.shape[3:] == tuple(outs)
    before = [max((out - 1) * stride + kernel - n, 0) // 2 for n, out in zip(size, outs, strict=True)]
    padded = F.pad(x, (before[1], 2 * kernel, before[0], 2 * kernel))
    for i, j in ((0, 0), (outs[0] - 1, outs[1] - 1)):
        patch = padded[..., i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        expected = torch.einsum("bcthw,ochw->bot", patch, layer.weight[:, :, 0])
        assert torch.allclose(y[..., i, j], expected, atol=1e-5)


def features(frames: int, online: bool, changed: int | None = None) -> Tensor:
    torch.manual_seed(0)
    model = create_model("tsm_mobilenetv2", 4, online=online, **SMALL).eval()
    clip = torch.randn(1, 3, frames, 32, 32, generator=torch.Generator().manual_seed(1))
    if changed is not None:
        clip[:, :, changed] += 1
    with torch.no_grad():
        return model.forward_features(clip)["last"]


def test_online_sees_no_later_frame() -> None:
    assert torch.equal(features(6, True)[:, :, :3], features(6, True, changed=3)[:, :, :3])
    assert not torch.equal(features(6, False)[:, :, :3], features(6, False, changed=3)[:, :, :3])


def test_online_sees_earlier_frames() -> None:
    assert not torch.equal(features(6, True)[:, :, 4], features(6, True, changed=3)[:, :, 4])


def test_without_shift_frames_are_images() -> None:
    """A clip's logits are the mean of those of its frames, in any order."""
    model = create_model("tsm_efficientnet_lite0", 5, shift=0.0, **SMALL).eval()
    clip = torch.randn(2, 3, 4, 40, 40)
    with torch.no_grad():
        alone = torch.stack([model(clip[:, :, t : t + 1]) for t in range(4)]).mean(0)
        assert torch.allclose(model(clip), alone, atol=1e-5)
        assert torch.allclose(model(clip.flip(2)), alone, atol=1e-5)


def test_the_shift_tells_forwards_from_backwards() -> None:
    model = create_model("tsm_efficientnet_lite0", 5, **SMALL).eval()
    clip = torch.randn(1, 3, 4, 40, 40)
    with torch.no_grad():
        assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-3)


def test_checkpointing_keeps_fewer_activations() -> None:
    kept = []
    for checkpointing in (False, True):
        model = create_model("tsm_efficientnet_lite0", 5, **SMALL)
        model.checkpointing, sizes = checkpointing, list[int]()
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):  # type: ignore[misc]
            model(torch.randn(1, 3, 4, 64, 64))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match=r"a share of the channels, 0 to 0\.5"):
        create_model("tsm_mobilenetv2", 4, shift=share)


@pytest.mark.parametrize("form", ["torchvision", "flat", "tsm"])
def test_released_names_of_mobilenetv2(tmp_path: Path, form: str) -> None:
    """torchvision's `conv.0.1.weight`, the flat `conv.1.weight`, and TSM's `conv.0.net.weight`."""
    torch.manual_seed(0)
    source = create_model("tsm_mobilenetv2", 7, **SMALL)
    blocks = [f"stage{s}.{n}" for s in range(1, 8) for n in range(len(source.get_submodule(f"stage{s}")))]  # type: ignore[arg-type]
    released = {}
    for key, value in source.state_dict().items():
        value = value[:, :, 0] if value.ndim == 5 else value
        stage, _, rest = key.partition(".")
        if stage in ("stem", "last"):
            name = f"features.{0 if stage == 'stem' else 18}.{rest}"
        elif stage == "head":
            name = f"{'new_fc' if form == 'tsm' else 'classifier.1'}.{rest}"
        else:
            block = ".".join(key.split(".")[:2])
            layer, part = key.split(".")[3:]
            place, last = int(layer), 6 if "stage1." not in key else 3
            if form == "torchvision":
                inner = f"{place // 3}.{place % 3}" if place < last else f"{last // 3 + place - last}"
            else:
                inner = layer + (".net" if form == "tsm" and place == 0 and value.ndim == 4 else "")
            name = f"features.{1 + blocks.index(block)}.conv.{inner}.{part}"
        released[("base_model." if form == "tsm" and stage != "head" else "") + name] = value
    torch.save({"state_dict": {f"module.{key}": value for key, value in released.items()}}, tmp_path / "m.pth.tar")
    model = create_model("tsm_mobilenetv2", 7, **SMALL)
    report = load_weights(model, tmp_path / "m.pth.tar")
    assert not report.kept and not report.ignored
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("version", [0, 1, 2])
def test_images_as_the_package_has_them(version: int) -> None:
    """Random weights under the package's names give the package's logits, at sizes that pad differently."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    name = f"efficientnet-lite{version}"
    torch.manual_seed(0)
    theirs = package.EfficientNet.from_name(name).eval()
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
            torch.nn.init.normal_(layer.running_mean, 0, 0.1)
    ours = create_model(f"tsm_efficientnet_lite{version}", 1000, shift=0.0).eval()
    report = load_weights(ours, theirs.state_dict())
    assert not report.kept and not report.ignored
    size = theirs._global_params.image_size
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32))
    with torch.no_grad():
        assert torch.allclose(ours(images.unsqueeze(2)), theirs(images), atol=1e-5 * float(theirs(images).abs().max()))
