import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vidstill.models import layers
from vidstill.models.layers import (
    can_pack,
    conv_depthwise,
    conv_strided,
    conv_temporal,
    dense,
    pack_dense,
    pack_depthwise,
    pack_strided,
    pack_temporal,
    pack_transform,
    transform_pays,
)

needs_packing = pytest.mark.skipif(not can_pack(torch.float32), reason="no x86 CPU with oneDNN")
FORMS = [False, pytest.param(True, marks=needs_packing)]
CAPABILITIES = ["AVX2", "AVX512"]  # each has its own kernel for `dense`; both run anywhere


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("bias", [True, False])
def test_dense(packed: bool, capability: str, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    torch.manual_seed(0)
    x, weight, other = torch.randn(3, 5, 4, 24), torch.randn(10, 24), torch.randn(3, 5, 4, 10)
    layer = (weight, torch.randn(10) if bias else None)
    expected = x.double() @ weight.double().t() + (layer[1].double() if bias else 0)
    layer = pack_dense(layer, 3, 20) if packed else layer
    close(dense(x, *layer), expected)
    close(dense(x, *layer, gelu=True), expected * (1 + torch.erf(expected / math.sqrt(2))) / 2)
    close(dense(x, *layer, times=other), expected * other)
    close(dense(x, *layer, plus=other), expected + other)
    close(dense(x[:1], *layer), expected[:1])


@pytest.mark.parametrize("packed", FORMS)
def test_conv_depthwise(packed: bool) -> None:
    x, weight = torch.randn(4, 6, 5, 16), torch.randn(16, 1, 5, 5)
    expected = F.gelu(F.conv2d(x.permute(0, 3, 1, 2).double(), weight.double(), padding=2, groups=16))
    weight = pack_depthwise(weight, 4, 6, 5) if packed else weight
    close(conv_depthwise(x, weight), expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("packed", FORMS)
def test_conv_strided(packed: bool) -> None:
    x, layer = torch.randn(4, 7, 9, 16), torch.nn.Conv2d(16, 8, 3, 2, 1)
    expected = F.conv2d(x.permute(0, 3, 1, 2).double(), layer.weight.double(), layer.bias.double(), 2, 1)
    weight, bias = pack_strided(layer, 4, 7, 9) if packed else (layer.weight, layer.bias)
    with torch.no_grad():
        close(conv_strided(x, weight, bias, 2, 1), expected.permute(0, 2, 3, 1))


def along_time(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The convolution as its definition has it: a 1-D one per pixel, in float64, and GELU."""
    b, t, h, w, c = x.shape
    rows = x.double().permute(0, 2, 3, 4, 1).reshape(b * h * w, c, t)
    y = F.gelu(F.conv1d(rows, weight.double(), padding=weight.shape[-1] // 2))
    return y.reshape(b, h, w, -1, t).permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("taps", [3, 5])
def test_conv_temporal(packed: bool, taps: int) -> None:
    x, weight = torch.randn(2, 6, 3, 4, 16), torch.randn(16, 16, taps) / 8
    kernel = weight.unsqueeze(-1)
    kernel = pack_temporal(kernel, 6, 12) if packed else kernel
    close(conv_temporal(x, kernel), along_time(x, weight))


@pytest.mark.parametrize("shape", [(1, 8, 7, 7, 16), (2, 4, 5, 4, 64), (1, 8, 3, 2, 128)])
def test_conv_temporal_gradients(shape: tuple[int, ...]) -> None:
    """Through both ways: narrow layers take the direct sum, wide ones the frequencies."""
    with torch.inference_mode():  # must leave nothing behind that has no gradient
        conv_temporal(torch.randn(shape), torch.randn(shape[-1], shape[-1], 3, 1))
    x = torch.randn(shape, requires_grad=True)
    weight = torch.rand(shape[-1], shape[-1], 3).sub(0.5).div(8).requires_grad_()
    conv_temporal(x, weight.unsqueeze(-1)).square().sum().backward()
    ours = x.grad.clone(), weight.grad.clone()
    x.grad = weight.grad = None
    along_time(x, weight).square().sum().backward()
    torch.testing.assert_close(ours, (x.grad, weight.grad), rtol=1e-3, atol=1e-3)


@needs_packing
@settings(deadline=None, max_examples=25)
@given(steps=st.integers(1, 17), taps=st.sampled_from([1, 3, 5, 7, 9]), clips=st.integers(1, 2), before=st.booleans())
def test_transform_is_the_convolution(steps: int, taps: int, clips: int, before: bool) -> None:
    torch.manual_seed(steps * 10 + taps)
    x, weight = torch.randn(clips, steps, 2, 3, 8), torch.randn(8, 8, taps) / 4
    linear = (torch.randn(8, 8) / 3, torch.randn(8)) if before else None
    y = pack_transform(weight, steps, 6, linear)(x)
    close(y, along_time(x if linear is None else x @ linear[0].t() + linear[1], weight))


@given(steps=st.integers(1, 64), taps=st.sampled_from([3, 5, 7, 9, 11]))
def test_transform_matrices_and_their_price(steps: int, taps: int) -> None:
    into, kernel, back = (torch.tensor(matrix) for matrix in layers.fourier(steps, taps))
    x, w = torch.randn(steps, dtype=torch.float64), torch.randn(taps, dtype=torch.float64)
    expected = F.conv1d(x[None], w[None, None], padding=taps // 2)[0]
    torch.testing.assert_close(back @ ((kernel @ w) * (into @ x)), expected)
    used = sum(0 <= t + j - taps // 2 < steps for t in range(steps) for j in range(taps))
    assert transform_pays(steps, taps, 10**9) == (len(into) < used)


def test_transform_pays_for_the_released_networks_and_not_for_narrow_or_short_ones() -> None:
    assert all(transform_pays(8, taps, width) for taps in (3, 5) for width in (96, 192, 384, 768))
    assert not transform_pays(8, 3, 8) and not transform_pays(1, 5, 1024) and not transform_pays(2, 3, 1024)


@needs_packing
def test_transform_is_closer_to_the_truth_than_the_direct_sum() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 8, 4, 4, 256), torch.randn(256, 256, 5) / 36
    expected = along_time(x, weight)
    transform = (pack_transform(weight, 8, 16)(x) - expected).abs().max()
    y = F.conv2d(x.flatten(2, 3).permute(0, 3, 1, 2), weight.unsqueeze(-1), padding=(2, 0))
    direct = (F.gelu(y).permute(0, 2, 3, 1).view(x.shape) - expected).abs().max()
    assert transform < 2 * direct


def test_can_pack_asks_for_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not can_pack(torch.float16)
    monkeypatch.setattr(layers.platform, "machine", lambda: "aarch64")
    assert not can_pack(torch.float32)


def test_packs_stay_out_of_copies() -> None:
    class Layer(layers.Packs, torch.nn.Module):
        pass

    layer = Layer()
    layer.packed, layer.kept = object(), 3
    assert "packed" not in layer.__getstate__() and layer.__getstate__()["kept"] == 3
