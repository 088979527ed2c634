"""Real ShuffleNetV2 weights for images in the 3-D networks: on one frame the same features as the release gives."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidstill.models.convolution import Conv3d
from vidstill.models.registry import create_model
from vidstill.models.weights import load_weights


@pytest.fixture
def released(shared_data: Path) -> Path:
    path = shared_data / "weights" / "shufflenetv2.pth"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def written_out(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The release's network for images, (B,3,H,W) → features of its last stage."""

    def layer(x: Tensor, conv: str, norm: str, relu: bool, **options: int) -> Tensor:
        mean, var, weight, bias = (state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(F.conv2d(x, state[f"{conv}.weight"], **options), mean, var, weight, bias)  # type: ignore[arg-type]
        return F.relu(x) if relu else x

    x = F.max_pool2d(layer(x, "first_conv.0", "first_conv.1", True, stride=2, padding=1), 3, 2, 1)
    for stage, units in ((2, 4), (3, 8), (4, 4)):
        for unit in range(units):
            main, proj = (f"stage{stage}.{unit}.branch_{branch}" for branch in ("main", "proj"))
            through, y = (x, x) if unit == 0 else (x[:, ::2], x[:, 1::2])
            stride = 1 if unit else 2
            half = len(state[f"{main}.3.weight"])
            y = layer(y, f"{main}.0", f"{main}.1", True)
            y = layer(y, f"{main}.3", f"{main}.4", False, stride=stride, padding=1, groups=half)
            y = layer(y, f"{main}.5", f"{main}.6", True)
            if unit == 0:
                through = layer(x, f"{proj}.0", f"{proj}.1", False, stride=2, padding=1, groups=x.shape[1])
                through = layer(through, f"{proj}.2", f"{proj}.3", True)
            x = torch.cat([through, y], 1)
    return x


@torch.no_grad()
def test_one_frame_gives_the_features_of_the_image(released: Path) -> None:
    model = create_model("shufflenetv2_3d", 5, width=0.5).eval()
    report = load_weights(model, released)
    assert report.notes and all("3 time steps" in why or "1 time steps" in why for why in report.resized.values())
    assert set(report.kept) == {key for key in model.state_dict() if key.startswith(("conv_last", "classifier"))}
    for module in model.modules():
        if isinstance(module, Conv3d) and module.kernel_size[0] == 3:
            module.weight *= 3  # of one frame only the middle of the kernel sees anything
    x = torch.randn(2, 3, 96, 96)
    ours = model.forward_features(x.unsqueeze(2))["features.0"].squeeze(2)
    theirs = written_out(torch.load(released, map_location="cpu"), x)
    # The order of channels differs: every channel of one is a channel of the other.
    one, other = (y.transpose(0, 1).flatten(1) for y in (ours, theirs))
    distance = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
    assert distance.min(1).values.max() < 1e-3 * other.norm(dim=1).mean()
    live = one.abs().amax(1) > 0  # some channels are always 0
    assert len(set(distance[live].argmin(1).tolist())) == live.sum() == (other.abs().amax(1) > 0).sum()


def test_the_slow_pathway_takes_what_fits(released: Path) -> None:
    model = create_model("slowfast_shufflenetv2", 5, width=0.5)
    report = load_weights(model, released)
    assert len(report.resized) > 40 and "s1.pathway0_stem.0.weight" in report.resized
    assert "s2.pathway0_channel_48.features.0.banch2.0.weight" in report.kept  # sees the fast pathway's channels too
