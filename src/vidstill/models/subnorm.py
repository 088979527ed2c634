"""Batch norm over parts of a batch, as multigrid training needs it: large batches with the statistics of small ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.models.convolution import BatchNorm3d

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Norm(BatchNorm3d):
    """Batch norm that multigrid training may split; other batch norms stay whole, as in the releases."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Also takes the state of a split one, of any number of parts."""
        for name in _STATISTICS:
            state_dict.pop(f"{prefix}split_bn.{name}", None)
            if f"{prefix}bn.{name}" in state_dict:
                state_dict[prefix + name] = state_dict.pop(f"{prefix}bn.{name}")
        super()._load_from_state_dict(state_dict, prefix, *rest)


class SubNorm(nn.Module):
    """Batch norm of each of `splits` interleaved parts of the batch by itself (multigrid, §2 of the paper's code).

    Row i of the batch belongs to part i mod `splits`. In eval mode the statistics of `bn` count, which `aggregate`
    makes of those of the parts. Parameters are shared; the names in the state dict are those of the releases.
    """

    def __init__(self, norm: nn.BatchNorm3d, splits: int) -> None:
        super().__init__()
        self.splits = splits
        self.weight, self.bias = norm.weight, norm.bias
        self.bn, self.split_bn = (
            nn.BatchNorm3d(width, norm.eps, norm.momentum, affine=False, device=norm.weight.device)
            for width in (norm.num_features, norm.num_features * splits)
        )
        for target in (self.bn, self.split_bn):
            for name in ("running_mean", "running_var"):
                statistic = getattr(norm, name)
                getattr(target, name).copy_(statistic.repeat(target.num_features // norm.num_features))
            target.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,T,H,W), in training B a multiple of `splits`."""
        if self.training:
            n, c, *grid = x.shape
            if n % self.splits:
                raise ValueError(f"a batch of {n} clips does not divide into {self.splits} parts")
            x = self.split_bn(x.reshape(n // self.splits, c * self.splits, *grid)).reshape(n, c, *grid)
        else:
            x = self.bn(x)
        shape = (-1, 1, 1, 1)
        return torch.addcmul(self.bias.view(shape), x, self.weight.view(shape))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Also takes the state of a whole one, or of another number of parts."""
        for name in _STATISTICS:
            whole, part = f"{prefix}bn.{name}", f"{prefix}split_bn.{name}"
            if prefix + name in state_dict:
                state_dict[whole] = state_dict.pop(prefix + name)
            if whole in state_dict and name != "num_batches_tracked":
                target = self.split_bn.num_features
                if part not in state_dict or len(state_dict[part]) != target:
                    state_dict[part] = state_dict[whole].repeat(target // len(state_dict[whole]))
            elif whole in state_dict:
                state_dict.setdefault(part, state_dict[whole])
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def aggregate(self) -> None:
        """Mean of the means; mean of the variances and variance of the means."""
        part, whole = self.split_bn, self.bn
        assert part.running_mean is not None and part.running_var is not None
        means, variances = (statistic.view(self.splits, -1) for statistic in (part.running_mean, part.running_var))
        whole.running_mean, mean = means.mean(0), means.mean(0)
        whole.running_var = variances.mean(0) + (means - mean).square().mean(0)
        whole.num_batches_tracked = part.num_batches_tracked

    def whole(self) -> Norm:
        """The plain norm with the same parameters and the aggregated statistics."""
        self.aggregate()
        norm = Norm(self.bn.num_features, self.bn.eps, self.bn.momentum, device=self.weight.device)
        norm.load_state_dict({**self.bn.state_dict(), "weight": self.weight, "bias": self.bias})
        norm.weight, norm.bias = self.weight, self.bias
        return norm.train(self.training)


def split_norms(model: nn.Module, splits: int) -> None:
    """Let every `Norm` of the model see `splits` parts of a batch by themselves; 1 makes them whole again.

    In place; parameters stay the same objects, so that an optimiser keeps them.
    """
    for name, module in [*model.named_modules()]:
        if isinstance(module, SubNorm) and module.splits != splits:
            module = module.whole()
            model.set_submodule(name, module)
        if isinstance(module, Norm) and splits > 1:
            model.set_submodule(name, SubNorm(module, splits))


def aggregate_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, SubNorm):
            module.aggregate()


def whole_state(state: Mapping[str, Any], plain: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A state dict with split norms under the names of the `plain` model, and which keys were renamed.

    `X.bn.running_mean` becomes `X.running_mean` where the plain model has that; `X.split_bn.…` falls away. The
    released renaming did this only for norms called "bn": files of light networks hold the others as they were.
    """
    whole, renamed = {}, []
    for key, value in state.items():
        owner, _, leaf = key.rpartition(".")
        if owner.endswith(".split_bn"):
            continue
        if owner.endswith(".bn") and leaf in _STATISTICS and (name := f"{owner[:-3]}.{leaf}") in plain:
            renamed.append(key)
            key = name
        whole[key] = value
    return whole, renamed
