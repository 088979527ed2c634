"""How long a run will take, said once after its first steps, and what would make it shorter."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vidstill.config import Run
from vidstill.evaluation.cost import gmacs
from vidstill.evaluation.metrics import per_cent
from vidstill.models.catalogue import CATALOGUE
from vidstill.models.registry import create_model
from vidstill.progress import duration

log = logging.getLogger(__name__)

SKIPPED = 2  # steps that start threads, choose kernels and fill caches
ENOUGH = ((8, 5.0), (3, 60.0))  # measured steps and seconds: the first batches are read before they are asked for
WORTH_SAYING, WORTH_SHORTENING = 60.0, 600.0  # seconds of a whole run
FORWARD = 1 / 3  # of a training step, what a pass without gradients computes: backward takes twice as much


@dataclass(frozen=True)
class Work:
    """What there is to do in a run."""

    steps: int
    sweep: int  # steps of an epoch, in which those of all passes occur
    several: bool  # passes, whose steps differ
    clips: int  # of a step, of all processes
    validations: int
    validated: int  # clips of a validation
    tested: int  # of the test


class Estimate:
    """Hears of every step and says after the first ones what the run takes; see `sentence`."""

    def __init__(
        self, run: Run, work: Work, classes: int, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.run, self.work, self.classes, self.device, self.clock = run, work, classes, device, clock
        self.heard, self.said = 0, False
        self.began = self.waited = 0.0

    def step(self, done: int, waited: float) -> None:
        """`done`: steps of the run; `waited`: seconds that were spent waiting for data, since any fixed moment."""
        if self.said:
            return
        self.heard += 1
        skipped = min(SKIPPED, max(1, self.work.sweep - 1))
        if self.heard == skipped:
            self.began, self.waited = self.clock(), waited
        measured, seconds = self.heard - skipped, self.clock() - self.began
        over = self.heard >= self.work.sweep  # the epoch, after which the count of what was waited begins anew
        enough = any(measured >= steps and seconds >= least for steps, least in ENOUGH) and not self.work.several
        if measured > 0 and (enough or over):
            self.said = True
            per_step, share = seconds / measured, min(1.0, max(0.0, waited - self.waited) / seconds)
            if told := sentence(self.run, self.work, done, per_step, share, self.classes, self.device):
                log.info("%s", told)


def sentence(
    run: Run, work: Work, done: int, per_step: float, waiting: float, classes: int, device: torch.device
) -> str:
    """The time that is left after `done` steps, and ways to a shorter one; nothing where it is under a minute.

    `per_step`: seconds; `waiting`: share of them that data was waited for. A clip of a validation or the test takes as
    long to read as one of training, and a third to compute.
    """
    left = work.steps - done
    training = left * per_step
    clip = per_step / work.clips * (waiting + (1 - waiting) * FORWARD)
    testing = clip * (work.validations * work.validated * left / work.steps + work.tested)
    if training + testing < WORTH_SAYING:
        return ""
    what = f"{left:,} steps of {per_step:.2g} s"
    if done > work.sweep:
        what = f"{left:,} of {work.steps:,} steps are left, of {per_step:.2g} s each"
    most = "at most about" if run.train.patience else "about"
    told = f"{most} {duration(training + testing)} on this machine: {what}"
    if testing >= 0.05 * training:
        told += f", and about {duration(testing)} for validation and test"
    if waiting >= 0.2:
        told += f"; {per_cent(waiting, 0)} of it waits for videos to be read"
    if training + testing >= WORTH_SHORTENING and (ways := _ways(run, waiting, classes, device)):
        told += f"; shorter: {', '.join(ways)}"
    return told


def _ways(run: Run, waiting: float, classes: int, device: torch.device) -> list[str]:
    """Those that apply to the run, each with the share of the time that is left of it."""
    ways = []
    if waiting < 0.5 and (smaller := _smaller_clip(run, classes)):
        size, share = smaller
        ways.append(f"--clip.size {size} ({_share(waiting + (1 - waiting) * share)})")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if waiting >= 0.2 and run.train.workers is not None and run.train.workers < cores:
        ways.append(f"--train.workers {cores}")
    half = -(-run.train.epochs // 2)
    changing = run.multigrid.long or run.multigrid.short
    if run.train.epochs > 1 and half > run.optim.warmup_epochs and run.optim.schedule != "steps" and not changing:
        ways.append(f"--train.epochs {half} ({_share(half / run.train.epochs)})")
    if waiting < 0.5 and (network := _smaller_network(run)):
        name, share = network
        ways.append(f"a smaller network, as {name} ({_share(waiting + (1 - waiting) * share)})")
    if device.type == "cuda" and run.train.precision == "fp32":
        ways.append("--train.precision bf16")
    if device.type == "cpu":
        ways.append("a GPU")
    return ways


def _smaller_clip(run: Run, classes: int) -> tuple[int, float] | None:
    """A side that the network takes, and its share of the multiply-adds."""
    with contextlib.suppress(Exception):  # a clip of its own that it cannot take
        model = create_model(run.model.name, classes, device="meta", **run.model.options)
        whole = gmacs(model, run.clip)
        for size in (run.clip.size // 2, round(run.clip.size * 0.7 / 32) * 32):
            with contextlib.suppress(Exception):  # where a stage has no place left, or windows do not fit
                if 64 <= size < run.clip.size:
                    return size, gmacs(model, run.clip.model_copy(update={"size": size})) / whole
    return None


def _smaller_network(run: Run) -> tuple[str, float] | None:
    """The next one of the family whose multiply-adds are fewer by a third or more, and its share of them."""
    own = CATALOGUE.get(run.model.name)
    if own is None or run.model.options.keys() & {"width", "depths"}:
        return None
    family = {name: one for name, one in CATALOGUE.items() if one.module == own.module and one.gmacs < own.gmacs / 1.5}
    name = max(family, key=lambda name: family[name].gmacs, default=None)
    return (name, family[name].gmacs / own.gmacs) if name else None


def _share(share: float) -> str:
    """
    >>> [_share(s) for s in (0.26, 0.5, 0.43)]
    ['about ¼', 'about ½', 'about 43 %']
    """
    near = {0.25: "¼", 1 / 3: "⅓", 0.5: "½"}
    return "about " + next((sign for value, sign in near.items() if abs(share - value) < 0.02), per_cent(share, 0))
