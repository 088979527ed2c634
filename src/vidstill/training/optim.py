"""Which parameters decay, and the optimiser over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidstill.config import Optim
from vidstill.models.subnorm import SubNorm

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, SubNorm)


def parameter_groups(model: nn.Module, weight_decay: float, spare: str = "vectors") -> list[dict[str, Any]]:
    """Weight decay for all but what `spare` names (see `config.Optim`)."""
    decay: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters()}
    for name, parameter in model.named_parameters():
        spares = {
            "vectors": parameter.ndim <= 1 or name.endswith(".bias"),
            "norms": id(parameter) in norms,
            "bn": "bn" in name,
        }
        if parameter.requires_grad:
            (spared if spares[spare] else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimiser(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    groups = parameter_groups(model, optim.weight_decay, optim.spare)
    if optim.name == "sgd":
        return torch.optim.SGD(groups, optim.lr, optim.momentum, optim.dampening, nesterov=optim.nesterov)
    if optim.name == "adam":
        return torch.optim.Adam(groups, optim.lr, betas=optim.betas)
    return torch.optim.AdamW(groups, optim.lr, betas=optim.betas)
