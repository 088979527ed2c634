"""Learning rate of every iteration, as a pure function of its number."""

from __future__ import annotations

import dataclasses
import math

from vidstill.config import Optim


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Rates of the released recipes (timm 0.5.4 semantics, per iteration; Video-FocalNet configs).

    Counted in loader batches. `batch` is the number of clips per update over all processes, micro-batches included:
    all rates are scaled by batch / optim.reference_batch. After warm-up the cosine goes on from where it would be
    without warm-up, unless optim.warmup_prefix. With accumulation the rate only moves at updates.
    """

    optim: Optim
    epochs: int
    iterations: int  # per epoch
    batch: int
    accumulate: int = 1
    begin: tuple[int, int] = (0, 0)  # epochs and iterations before the first of as many `iterations`

    @property
    def scale(self) -> float:
        return self.batch / self.optim.reference_batch if self.optim.reference_batch else 1.0

    def rate(self, iteration: int) -> float:
        """The rate in effect while `iteration` (0-based, over all epochs) computes its update.

        The first runs at the warm-up start; later ones at the value set after the update before them.
        """
        if self.optim.schedule in ("exact_cosine", "steps"):
            epochs, before = self.begin
            return self.scale * exact_rate(self.optim, self.epochs, epochs + (iteration - before) / self.iterations)
        if self.optim.schedule in ("epoch_cosine", "iteration_cosine"):
            return self._openmmlab_cosine(iteration)
        epoch, index = divmod(iteration, self.iterations)
        whole = index - index % self.accumulate
        if whole:
            return self._value(epoch * self.iterations + whole - 1)
        last = self.iterations - self.iterations % self.accumulate
        if epoch and last:
            return self._value((epoch - 1) * self.iterations + last - 1)
        return self._value(0) if self.optim.schedule == "constant" else self._start()

    def _openmmlab_cosine(self, t: int) -> float:
        """OpenMMLab's cosine, which moves at epochs or at every iteration: warm-up is a growing share of it, from
        warmup_lr / lr to 1; of the first, where it ends within an epoch, the last share stays until the next one."""
        by_epoch, begin = self.optim.schedule == "epoch_cosine", self.optim.warmup_lr / self.optim.lr
        epoch = t // self.iterations if by_epoch else t / self.iterations
        base, least = self.scale * self.optim.lr, self.scale * self.optim.min_lr
        rate = least + 0.5 * (base - least) * (1 + math.cos(math.pi * epoch / self.epochs))
        warmup = self.optim.warmup_epochs * self.iterations
        last = math.ceil(warmup) - 1  # iteration of the warm-up
        if by_epoch and warmup % 1 and last // self.iterations == epoch:
            t = min(t, last)
        return rate * (1 - (1 - begin) * (1 - t / warmup)) if t < warmup else rate

    def _start(self) -> float:
        return self.scale * (self.optim.warmup_lr if self.optim.warmup_epochs else self.optim.lr)

    def _value(self, t: int) -> float:
        o = self.optim
        base, warm, least = (self.scale * rate for rate in (o.lr, o.warmup_lr, o.min_lr))
        warmup, total = o.warmup_epochs * self.iterations, self.epochs * self.iterations
        if t < warmup:
            return warm + t * (base - warm) / warmup
        if o.warmup_prefix:
            t, total, warmup = t - int(warmup), total - int(warmup), 0
        if o.schedule == "cosine":
            return least + 0.5 * (base - least) * (1 + math.cos(math.pi * t / total)) if t < total else least
        if o.schedule == "linear":
            return base * (1 - 0.99 * (t - warmup) / (total - warmup))
        if o.schedule == "step":
            return base * o.decay_rate ** (t // (o.decay_epochs * self.iterations))
        return base


def exact_rate(optim: Optim, epochs: int, epoch: float) -> float:
    """The rate at a fraction of an epoch, for one `reference_batch` (PySlowFast).

    exact_cosine: lr (1 + cos(π epoch / epochs)) / 2. steps: lr times the factor of the interval of `milestones` that
    holds the epoch; where epochs end before the last milestone, as in some releases, the first that is later counts.
    Warm-up goes linearly from warmup_lr to where the schedule is at its end.
    """
    if epoch < optim.warmup_epochs:
        target = _policy(optim, epochs, optim.warmup_epochs)
        return optim.warmup_lr + epoch * (target - optim.warmup_lr) / optim.warmup_epochs
    return _policy(optim, epochs, epoch)


def _policy(optim: Optim, epochs: int, epoch: float) -> float:
    if optim.schedule == "exact_cosine":
        return optim.lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
    edges = [*optim.milestones, epochs]
    following = next((i for i, edge in enumerate(edges) if epoch < edge), len(edges) - 1)
    return optim.lr * optim.factors[following - 1]
