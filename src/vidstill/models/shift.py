"""Networks for images whose residual blocks exchange channels between neighbouring frames: a purely 2-D graph.

TSM: Temporal Shift Module for Efficient Video Understanding (ICCV 2019, arXiv 1811.08383), §4; on EfficientNet-Lite
(EfficientNet, ICML 2019, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6) and MobileNetV2 (CVPR 2018,
arXiv 1801.04381).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vidstill.config import Clip
from vidstill.models.adapt import Report, inflate
from vidstill.models.convolution import BatchNorm3d, Chain, Conv3d, SameConv2d
from vidstill.models.layers import recompute
from vidstill.models.model import VideoModel
from vidstill.models.registry import register_model


class Row(NamedTuple):
    """Blocks in turn, the first of them with the stride."""

    kernel: int
    expansion: int
    width: int
    blocks: int
    stride: int


LITE = (
    Row(3, 1, 16, 1, 1), Row(3, 6, 24, 2, 2), Row(5, 6, 40, 2, 2), Row(3, 6, 80, 3, 2), Row(5, 6, 112, 3, 1),
    Row(5, 6, 192, 4, 2), Row(3, 6, 320, 1, 1),
)  # fmt: skip
MOBILENETV2 = (
    Row(3, 1, 16, 1, 1), Row(3, 6, 24, 2, 2), Row(3, 6, 32, 3, 2), Row(3, 6, 64, 4, 2), Row(3, 6, 96, 3, 1),
    Row(3, 6, 160, 3, 2), Row(3, 6, 320, 1, 1),
)  # fmt: skip


def shift(x: Tensor, part: int, online: bool) -> Tensor:
    """(B,C,T,H,W) whose first `part` channels are those of the frame before, and, unless `online`, whose next `part`
    are those of the frame after; zeros where there is none (arXiv 1811.08383, §4.2)."""
    rows = x.permute(0, 2, 3, 4, 1)  # (B,T,H,W,C), the order of memory
    before = torch.cat((torch.zeros_like(rows[:, :1, ..., :part]), rows[:, :-1, ..., :part]), 1)
    if online:
        shifted = torch.cat((before, rows[..., part:]), -1)
    else:
        after = torch.cat((rows[:, 1:, ..., part : 2 * part], torch.zeros_like(rows[:, :1, ..., :part])), 1)
        shifted = torch.cat((before, after, rows[..., 2 * part :]), -1)
    return shifted.permute(0, 4, 1, 2, 3)


class Block(nn.Module):
    """Expansion, depth-wise convolution, projection; added to the input, of which `part` channels are shifted, where
    shapes agree."""

    def __init__(
        self, conv: type[Conv3d], channels: int, row: Row, stride: int, eps: float, share: float, online: bool
    ) -> None:
        super().__init__()
        hidden = channels * row.expansion
        self.adds = stride == 1 and channels == row.width
        self.part = int(channels * share) if self.adds else 0
        self.online = online
        expand = _convolved(conv, channels, hidden, 1, 1, 1, eps) if row.expansion != 1 else []
        self.conv = Chain(
            *expand,
            *_convolved(conv, hidden, hidden, row.kernel, stride, hidden, eps),
            *_convolved(conv, hidden, row.width, 1, 1, 1, eps)[:2],
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.adds:
            return self.conv(x)
        return x + self.conv(shift(x, self.part, self.online) if self.part else x)


class Stage(Chain):
    is_stage = True


class ShiftNet(VideoModel):
    """Stem, seven stages of blocks, a pointwise convolution, the mean over places and frames, a linear layer.

    `shift` is the share of the channels of a residual block that comes from the frame before, and as much from the one
    after; 0 leaves a network for images, whose logits of the frames are averaged. `online`: from the frame before only,
    so that no output sees a later frame. `width` multiplies all channels. Any frame count and size.
    """

    cam_layer = "stage7"

    def __init__(
        self,
        num_classes: int,
        rows: Sequence[Row],
        conv: type[Conv3d],
        eps: float,
        *,
        width: float = 1.0,
        in_channels: int = 3,
        shift: float = 0.125,
        online: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not 0 <= shift <= 0.5:
            raise ValueError(f"shift {shift}: a share of the channels, 0 to 0.5, goes in each direction")
        self.num_classes, self.in_channels = num_classes, in_channels
        channels = _eighths(32 * width)
        self.stem = Stage(*_convolved(conv, in_channels, channels, 3, 2, 1, eps))
        self.rows = len(rows)
        for number, row in enumerate(rows, 1):
            row = row._replace(width=_eighths(row.width * width))
            blocks = []
            for block in range(row.blocks):
                blocks.append(Block(conv, channels, row, 1 if block else row.stride, eps, shift, online))
                channels = row.width
            self.add_module(f"stage{number}", Stage(*blocks))
        self.width = _eighths(1280 * width)
        self.last = Stage(*_convolved(conv, channels, self.width, 1, 1, 1, eps))
        self.dropout = nn.Dropout(dropout)
        self.reset_classifier(num_classes)
        self.input = Clip(frames=8, interval=1, size=224, sampling="tsm_segments", mean=(127, 127, 127), std=(128,) * 3)

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes, self.classes = num_classes, None
        like = next(self.last.parameters())
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.width, num_classes, device=like.device, dtype=like.dtype)

    def _features(self, clips: Tensor) -> dict[str, Tensor]:
        features, x = {}, clips
        for name in ("stem", *(f"stage{number}" for number in range(1, self.rows + 1)), "last"):
            stage = self.get_submodule(name)
            x = recompute(stage, stage, x) if self.checkpointing and torch.is_grad_enabled() else stage(x)
            features[name] = x
        return features

    def _head(self, features: dict[str, Tensor]) -> Tensor:
        return self.head(self.dropout(features["last"].mean((2, 3, 4))))

    def _logits(self, clips: Tensor) -> Tensor:
        return self._head(self._features(clips))

    def adapt_weights(self, state: dict[str, Tensor], head: str, report: Report) -> dict[str, Tensor]:
        """From the names of EfficientNet-Lite (`_blocks.3._bn1`) and of torchvision's and TSM's MobileNetV2, for images
        or videos."""
        renamed = _renamed(state, self._blocks())
        if renamed.keys() != state.keys():
            report.notes.append("names of the release brought into ours")
        return inflate(renamed, self.state_dict(), report) if _of_images(renamed) else renamed

    def _blocks(self) -> list[tuple[str, bool]]:
        """The name of each block, and whether it expands its input."""
        found = [(name, part) for name, part in self.named_modules() if isinstance(part, Block)]
        return [(name, len(part.conv) > 5) for name, part in found]


LITE_NAMES = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "last.0", "_bn1": "last.1", "_fc": "head"}
LITE_LAYERS = {"_expand_conv": -3, "_bn0": -2, "_depthwise_conv": 0, "_bn1": 1, "_project_conv": 3, "_bn2": 4}


def _of_images(state: dict[str, Tensor]) -> bool:
    return any(value.ndim == 4 for value in state.values())


def _renamed(state: dict[str, Tensor], blocks: Sequence[tuple[str, bool]]) -> dict[str, Tensor]:
    nested = "features.1.conv.0.0.weight" in state  # torchvision's: each convolution with its norm is a part of its own

    def ours(key: str) -> str:
        key = key.removeprefix("base_model.").replace(".net.", ".")  # TSM's, where a shift is around the convolution
        first, _, rest = key.partition(".")
        if first in LITE_NAMES:
            return f"{LITE_NAMES[first]}.{rest}"
        if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            name, expands = blocks[int(found[1])]
            return f"{name}.conv.{LITE_LAYERS[found[2]] + 3 * expands}.{found[3]}"
        if found := re.fullmatch(r"features\.(\d+)\.(?:conv\.)?([\d.]+)\.(\w+)", key):
            number, (layer, *inner) = int(found[1]) - 1, map(int, found[2].split("."))
            if not 0 <= number < len(blocks):
                return f"{'last' if number > 0 else 'stem'}.{layer}.{found[3]}"
            name, expands = blocks[number]
            parts = 1 + expands
            place = layer if not nested else 3 * layer + inner[0] if inner else 2 * parts + layer
            return f"{name}.conv.{place}.{found[3]}"
        return re.sub(r"^(classifier\.1|classifier|new_fc)\.", "head.", key)

    return {ours(key): value for key, value in state.items()}


def _convolved(
    conv: type[Conv3d], channels: int, width: int, kernel: int, stride: int, groups: int, eps: float
) -> list[nn.Module]:
    if conv is SameConv2d:
        layer: Conv3d = SameConv2d(channels, width, kernel, stride, groups=groups)
    else:
        layer = Conv3d(channels, width, (1, kernel, kernel), (1, stride, stride), groups=groups)
    nn.init.normal_(layer.weight, std=math.sqrt(2 * groups / (kernel**2 * width)))  # by what each input goes into
    return [layer, BatchNorm3d(width, eps), nn.ReLU6(inplace=True)]


def _lite(
    num_classes: int, wider: float, deeper: float, size: int, dropout: float, options: dict[str, Any]
) -> ShiftNet:
    """Stem and head have the same width in all of them, and the first and last rows the same depth."""
    rows = [row._replace(width=_eighths(row.width * wider)) for row in LITE]
    rows[1:-1] = [row._replace(blocks=math.ceil(row.blocks * deeper)) for row in rows[1:-1]]
    model = ShiftNet(num_classes, rows, SameConv2d, 1e-3, **{"dropout": dropout} | options)
    model.input = model.input.model_copy(update={"size": size})
    return model


def _eighths(width: float) -> int:
    """To a multiple of 8, not below nine tenths."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


@register_model
def tsm_efficientnet_lite0(num_classes: int = 400, **options: Any) -> ShiftNet:
    """EfficientNet-Lite0 with shifts; ImageNet 75.1 without."""
    return _lite(num_classes, 1.0, 1.0, 224, 0.2, options)


@register_model
def tsm_efficientnet_lite1(num_classes: int = 400, **options: Any) -> ShiftNet:
    """EfficientNet-Lite1 with shifts; ImageNet 76.7 without."""
    return _lite(num_classes, 1.0, 1.1, 240, 0.2, options)


@register_model
def tsm_efficientnet_lite2(num_classes: int = 400, **options: Any) -> ShiftNet:
    """EfficientNet-Lite2 with shifts; ImageNet 77.6 without."""
    return _lite(num_classes, 1.1, 1.2, 260, 0.3, options)


@register_model
def tsm_mobilenetv2(num_classes: int = 400, **options: Any) -> ShiftNet:
    """MobileNetV2 with shifts, as TSM has it."""
    model = ShiftNet(num_classes, MOBILENETV2, Conv3d, 1e-5, **options)
    model.input = Clip(frames=8, size=224, interval=1, sampling="tsm_segments")
    return model
