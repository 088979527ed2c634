"""3-D convolutions, norms and poolings on channels-last clips, with a form for inference: oneDNN on folded weights.

Features are (B,C,T,H,W) over the memory (B,T,H,W,C). A kernel that does not look along time is the 2-D one on frames
(B·T,C,H,W), one that only looks along time is one on pictures (B,C,T,H·W): both are views of the same memory, and
PyTorch gives them to its fast libraries where a Conv3d of batch 1 falls to im2col.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.models.layers import Packs, can_pack

_DIRECT = can_pack(torch.float32)
Size = Sequence[int]  # along T, H and W
Geometry = tuple[Any, Any, Any, int]  # padding, stride, dilation, groups


class Kernel(NamedTuple):
    """A convolution with its norm folded in, packed for oneDNN."""

    weight: Tensor
    bias: Tensor | None


class Conv3d(Packs, nn.Conv3d):
    """Without bias and "same" unless said otherwise; kernel, stride and dilation along T, H and W.

    causal: all padding along T before the first frame, so that no output sees a later one.
    """

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
        causal: bool = False,
    ) -> None:
        if channels < 1 or width < 1:
            raise ValueError(f"a layer from {channels} to {width:.0f} channels: take a larger width or a smaller beta")
        dilations = (1, dilation, dilation)
        padding = [k // 2 * d for k, d in zip(kernel, dilations, strict=True)]
        if causal:
            padding[0] = 0
        super().__init__(channels, width, tuple(kernel), tuple(stride), tuple(padding), dilations, groups, bias)  # type: ignore[arg-type]
        self.before = kernel[0] - 1 if causal else 0  # frames of zeros

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(x, self)

    def surround(self, x: Tensor) -> Tensor:
        """x with the zeros that are not the same on both sides."""
        return _after_zeros(x, self.before) if self.before else x

    def geometry(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], slice]:
        """How to see (B,C,T,H,W) so that the kernel has the fewest axes, the way back, and which axes those are."""
        if self.kernel_size[0] == self.stride[0] == 1:
            return frames_of, clips_of, slice(1, 3)
        if self.kernel_size[1:] == self.stride[1:] == (1, 1):
            return pictures_of, unpicture, slice(0, 2)
        return _same, _take, slice(0, 3)

    def pack(self, norm: nn.Module | None, x: Tensor) -> Kernel:
        see, _, axes = self.geometry()
        weight, bias = (None if part is None else part.detach() for part in fold(self, norm))
        assert weight is not None
        sides = list(self.padding[axes]), list(self.stride[axes]), list(self.dilation[axes])
        shape = list(see(x).shape)
        return Kernel(
            torch.ops.mkldnn._reorder_convolution_weight(_flat(weight, axes), *sides, self.groups, shape), bias
        )


def conv_norm(
    x: Tensor, conv: Conv3d, norm: nn.Module | None = None, act: str = "none", plus: Tensor | None = None
) -> Tensor:
    """x (B,C,T,H,W) → act(norm(conv(x)) + plus); act: one of `ACTIVATIONS`.

    A norm in eval mode is folded where there are fewer weights than places for them.
    """
    x = conv.surround(x)
    see, back, axes = conv.geometry()
    geometry = conv.padding[axes], conv.stride[axes], conv.dilation[axes], conv.groups
    kernel: Kernel | None = conv.prepacked(norm, x)
    if kernel is not None:
        return back(_packed(see(x), kernel, geometry, act, None if plus is None else see(plus)), x)
    folds = isinstance(norm, nn.BatchNorm3d) and not norm.training and conv.weight.numel() <= x.numel()
    weight, bias = fold(conv, norm) if folds else (conv.weight, conv.bias)
    y = back(_convolve(see(x), _flat(weight, axes), bias, geometry), x)
    y = y if norm is None or folds else norm(y)
    return activate(y if plus is None else y + plus, act)


def fold(conv: Conv3d, norm: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the convolution that does the work of a norm in eval mode too."""
    if norm is None:
        return conv.weight, conv.bias
    assert isinstance(norm, nn.BatchNorm3d) and norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    offset = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return conv.weight * scale.view(-1, 1, 1, 1, 1), norm.bias - offset * scale


def _flat(weight: Tensor, axes: slice) -> Tensor:
    """Without the kernel's axes that are 1 and not looked at."""
    return weight.flatten(2).unflatten(2, weight.shape[2:][axes])


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    padding, stride, dilation, groups = geometry
    if _DIRECT and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and _alone():
        # What PyTorch itself calls, but for small batches on one thread, where it takes a slower way.
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, groups)
    convolve: Any = F.conv3d if weight.ndim == 5 else F.conv2d
    return convolve(x, weight, bias, stride, padding, dilation, groups)


def _alone() -> bool:
    """Nobody follows the call: neither gradients nor compiler nor autocast."""
    return not (torch.is_grad_enabled() or _traced())


def _traced() -> bool:
    return torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")


def _packed(x: Tensor, kernel: Kernel, geometry: Geometry, act: str, plus: Tensor | None) -> Tensor:
    *sides, groups = geometry
    arguments = (*map(list, sides), groups)
    if plus is None:
        fused, bounds, algorithm = ACTIVATIONS[act].fused
        return torch.ops.mkldnn._convolution_pointwise(x, *kernel, *arguments, fused, bounds, algorithm)
    follows = act if act == "relu" else None  # the only one that a sum can have behind it
    y = torch.ops.mkldnn._convolution_pointwise.binary(x, plus, *kernel, *arguments, "add", None, follows, [], None)
    return y if follows else activate(y, act)


class BatchNorm3d(nn.BatchNorm3d):
    """`nn.BatchNorm3d`, whose statistics of a training batch are exact on CPUs too.

    There PyTorch adds all places of a channels-last clip up one after the other in float32: for 800,000 places, a batch
    of 8 × 32 × 56², the result is off by 1e-3 of a standard deviation. Here 64 partial sums are; as fast, off by 3e-6.
    """

    def forward(self, x: Tensor) -> Tensor:
        places = x.numel() // x.shape[1]
        if not self.training or x.device.type != "cpu" or x.dtype != torch.float32 or places < 2 or _traced():
            return super().forward(x)
        mean, variance = self._statistics(x, places)
        result: Tensor = _Normalise.apply(x, self.weight, self.bias, mean, variance, self.eps)
        return result

    @torch.no_grad()
    def _statistics(self, x: Tensor, places: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of this batch, (C) each; the running ones follow."""
        parts = math.gcd(places, PARTS)
        rows = tokens_of(x).reshape(-1, parts * x.shape[1])
        means, variances = torch.ops.aten.batch_norm_update_stats(rows, None, None, 0.0)
        means, variances = means.view(parts, -1), variances.view(parts, -1)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (places / (places - 1)), share)
        return mean, variance


PARTS = 64


class _Normalise(torch.autograd.Function):
    """Batch norm by these statistics, which are those of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        back = torch.ops.aten.native_batch_norm_backward
        return *back(gradient, x, weight, None, None, mean, inverse, True, ctx.eps, wanted), None, None, None


class _Activation(NamedTuple):
    plain: Callable[[Tensor], Tensor]
    fused: tuple[str, list[float], str]  # oneDNN's name, bounds and algorithm
    layer: type[nn.Module] | None = None
    in_place: Callable[[Tensor], Tensor] | None = None


ACTIVATIONS = {
    "none": _Activation(lambda x: x, ("none", [], "")),
    "relu": _Activation(F.relu, ("relu", [], ""), nn.ReLU, F.relu_),
    "relu6": _Activation(F.relu6, ("hardtanh", [0.0, 6.0], ""), nn.ReLU6, lambda x: F.hardtanh_(x, 0.0, 6.0)),
    "silu": _Activation(F.silu, ("swish", [], ""), nn.SiLU),
    "hardswish": _Activation(F.hardswish, ("hardswish", [], ""), nn.Hardswish),
    "hardsigmoid": _Activation(F.hardsigmoid, ("hardsigmoid", [], ""), nn.Hardsigmoid),
    "gelu": _Activation(F.gelu, ("gelu", [], "none"), nn.GELU),
}


def activate(x: Tensor, act: str) -> Tensor:
    """In place where it can be: whatever comes out of a norm or a sum is nobody else's. With gradients it is no faster,
    and of a view, as convolutions give them, it makes autograd copy the gradient three times."""
    known = ACTIVATIONS[act]
    return known.plain(x) if x.requires_grad or known.in_place is None else known.in_place(x)


def _activation(layer: nn.Module) -> str | None:
    """The name of an activation layer, None for any other layer."""
    if getattr(layer, "approximate", "none") != "none":  # GELU by tanh
        return None
    return next((name for name, act in ACTIVATIONS.items() if type(layer) is act.layer), None)


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
            act = _activation(layers[0]) if layers else None
            x = conv_norm(x, layer, norm, act or "none")
            layers = layers[1:] if act else layers
        return x


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


class SameConv2d(Conv3d):
    """Of every frame by itself, padded as TensorFlow's SAME: ⌈H/stride⌉ outputs, and where the zeros on both sides
    cannot be as many, one row and column more behind than before."""

    def __init__(self, channels: int, width: int, kernel: int = 1, stride: int = 1, *, groups: int = 1) -> None:
        super().__init__(channels, width, (1, kernel, kernel), (1, stride, stride), groups=groups)
        self.strided = stride > 1
        if self.strided:
            self.padding = (0, 0, 0)

    def surround(self, x: Tensor) -> Tensor:
        if not self.strided:
            return x
        sides: list[int] = []
        for length, kernel, stride in zip(x.shape[:2:-1], self.kernel_size[::-1], self.stride[::-1], strict=False):
            missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            sides += [missing // 2, missing - missing // 2]
        return F.pad(x.permute(0, 2, 3, 4, 1), (0, 0, *sides)).permute(0, 4, 1, 2, 3)


def _after_zeros(x: Tensor, steps: int) -> Tensor:
    """(B,C,T,H,W) after so many frames of zeros, in the same layout of memory."""
    return F.pad(x.permute(0, 2, 3, 4, 1), (0, 0, 0, 0, 0, 0, steps, 0)).permute(0, 4, 1, 2, 3)


def _same(x: Tensor) -> Tensor:
    return x


def _take(y: Tensor, x: Tensor) -> Tensor:
    return y
