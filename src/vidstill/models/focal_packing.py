"""The weights of a focal modulation: as its parameters hold them, and packed for inference (see `layers`)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vidstill.models.layers import (
    Layer,
    TemporalTransform,
    pack_dense,
    pack_depthwise,
    pack_temporal,
    pack_transform,
    transform_pays,
)

CACHE_BYTES = 5_000_000  # a frame of the first stage at 224²; larger and smaller ones measured slower


class Weights(NamedTuple):
    """Of one focal modulation, in the shapes that its forward wants."""

    gates: Layer  # spatial, then temporal
    query: Layer
    context: Layer
    convolutions: list[Tensor]  # (C,1,k,k)
    h: Layer
    proj: Layer
    context_t: Layer | None  # None where the first temporal convolution has it inside
    h_t: Layer
    convolutions_t: list[Tensor | TemporalTransform]  # (C,C,k,1)


def frames_at_once(hidden: Tensor, grid: int, steps: int) -> int:
    """How many frames go through a block together so that the MLP's hidden layer stays in the cache."""
    return min(steps, max(1, CACHE_BYTES // (hidden[:, :1].nbytes * grid)))


def pack_weights(w: Weights, steps: int, frames: int, height: int, width: int) -> Weights:
    """For clips of `steps` time steps on a grid, the spatial part for `frames` of them at once."""
    grid = height * width
    context_t = w.context_t
    convolutions_t: list[Tensor | TemporalTransform] = []
    for level, weight in enumerate(w.convolutions_t):
        assert isinstance(weight, Tensor)
        kernel = weight.squeeze(-1)
        if kernel.dtype != torch.float32 or not transform_pays(steps, kernel.shape[-1], kernel.shape[1]):
            convolutions_t.append(pack_temporal(weight, steps, grid))
        else:
            convolutions_t.append(pack_transform(kernel, steps, grid, before=None if level else w.context_t))
            context_t = context_t if level else None
    return Weights(
        gates=pack_dense(w.gates, steps, grid),
        query=pack_dense(w.query, frames, grid),
        context=pack_dense(w.context, frames, grid),
        convolutions=[pack_depthwise(weight, frames, height, width) for weight in w.convolutions],
        h=pack_dense(w.h, frames, grid),
        proj=pack_dense(w.proj, frames, grid),
        context_t=None if context_t is None else pack_dense(context_t, steps, grid),
        h_t=pack_dense(w.h_t, steps, grid),
        convolutions_t=convolutions_t,
    )
