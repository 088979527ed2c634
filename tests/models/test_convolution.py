import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vidstill.models.convolution import ACTIVATIONS, BatchNorm3d, Chain, Conv3d, conv_norm
from vidstill.models.layers import can_pack, set_packing
from vidstill.models.subnorm import Norm

FORMS = [False, pytest.param(True, marks=pytest.mark.skipif(not can_pack(torch.float32), reason="no oneDNN"))]
PLAIN = {
    "none": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6(), "silu": nn.SiLU(), "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(), "gelu": nn.GELU(),
}  # fmt: skip


def clips(*shape: int) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 5
    return x.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("shape", [(4, 24, 16, 28, 28), (2, 8, 3, 7, 7), (1, 3, 1, 1, 5)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_of_a_training_batch_are_exact(shape: tuple[int, ...], momentum: float | None) -> None:
    ours = BatchNorm3d(shape[1], momentum=momentum)
    nn.init.normal_(ours.weight)
    exact = nn.BatchNorm3d(shape[1], momentum=momentum).double()
    exact.load_state_dict(ours.state_dict())
    for times in (1, 2):
        x = (clips(*shape) * times).requires_grad_()
        wide = x.detach().double().requires_grad_()
        y, expected = ours(x), exact(wide)
        assert (y - expected).abs().max() <= 4e-6
        y.pow(3).sum().backward()
        expected.pow(3).sum().backward()
        torch.testing.assert_close(x.grad, wide.grad.float(), rtol=1e-3, atol=1e-3 * float(wide.grad.abs().max()))
    for name, value in exact.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name].double(), value.double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.weight.grad.double(), exact.weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.bias.grad.double(), exact.bias.grad, rtol=1e-4, atol=1e-3)


def test_it_is_more_exact_than_pytorchs_own() -> None:
    """Else it is not needed."""
    x = clips(8, 16, 16, 28, 28)
    exact = F.batch_norm(x.double(), None, None, training=True)
    own, theirs = BatchNorm3d(16)(x), F.batch_norm(x, None, None, training=True)
    assert 20 * (own - exact).abs().max() < (theirs - exact).abs().max()


def test_other_types_and_single_places_are_pytorchs() -> None:
    x = clips(2, 3, 2, 4, 4).double()
    torch.testing.assert_close(BatchNorm3d(3).double()(x), nn.BatchNorm3d(3).double()(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match="more than 1 value"):
        BatchNorm3d(3)(torch.zeros(1, 3, 1, 1, 1))


def drawn(kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1), **options: bool | int) -> tuple[Conv3d, Norm]:
    torch.manual_seed(0)
    layer, norm = Conv3d(4, 8, kernel, stride, **options), Norm(8).eval()  # type: ignore[arg-type]
    nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    return layer, norm


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("act", sorted(ACTIVATIONS))
def test_activations_after_norm_and_sum(act: str, packed: bool) -> None:
    """Values on both sides of every bend, with and without a sum before."""
    layer, norm = drawn((1, 3, 3), bias=True)
    x, other = clips(2, 4, 3, 6, 5) - 5, clips(2, 8, 3, 6, 5) * 2 - 10
    y = norm(F.conv3d(x, layer.weight, layer.bias, padding=(0, 1, 1)))
    set_packing(layer, packed)
    with torch.no_grad():
        for plus in (None, other):
            expected = PLAIN[act](y if plus is None else y + plus)
            torch.testing.assert_close(conv_norm(x, layer, norm, act, plus), expected, rtol=1e-4, atol=1e-5)
            assert act == "none" or expected.min() < expected.max()
        if act != "none":
            chain = Chain(layer, norm, PLAIN[act])
            torch.testing.assert_close(chain(x), PLAIN[act](y), rtol=1e-4, atol=1e-5)
    assert (layer.packed is not None) == packed


def test_every_activation_has_a_gradient() -> None:
    layer, norm = drawn((1, 1, 1))
    x = clips(1, 4, 2, 3, 3) - 5
    for act, plain in PLAIN.items():
        layer.weight.grad = None
        conv_norm(x, layer, norm, act).square().sum().backward()
        ours = layer.weight.grad.clone()
        layer.weight.grad = None
        plain(norm(F.conv3d(x, layer.weight))).square().sum().backward()
        torch.testing.assert_close(ours, layer.weight.grad, rtol=1e-3, atol=1e-3 * float(ours.abs().max()))


def test_gelu_by_tanh_stays_a_layer_of_its_own() -> None:
    layer, _ = drawn((1, 1, 1))
    x = clips(1, 4, 2, 3, 3)
    chain = Chain(layer, nn.GELU(approximate="tanh"))
    torch.testing.assert_close(chain(x), F.gelu(F.conv3d(x, layer.weight), approximate="tanh"))


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("kernel", [(3, 1, 1), (5, 1, 1), (3, 3, 3), (2, 3, 3), (1, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 1), (2, 2, 2)])
def test_causal_convolutions_pad_before_the_first_frame(
    kernel: tuple[int, ...], stride: tuple[int, ...], packed: bool
) -> None:
    layer, norm = drawn(kernel, stride, causal=True)
    x = clips(2, 4, 6, 5, 5)
    padded = F.pad(x, (kernel[2] // 2, kernel[2] // 2, kernel[1] // 2, kernel[1] // 2, kernel[0] - 1, 0))
    expected = F.relu(norm(F.conv3d(padded, layer.weight, stride=stride)))
    set_packing(layer, packed)
    with torch.set_grad_enabled(not packed):
        y = conv_norm(x, layer, norm, "relu")
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        later = x.clone()
        later[:, :, 4:] += 1
        seen = -(-4 // stride[0])  # outputs whose frame comes before
        assert torch.equal(conv_norm(later, layer, norm, "relu")[:, :, :seen], y[:, :, :seen])
