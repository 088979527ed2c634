import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vidstill.models.convolution import BatchNorm3d


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
