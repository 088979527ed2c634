"""Which parameters decay, and the optimiser over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vidstill.config import Multiplier, Optim


def everything(name: str) -> bool:
    """Every parameter learns."""
    return True


def parameter_groups(
    model: nn.Module, optim: Optim, learns: Callable[[str], bool] = everything
) -> list[dict[str, Any]]:
    """What decays how, and at which share `scale` of the schedule's rate, of the parameters whose name `learns`.

    Weight decay is for matrices and kernels, none for biases and 1-D tensors (norms, layer scales). Where
    `optim.multipliers` are given they alone decide.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not (parameter.requires_grad and learns(name)):
            continue
        spared = not optim.multipliers and (parameter.ndim <= 1 or name.endswith(".bias"))
        of = Multiplier(decay=0) if spared else _multiplier(name, optim)
        groups.setdefault((of.lr, of.decay), []).append(parameter)
    return [
        {"params": params, "lr": optim.lr * lr, "scale": lr, "weight_decay": optim.weight_decay * decay}
        for (lr, decay), params in sorted(groups.items(), reverse=True)
    ]


def _multiplier(name: str, optim: Optim) -> Multiplier:
    keys = sorted((key for key in optim.multipliers if key in name), key=lambda key: (-len(key), key))
    of = [optim.multipliers[key] for key in (keys[:1] if optim.grouping == "longest" else keys)]
    return Multiplier(lr=math.prod(each.lr for each in of), decay=math.prod(each.decay for each in of))


def make_optimiser(model: nn.Module, optim: Optim, learns: Callable[[str], bool] = everything) -> torch.optim.Optimizer:
    groups = parameter_groups(model, optim, learns)
    if optim.name == "sgd":
        return torch.optim.SGD(groups, optim.lr, optim.momentum, optim.dampening, nesterov=optim.nesterov)
    if optim.name == "adam":
        return torch.optim.Adam(groups, optim.lr, betas=optim.betas)
    return torch.optim.AdamW(groups, optim.lr, betas=optim.betas)
