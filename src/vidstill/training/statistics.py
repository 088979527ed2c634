"""Statistics of batch norms: measured anew at the weights that are saved, and made the same in all processes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, get_world_size, is_initialized
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def precise_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set every running mean and variance to the plain average over `batches` of the batch's own mean and (unbiased)
    variance. Dropout and the rest of the model stay in the mode they are in."""
    norms = _norms(model)
    if not norms:
        return
    before = [(norm.momentum, norm.training) for norm in norms]
    means: list[Tensor | float] = [0.0] * len(norms)
    variances: list[Tensor | float] = [0.0] * len(norms)
    for norm in norms:
        norm.momentum = 1.0  # what a batch leaves behind is its own
        norm.train()
    count = 0
    for count, clips in enumerate(batches, 1):
        model(clips)
        for i, norm in enumerate(norms):
            assert norm.running_mean is not None and norm.running_var is not None
            means[i] = means[i] + (norm.running_mean - means[i]) / count
            variances[i] = variances[i] + (norm.running_var - variances[i]) / count
    for norm, (momentum, training), mean, variance in zip(norms, before, means, variances, strict=True):
        norm.momentum = momentum
        norm.train(training)
        if count:
            norm.running_mean, norm.running_var = mean, variance  # type: ignore[assignment]


@torch.no_grad()
def share_statistics(model: nn.Module) -> None:
    """Give every process the mean over the processes of their running means and variances, in one message.

    Each has seen other clips. Without this the processes would validate other models than the one that is saved, and a
    run taken up again would go on from other statistics.
    """
    if not is_initialized() or get_world_size() == 1:
        return
    statistics = [each for norm in _norms(model) for each in (norm.running_mean, norm.running_var) if each is not None]
    if not statistics:
        return
    together = torch.cat([each.flatten().float() for each in statistics])
    all_reduce(together)
    together /= get_world_size()
    for each, shared in zip(statistics, together.split([each.numel() for each in statistics]), strict=True):
        each.copy_(shared.view_as(each))


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
