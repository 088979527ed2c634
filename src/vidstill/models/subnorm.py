"""Batch norm over parts of a batch, as multigrid training needs it: large batches with the statistics of small ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.models.convolution import Norm

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class SubNorm(nn.Module):
    """Batch norm of each of `splits` interleaved parts of the batch by itself (multigrid, §2 of the paper's code).

    Row i of the batch belongs to part i mod `splits`. In eval mode the statistics of `bn` count, which `aggregate`
    makes of those of the parts. Parameters are shared; the names in the state dict are those of the releases.
    """

    def __init__(self, norm: Norm, splits: int) -> None:
        super().__init__()
        width, options = norm.num_features, {"eps": norm.eps, "momentum": norm.momentum, "affine": False}
        device = norm.weight.device
        self.num_features, self.splits = width, splits
        self.weight, self.bias = norm.weight, norm.bias
        self.bn = Norm(width, **options, device=device)  # type: ignore[arg-type]
        self.split_bn = nn.BatchNorm3d(width * splits, **options, device=device)  # type: ignore[arg-type]
        self.bn.load_state_dict({name: getattr(norm, name) for name in _STATISTICS})
        for name in _STATISTICS[:2]:
            getattr(self.split_bn, name).copy_(getattr(norm, name).repeat(splits))
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

    @torch.no_grad()
    def aggregate(self) -> None:
        """mean of the means; mean of the variances and the variance of the means."""
        means, variances = (
            statistic.view(self.splits, -1) for statistic in (self.split_bn.running_mean, self.split_bn.running_var)
        )  # type: ignore[union-attr]
        mean = means.mean(0)
        self.bn.running_mean.copy_(mean)  # type: ignore[union-attr]
        self.bn.running_var.copy_(variances.mean(0) + (means - mean).square().mean(0))  # type: ignore[union-attr]

    def whole(self) -> Norm:
        """The plain norm with the same parameters and the aggregated statistics."""
        self.aggregate()
        norm = Norm(self.num_features, eps=self.bn.eps, momentum=self.bn.momentum, device=self.weight.device)
        norm.weight, norm.bias = self.weight, self.bias
        norm.load_state_dict(self.bn.state_dict(), strict=False)
        return norm.train(self.training)


def split_norms(model: nn.Module, splits: int) -> None:
    """Let every `Norm` of the model see `splits` parts of a batch by themselves; 1 makes them whole again.

    In place; parameters stay the same objects, so that an optimiser keeps them.
    """
    for name, module in [*model.named_modules()]:
        if isinstance(module, SubNorm) and module.splits != splits:
            module = module.whole()
            model.set_submodule(name, module)
        if isinstance(module, Norm) and splits > 1 and not name.endswith(".bn.bn") and module.affine:
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
    renamed, whole = [], {}
    for key, value in state.items():
        owner, _, leaf = key.rpartition(".")
        if owner.endswith(".split_bn"):
            continue
        if owner.endswith(".bn") and leaf in _STATISTICS and (target := f"{owner[:-3]}.{leaf}") in plain:
            renamed.append(key)
            key = target
        whole[key] = value
    return whole, renamed
