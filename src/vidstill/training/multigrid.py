"""Multigrid training: small clips in large batches first, full ones last, and cycles of crop sizes within an epoch.

A Multigrid Method for Efficiently Training Video Models (CVPR 2020, arXiv 1912.00998). The long cycle changes frames,
size and batch between phases of the schedule, the short cycle the size and batch of every step. Rates grow with the
batch; batch norm keeps the statistics of `norm_batch` clips (see `models.subnorm`).
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

from vidstill.config import Run

log = logging.getLogger(__name__)

LONG = ((1 / 4, math.sqrt(1 / 2)), (1 / 2, math.sqrt(1 / 2)), (1 / 2, 1.0), (1.0, 1.0))  # share of frames, of the side
SHORT = (1 / 2, math.sqrt(1 / 2))  # share of the side


class Phase(NamedTuple):
    """Epochs with the same clips: those before `end`. `interval` counts the recipe's steps of the rate."""

    interval: int
    scale: int  # clips of a batch, times those of the recipe
    frames: int
    size: int
    end: int


def long_phases(
    milestones: Sequence[float], epochs: int, frames: int, size: int, *, short: bool, factor: float = 1.5
) -> list[Phase]:
    """The long cycle run through in every interval of the rate, then the full size: about `factor` · `epochs` epochs.

    Every shape of a cycle takes as many iterations as the others, and all of them together as many clips as the
    recipe's epochs. `short`: each is the largest of a short cycle, whose sizes count for its batch.
    """
    shapes = [(round(frames * share), round(size * side)) for share, side in LONG]
    scales = []
    for steps, side in shapes:
        sides = [*(size * share for share in SHORT), side] if short else [side]
        scales.append([round(frames * size**2 / (steps * each**2)) for each in sides])
    means = [sum(each) / len(each) for each in scales]
    rows = []
    for interval, (begin, end) in enumerate(itertools.pairwise(milestones)):
        rows += [(interval, i, (end - begin) * mean / sum(means)) for i, mean in enumerate(means)]
    saving = milestones[-1] / sum(length / means[i] for _, i, length in rows) if rows else 1.0
    rows.append((len(milestones) - 1, len(shapes) - 1, (epochs - milestones[-1]) / saving * means[-1]))
    stretch = epochs * factor / sum(length for *_, length in rows)
    phases, end = [], 0.0
    for interval, i, length in rows:
        end += length * stretch
        phases.append(Phase(interval, scales[i][-1], *shapes[i], round(end)))
    return phases


def long_rates(phases: Sequence[Phase], decay: float) -> tuple[list[float], list[float]]:
    """Milestones and factors of the rate for these phases: it falls by `decay` with the recipe's intervals and grows
    with the batch; the last phase begins at the rate of the one before and falls halfway."""
    ends = [phase.end for phase in phases]
    milestones = [0, *ends[:-1], (ends[-2] + ends[-1]) // 2] if len(ends) > 1 else [0]
    factors = [decay**phase.interval * phase.scale for phase in phases]
    return [float(each) for each in milestones], [*factors[:-1], *factors[-2:-1], factors[-1]]


def norm_splits(clips: float, norm_batch: int = 8) -> int:
    """In how many parts batch norm takes the `clips` of a process and step, so that each has `norm_batch` or more."""
    return max(1, int(clips / norm_batch))


def short_cycle(batch: int, size: int, full: int) -> list[tuple[int, int]]:
    """(clips, side) of the steps in turn for phases of `batch` clips of `size`², where the recipe's are `full`²."""
    sides = [share * full for share in SHORT]
    return [*((batch * round((size / side) ** 2), round(side)) for side in sides), (batch, size)]


def longest_interval(interval: int, frames: int, full: int) -> int:
    """A clip of fewer frames may be as long as the recipe's `full`: its interval is drawn up to this one."""
    return interval * (full // frames)


def eval_epochs(phases: Sequence[Phase], times: int = 3) -> set[int]:
    """After which epochs, from 0, to validate: about `times` a phase, always after its last."""
    due, begin, last = {phases[-1].end - 1}, 0, phases[-1].end
    for phase in phases:
        period = max((phase.end - begin) // times + 1, 1)
        due |= {epoch for epoch in range(phase.end - 1, begin - 1, -period) if epoch < last}
        begin = max(begin, phase.end)
    return due


def multigrid_run(run: Run) -> tuple[Run, list[Phase]]:
    """The run with its schedule stretched as the cycles want it, and the phases of its long cycle (one without it)."""
    grid, clip, optim = run.multigrid, run.clip, run.optim
    whole = run.model_copy(deep=True)
    if not (grid.long or grid.short):
        return whole, [Phase(0, 1, clip.frames, clip.size, run.train.epochs)]
    if grid.long:
        if optim.schedule != "steps" or not optim.milestones:
            raise ValueError(
                f"multigrid.long follows the steps of the rate, and optim.schedule is {optim.schedule}: set it to "
                "steps with optim.milestones and optim.factors, or use multigrid.short alone"
            )
        phases = long_phases(
            optim.milestones, run.train.epochs, clip.frames, clip.size, short=grid.short, factor=grid.epoch_factor
        )
        whole.train.epochs = phases[-1].end
        if optim.milestones[-1] > run.train.epochs:
            log.warning(
                "optim.milestones go on to %g, beyond train.epochs %d: the last phases of multigrid are cut off",
                optim.milestones[-1], run.train.epochs,
            )  # fmt: skip
        milestones, factors = long_rates(phases, optim.decay_rate)
        whole.optim = optim.model_copy(update={"milestones": milestones, "factors": factors})
        return whole, phases
    whole.train.epochs = int(run.train.epochs * grid.epoch_factor)
    whole.optim.milestones = [float(int(each * grid.epoch_factor)) for each in optim.milestones]
    return whole, [Phase(0, 1, clip.frames, clip.size, whole.train.epochs)]
