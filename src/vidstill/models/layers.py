"""Layers on channels-last tokens, with a form for inference on x86 CPUs: oneDNN kernels on prepacked weights.

Every function takes either plain weights, and is then differentiable PyTorch, or weights that a `pack_…` function made,
and then calls oneDNN directly: activation, product and sum are fused into the kernel, nothing is reordered per call.
N frames (any leading batch), H×W grid, C channels, T time steps.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import platform
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

ONES = [1, 1]
EPS = 1e-5  # of every layer norm

Layer = tuple[Tensor, Tensor | None]  # weight (C',C) and bias


class Packs:
    """A layer that can prepack its weights for inference, at its first call, when it sees the shape of its input.

    A `VideoModel` says for all of its layers whether they do. What they packed is a cache without gradients: it is left
    out of copies and pickles, which hold the plain layer.
    """

    packs = False
    packed: Any = None

    def pack(self, *input: Any) -> Any:
        """The weights packed for an input like this, not None."""
        raise NotImplementedError

    def prepacked(self, *input: Any) -> Any:
        """What `pack` made; None where the plain weights count."""
        if self.packs and self.packed is None:
            self.packed = self.pack(*input)
        return self.packed

    def __getstate__(self) -> Any:
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("packed", "packs")}


def set_packing(model: nn.Module, packs: bool) -> None:
    """Let every layer of `model` that can pack its weights do so at its next call, or go back to the plain ones."""
    for layer in model.modules():
        if isinstance(layer, Packs):
            layer.packs, layer.packed = packs, None


def is_packed(model: nn.Module) -> bool:
    """Whether some of its weights are prepacked, or will be: it then has no gradients; a copy has."""
    return any(layer.packs for layer in model.modules() if isinstance(layer, Packs))


def can_pack(dtype: torch.dtype) -> bool:
    """Whether the direct kernels are there: an x86 CPU, a PyTorch built with oneDNN, instructions for the dtype."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    ops = ("_linear_pointwise", "_convolution_pointwise", "_reorder_linear_weight", "_reorder_convolution_weight")
    if not all(hasattr(torch.ops.mkldnn, op) for op in ops):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def keep_freed_memory() -> None:
    """Let glibc hand the memory of one forward pass to the next instead of giving it back to the system in between.

    4-8 % of a forward pass, bit for bit the same. The process then keeps up to 512 MB that it has freed.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h; 32 MB is the largest that it takes for the latter
        mallopt(m_mmap_threshold, 32 << 20)
        mallopt(m_trim_threshold, 512 << 20)


def dense(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    gelu: bool = False,
    times: Tensor | None = None,
    plus: Tensor | None = None,
) -> Tensor:
    """x (N,H,W,C) → x Wᵀ + b, then GELU, or times or plus a tensor of the result's shape."""
    if not weight.is_mkldnn:
        y = F.linear(x, weight, bias)
        y = F.gelu(y) if gelu else y
        y = y if times is None else y * times
        return y if plus is None else y + plus
    other, op = (plus, "add") if times is None else (times, "mul")
    if weight.ndim == 2:
        if other is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, bias, op)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu" if gelu else "none", [], "none")
    geometry = ([0, 0], ONES, ONES, 1)
    if other is not None:
        y = torch.ops.mkldnn._convolution_pointwise.binary(
            _picture(x), _picture(other), weight, bias, *geometry, op, None, None, [], None
        )
    else:
        y = torch.ops.mkldnn._convolution_pointwise(
            _picture(x), weight, bias, *geometry, "gelu" if gelu else "none", [], "none"
        )
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], y.shape[1])


def pack_dense(layer: Layer, frames: int, grid: int) -> Layer:
    """(C',C) weights for `dense` on about `frames` × `grid` tokens.

    oneDNN's matrix product is its fastest form with AVX-512 (PERFORMANCE: 212-238 GFLOP/s of a core's 238). With AVX2
    its 1×1 convolution is: 80-92 against 70-80, and 75-86 against 50 where GELU is fused into it.
    """
    weight, bias = (None if part is None else part.detach().contiguous() for part in layer)
    assert weight is not None
    if torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return torch.ops.mkldnn._reorder_linear_weight(weight, frames * grid), bias
    shape = [frames, weight.shape[1], grid, 1]
    return torch.ops.mkldnn._reorder_convolution_weight(weight[:, :, None, None], [0, 0], ONES, ONES, 1, shape), bias


def _picture(x: Tensor) -> Tensor:
    """(N,H,W,C) tokens as the channels-last picture (N,C,HW,1)."""
    return x.reshape(x.shape[0], -1, 1, x.shape[-1]).permute(0, 3, 1, 2)


def conv_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """x (N,H,W,C), weight (C,1,k,k) → GELU of the depth-wise convolution, same size."""
    picture, channels, side = x.permute(0, 3, 1, 2), x.shape[-1], weight.shape[-1] // 2
    if weight.is_mkldnn:
        y = torch.ops.mkldnn._convolution_pointwise(
            picture, weight, None, [side, side], ONES, ONES, channels, "gelu", [], "none"
        )
        return y.permute(0, 2, 3, 1)
    return F.gelu(F.conv2d(picture, weight, padding=side, groups=channels).permute(0, 2, 3, 1))


def conv_strided(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """x (N,H,W,C) → (N,H',W',C'): a convolution with equal sides."""
    picture, sides = x.permute(0, 3, 1, 2), ([padding] * 2, [stride] * 2)
    if weight.is_mkldnn:
        y = torch.ops.mkldnn._convolution_pointwise(picture, weight, bias, *sides, ONES, 1, "none", [], "none")
    else:
        y = F.conv2d(picture, weight, bias, stride, padding)
    return y.permute(0, 2, 3, 1).contiguous()


def pack_strided(layer: nn.Conv2d, frames: int, height: int, width: int) -> Layer:
    weight, bias, sides = layer.weight, layer.bias, (list(layer.padding), list(layer.stride))
    shape = [frames, weight.shape[1], height, width]
    return torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *sides, ONES, 1, shape), bias


def pack_depthwise(weight: Tensor, frames: int, height: int, width: int) -> Tensor:
    channels, side = weight.shape[0], weight.shape[-1] // 2
    shape = [frames, channels, height, width]
    return torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), [side, side], ONES, ONES, channels, shape)


def conv_temporal(x: Tensor, weight: Tensor | TemporalTransform) -> Tensor:
    """x (B,T,H,W,C), weight (C,C,k,1) → GELU of the convolution along T, same length.

    A k×1 convolution over T × HW: the same memory as a Conv3d of (k,1,1), but one that PyTorch gives to oneDNN also at
    batch 1 with one thread, forward and backward, where the Conv3d falls to im2col. On CPUs in float32 it goes through
    the frequencies where that is less work (see `TemporalTransform`): a training step of VFL-Net in 2.5 s for 3.8.
    """
    if isinstance(weight, TemporalTransform):
        return weight(x)
    b, t, h, w, c = x.shape
    taps = weight.shape[2]
    if weight.is_mkldnn:
        picture = x.reshape(b, t, h * w, c).permute(0, 3, 1, 2)
        y = torch.ops.mkldnn._convolution_pointwise(
            picture, weight, None, [taps // 2, 0], ONES, ONES, 1, "gelu", [], "none"
        )
    elif x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and transform_pays(t, taps, c):
        into, kernel, back = (torch.tensor(matrix, dtype=x.dtype) for matrix in fourier(t, taps))
        units = (kernel @ weight.squeeze(-1).permute(2, 1, 0).reshape(taps, -1)).view(-1, c, c)
        spectrum = (into @ x.transpose(0, 1).reshape(t, -1)).view(len(into), -1, c)
        y = (back @ torch.bmm(spectrum, units).view(len(into), -1)).view(t, b, h, w, c)
        return F.gelu(y.transpose(0, 1).contiguous())
    else:
        y = F.gelu(F.conv2d(x.reshape(b, t, h * w, c).permute(0, 3, 1, 2), weight, padding=(taps // 2, 0)))
    return y.permute(0, 2, 3, 1).reshape(b, t, h, w, c)


def pack_temporal(weight: Tensor, steps: int, grid: int) -> Tensor:
    side, shape = weight.shape[2] // 2, [1, weight.shape[1], steps, grid]
    return torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), [side, 0], ONES, ONES, 1, shape)


class TemporalTransform(NamedTuple):
    """The convolution along T of exactly `steps` steps through a discrete Fourier transform: U products (C,C) instead
    of one per step and tap, e.g. 14 for 8 steps of 5 taps instead of 34, and closer to float64 than the direct sum.

    With zero padding, "same" output and p = ⌊k/2⌋, a cyclic convolution of length T + p is enough: what wraps around
    falls outside the T outputs. A real frequency costs one product, a pair of complex ones three (Gauss).
    """

    steps: int
    into: Tensor  # (U,T)
    units: list[Layer]  # U packed (C,C)
    back: Tensor  # (T,U)
    bias: Tensor | None  # (T,1,C), of a linear layer before the convolution, cut off at the ends as its output would be

    def __call__(self, x: Tensor) -> Tensor:
        """x (B,T,H,W,C) → GELU of the convolution."""
        clips = []
        for clip in x:
            spectrum = (self.into @ clip.reshape(self.steps, -1)).view(-1, *clip.shape[1:])
            products = [dense(unit, *weight) for unit, weight in zip(spectrum.split(1), self.units, strict=True)]
            torch.cat(products, out=spectrum)  # its memory is warm and free again
            y = (self.back @ spectrum.view(len(products), -1)).view(self.steps, -1, x.shape[-1])
            clips.append(torch.ops.aten.gelu_(y if self.bias is None else y.add_(self.bias)))
        return torch.stack(clips).view(x.shape) if len(clips) > 1 else clips[0].view(x.shape)


def transform_pays(steps: int, taps: int, channels: int) -> bool:
    """Products of the transform, and its own cost relative to them, against those of the direct sum.

    The factor 3 on steps / channels is the measured price of the two transforms, which run at memory speed.
    """
    length = steps + taps // 2
    units = length // 2 * 3 + (1 if length % 2 else -1)
    direct = sum(max(0, steps - abs(tap - taps // 2)) for tap in range(taps))
    return units * (1 + 3 * steps / channels) < direct


def pack_transform(weight: Tensor, steps: int, grid: int, before: Layer | None = None) -> TemporalTransform:
    """weight (C,C,k) → its transform for clips of `steps` steps; `before` is a linear layer (C,C), (C) to take in."""
    taps = weight.shape[-1]
    into, kernel, back = (torch.tensor(matrix) for matrix in fourier(steps, taps))
    weight, bias = weight.detach().double(), None
    if before is not None:
        linear, offset = before
        if offset is not None:
            ends = F.conv1d(offset.detach().double()[:, None].expand(-1, steps), weight, padding=taps // 2)
            bias = ends.t().unsqueeze(1).float().contiguous()
        weight = torch.einsum("omk,mi->oik", weight, linear.detach().double())
    units = [pack_dense(((weight @ row).float(), None), 1, grid) for row in kernel]
    return TemporalTransform(steps, into.float(), units, back.float(), bias)


@functools.lru_cache
def fourier(steps: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices (U,T), (U,k), (T,U) with conv(x, w) = back · ((kernel · w) ⊙ (into · x))."""
    p = taps // 2
    length = steps + p
    time, flipped = np.arange(steps), taps - 1 - np.arange(taps)
    into: list[np.ndarray] = []
    kernel: list[np.ndarray] = []
    back: list[np.ndarray] = []
    for frequency in range(length // 2 + 1):
        angle = 2 * math.pi * frequency / length
        a, b = np.cos(angle * time), -np.sin(angle * time)  # of the clip
        c, d = np.cos(angle * flipped), -np.sin(angle * flipped)  # of the kernel
        real, imaginary = np.cos(angle * (time + p)) / length, np.sin(angle * (time + p)) / length
        if frequency == 0 or 2 * frequency == length:
            into, kernel, back = [*into, a], [*kernel, c], [*back, real]
        else:  # (a+ib)(c+id) = (m1−m3) + i(m1+m2) with m1 = c(a+b), m2 = a(d−c), m3 = b(c+d)
            into += [a + b, a, b]
            kernel += [c, d - c, c + d]
            back += [2 * (real - imaginary), -2 * imaginary, -2 * real]
    return np.stack(into), np.stack(kernel), np.stack(back, 1)


class MLP(Packs, nn.Module):
    def __init__(self, width: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """(N,…,C) → same shape; `plus` is added to it."""
        fc1, fc2 = self.prepacked(len(x), math.prod(x.shape[1:-1])) or self._layers()
        return self.drop(dense(self.drop(dense(x, *fc1, gelu=True)), *fc2, plus=plus))

    def _layers(self) -> tuple[Layer, Layer]:
        return (self.fc1.weight, self.fc1.bias), (self.fc2.weight, self.fc2.bias)

    def pack(self, frames: int, grid: int) -> tuple[Layer, Layer]:
        fc1, fc2 = self._layers()
        return pack_dense(fc1, frames, grid), pack_dense(fc2, frames, grid)


class DropPath(nn.Module):
    """Stochastic depth: each row of the first axis is dropped with probability `p`, the rest divided by 1 − p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)


def recompute(module: nn.Module, function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)` whose activations are computed again in the backward pass instead of kept.

    The second pass leaves the running statistics of the batch norms of `module` alone, which the first has updated.
    """
    passes = (contextlib.nullcontext(), _still_statistics(module))
    return checkpoint(function, *inputs, use_reentrant=False, context_fn=lambda: passes)


@contextlib.contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    norms: list[Any] = [m for m in module.modules() if getattr(m, "num_batches_tracked", None) is not None]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
