"""SlowFast networks as their formulas are written: what `forward.py` measures ours against.

Every layer as PyTorch has it, on (B,C,T,H,W): a Conv3d, then its norm, then its activation; 3-D pooling; an attention
with all its scores in memory. Weights and structure are those of our networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.models import convolution, light3d, pathways, slowfast

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6}


def write_out() -> None:
    """Replace the functions of this process by the literal ones."""
    for module in (convolution, pathways, slowfast, light3d):
        for name, function in (("conv_norm", conv_norm), ("max_pool", max_pool), ("avg_pool", avg_pool)):
            if hasattr(module, name):
                setattr(module, name, function)
    slow_and_fast = pathways.PathwayNet.pathways
    pathways.PathwayNet.pathways = lambda self, clips: [x.contiguous() for x in slow_and_fast(self, clips)]  # type: ignore[method-assign]
    pathways.PositionAttention.forward = attention  # type: ignore[method-assign]


def conv_norm(
    x: Tensor, conv: convolution.Conv3d, norm: nn.Module | None = None, act: str = "none", plus: Tensor | None = None
) -> Tensor:
    y = F.conv3d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)  # type: ignore[arg-type]
    y = y if norm is None else norm(y)
    return ACTIVATIONS[act](y if plus is None else y + plus)


def max_pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return F.max_pool3d(x, tuple(kernel), tuple(stride), tuple(k // 2 if k % 2 else 0 for k in kernel))


def avg_pool(x: Tensor, steps: int) -> Tensor:
    return F.avg_pool3d(x, (steps, 3, 3), (steps, 2, 2), (0, 1, 1))


def attention(layer: pathways.PositionAttention, x: Tensor) -> Tensor:
    query, key, value = (
        conv(x).flatten(2) for conv in (layer.query_conv, layer.key_conv, layer.value_conv)
    )  # (B,C,THW)
    scores = torch.bmm(query.transpose(1, 2), key).softmax(-1)
    return layer.gamma * torch.bmm(value, scores.transpose(1, 2)).view(x.shape) + x
