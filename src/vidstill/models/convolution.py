"""3-D convolutions, norms and poolings on channels-last clips, with a form for inference: oneDNN on folded weights.

Features are (B,C,T,H,W) over the memory (B,T,H,W,C). A kernel that does not look along time is the 2-D one on frames
(B·T,C,H,W), one that only looks along time is one on pictures (B,C,T,H·W): both are views of the same memory, and
PyTorch gives them to its fast libraries where a Conv3d of batch 1 falls to im2col.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vidstill.models.layers import Packs

Size = Sequence[int]  # along T, H and W


class Norm(nn.BatchNorm3d):
    """Batch norm that multigrid training may split (see `subnorm`); the others stay whole, as in the releases."""


class Kernel(NamedTuple):
    """A convolution with its norm folded in, packed for oneDNN."""

    weight: Tensor
    bias: Tensor | None


class Conv3d(Packs, nn.Conv3d):
    """Without bias and "same" unless said otherwise; kernel, stride and dilation along T, H and W."""

    packed: Kernel | None = None
    packs: torch.dtype | None = None  # set: pack at the next call, in that type

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: Size = (1, 1, 1),
        stride: Size = (1, 1, 1),
        *,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> None:
        dilations = (1, dilation, dilation)
        padding = tuple(k // 2 * d for k, d in zip(kernel, dilations, strict=True))
        super().__init__(channels, width, tuple(kernel), tuple(stride), padding, dilations, groups, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(x, self)

    def geometry(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], slice]:
        """How to see (B,C,T,H,W) so that the kernel has the fewest axes, the way back, and which axes those are."""
        if self.kernel_size[0] == self.stride[0] == 1:
            return frames_of, clips_of, slice(1, 3)
        if self.kernel_size[1:] == self.stride[1:] == (1, 1):
            return pictures_of, unpicture, slice(0, 2)
        return _same, _take, slice(0, 3)


def conv_norm(
    x: Tensor, conv: Conv3d, norm: nn.Module | None = None, act: str = "none", plus: Tensor | None = None
) -> Tensor:
    """x (B,C,T,H,W) → act(norm(conv(x)) + plus); act: none, relu or relu6."""
    if conv.packs is not None and conv.packed is None:
        _pack(conv, norm, x)
    see, back, axes = conv.geometry()
    sides = conv.padding[axes], conv.stride[axes], conv.dilation[axes]
    if conv.packed is None:
        weight = conv.weight.flatten(2).unflatten(2, conv.kernel_size[axes])
        convolve: Any = F.conv3d if len(sides[0]) == 3 else F.conv2d
        padding, stride, dilation = sides
        y = back(convolve(see(x), weight, conv.bias, stride, padding, dilation, conv.groups), x)
        y = y if norm is None else norm(y)
        return activate(y if plus is None else y + plus, act)
    weight, bias = conv.packed
    geometry = (*map(list, sides), conv.groups)
    fused, bounds = ("hardtanh", [0.0, 6.0]) if act == "relu6" else (act, [])
    if plus is not None:
        relu = "relu" if act == "relu" else None
        y = torch.ops.mkldnn._convolution_pointwise.binary(
            see(x), see(plus), weight, bias, *geometry, "add", None, relu, [], None
        )
        return back(y, x)
    return back(torch.ops.mkldnn._convolution_pointwise(see(x), weight, bias, *geometry, fused, bounds, ""), x)


def activate(x: Tensor, act: str) -> Tensor:
    """In place: whatever comes out of a norm or a sum is nobody else's."""
    if act == "none":
        return x
    return F.relu_(x) if act == "relu" else F.hardtanh_(x, 0.0, 6.0)


class Chain(nn.Sequential):
    """Layers in turn, a convolution with the norm and the activation that follow it in one call."""

    def forward(self, x: Tensor) -> Tensor:
        layers = [*self]
        while layers:
            layer = layers.pop(0)
            if not isinstance(layer, Conv3d):
                x = layer(x)
                continue
            norm = layers.pop(0) if layers and isinstance(layers[0], nn.BatchNorm3d) else None
            act = layers.pop(0) if layers and isinstance(layers[0], nn.ReLU | nn.ReLU6) else None
            x = conv_norm(x, layer, norm, _ACTS[type(act)])
        return x


_ACTS = {type(None): "none", nn.ReLU: "relu", nn.ReLU6: "relu6"}


class MaxPool(nn.Module):
    """Kernel and stride along T, H, W; "same" padding for odd kernels."""

    def __init__(self, kernel: Size, stride: Size) -> None:
        super().__init__()
        self.kernel, self.stride = tuple(kernel), tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        return max_pool(x, self.kernel, self.stride)


def max_pool(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    """Along H and W, then along T: the same maximum as at once, from fast 2-D kernels."""
    padding = [k // 2 if k % 2 else 0 for k in kernel]
    if max(kernel[1:]) > 1:
        x = clips_of(F.max_pool2d(frames_of(x), tuple(kernel[1:]), tuple(stride[1:]), tuple(padding[1:])), x)
    if kernel[0] > 1:
        x = unpicture(F.max_pool2d(pictures_of(x), (kernel[0], 1), (stride[0], 1), (padding[0], 0)), x)
    return x


def avg_pool(x: Tensor, steps: int) -> Tensor:
    """Means of 3×3 places with stride 2, zeros beyond the edge counted, and of `steps` time steps with that stride."""
    x = clips_of(F.avg_pool2d(frames_of(x), 3, 2, 1), x)
    return x if steps == 1 else unpicture(F.avg_pool2d(pictures_of(x), (steps, 1)), x)


def frames_of(x: Tensor) -> Tensor:
    """(B,C,T,H,W) → (B·T,C,H,W)."""
    return x.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)


def clips_of(frames: Tensor, x: Tensor) -> Tensor:
    """(B·T,C,H,W) → (B,C,T,H,W) with the clips of x."""
    return frames.permute(0, 2, 3, 1).unflatten(0, (len(x), -1)).permute(0, 4, 1, 2, 3)


def pictures_of(x: Tensor) -> Tensor:
    """(B,C,T,H,W) → (B,C,T,H·W)."""
    return x.permute(0, 2, 3, 4, 1).flatten(2, 3).permute(0, 3, 1, 2)


def unpicture(picture: Tensor, x: Tensor) -> Tensor:
    """(B,C,T,H·W) → (B,C,T,H,W) with the grid of x."""
    return picture.permute(0, 2, 3, 1).unflatten(2, x.shape[3:]).permute(0, 4, 1, 2, 3)


def tokens_of(x: Tensor) -> Tensor:
    """(B,C,T,H,W) → (B,T·H·W,C)."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def untoken(tokens: Tensor, x: Tensor) -> Tensor:
    """(B,T·H·W,C) → (B,C,T,H,W) with the grid of x."""
    return tokens.unflatten(1, x.shape[2:]).permute(0, 4, 1, 2, 3)


def _same(x: Tensor) -> Tensor:
    return x


def _take(y: Tensor, x: Tensor) -> Tensor:
    return y


def _pack(conv: Conv3d, norm: nn.Module | None, x: Tensor) -> None:
    weight, bias = conv.weight, conv.bias
    if isinstance(norm, nn.BatchNorm3d):
        weight, bias = fuse_conv_bn_weights(
            weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )  # type: ignore[arg-type,assignment]
    see, _, axes = conv.geometry()
    weight = weight.detach().to(conv.packs).flatten(2).unflatten(2, conv.kernel_size[axes])
    packed = torch.ops.mkldnn._reorder_convolution_weight(
        weight, list(conv.padding[axes]), list(conv.stride[axes]), list(conv.dilation[axes]), conv.groups,
        list(see(x).shape),
    )  # fmt: skip
    conv.packed = Kernel(packed, None if bias is None else bias.detach().to(conv.packs))
