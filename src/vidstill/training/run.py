"""From a resolved run to a finished run folder: task, phases, loop, test, report."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from vidstill.config import ConfigError, Run, missing_models
from vidstill.data.dataset import TrainClips
from vidstill.data.loader import EpochBatches, train_loader
from vidstill.devices import make_fabric, threads
from vidstill.models.subnorm import split_norms
from vidstill.models.weights import load
from vidstill.reporting.report import write_report
from vidstill.tasks import task_of
from vidstill.tasks.task import Report, chosen_on_test, ignore, tested_split
from vidstill.tasks.testing import record
from vidstill.training.checkpoint import open_folder, read_checkpoint
from vidstill.training.estimate import Estimate, Work
from vidstill.training.loop import Span, fit, unwatched
from vidstill.training.multigrid import Phase as Part
from vidstill.training.multigrid import eval_epochs, longest_interval, multigrid_run, norm_splits, short_cycle

log = logging.getLogger(__name__)


def train(run: Run, report: Report = ignore) -> Path:
    """Train, test and report one run; returns its folder. A run that was stopped goes on; a finished one is only
    tested again.

    `report` hears of progress: {"what": "training" or "testing", "done", "total", "detail"}, where `detail` is text.
    Raises ConfigError, TrainingError or VideoError, in one line.
    """
    if problem := missing_models(run):
        raise ConfigError(problem)
    root = run.data.root.expanduser().absolute()  # so that the folder's settings hold wherever they are read
    run = run.model_copy(update={"data": run.data.model_copy(update={"root": root})})
    fabric = make_fabric(run)
    fabric.launch()
    with contextlib.ExitStack() as stack:
        stack.enter_context(threads(run.train.threads))
        folder = run.folder
        if fabric.is_global_zero:
            stack.enter_context(open_folder(run))
            stack.enter_context(_train_log(folder))
        else:
            report = ignore  # progress is shown by the first process alone
            logging.getLogger("vidstill").setLevel(logging.ERROR)
        task = task_of(run, fabric, report)
        model, clips = task.build_model(), task.training_clips()
        log.info("device %s, %d process(es), precision %s", fabric.device, fabric.world_size, run.train.precision)
        log.info("%d loader process(es) (%s); videos are decoded on the CPU", task.workers, task.workers_reason)
        iterations = len(EpochBatches(len(clips), run.train.batch, run.seed, fabric.global_rank, fabric.world_size))
        if run.train.accumulate > iterations:
            raise ConfigError(
                f"train.accumulate {run.train.accumulate}: an epoch has {iterations} batches, so that nothing would be "
                f"learned; take {iterations} or less, or a smaller train.batch"
            )
        passes = task.passes(model, iterations)
        clips.formats = [clip for each in passes for clip in each.objective.formats]
        split = tested_split(task.splits)
        if chosen_on_test(run, task.splits):
            log.warning(
                "there are no test videos: the figure at the end will be that of the best epoch on the videos that "
                "chose it; --data.nested true keeps them for the test alone"
            )
        provenance: dict[str, Any] = {
            "run": run.name, "seed": run.seed, "vidstill": version("vidstill"), "torch": torch.__version__
        }  # fmt: skip
        for each in passes:
            provenance |= each.objective.provenance
        validate = task.validate if task.splits.get("val") else None
        estimate: Estimate | None = None
        for phase in phases_of(run, fabric, clips, task.workers, done=(read_checkpoint(folder) or {"step": 0})["step"]):
            if estimate is None and fabric.is_global_zero:
                work = _work(run, phase, len(passes), fabric.world_size, task.splits)
                estimate = Estimate(run, work, len(model.classes or []), fabric.device)
            split_norms(model, phase.splits)
            fit(phase.run, fabric, passes, phase.loader, folder, span=phase.span, validates=phase.validates,
                validate=validate, provenance=provenance, report=report,
                paced=estimate.step if estimate else unwatched)  # fmt: skip
            del phase  # its loader processes end before those of the next phase, or of the test, start
        fabric.barrier()
        result = task.test(load(folder).to(fabric.device), split, report) if split else None
        if fabric.is_global_zero:
            if split and result:
                record(folder, result, run, split=split, chosen=chosen_on_test(run, task.splits))
            write_report(folder)
    return folder


class Phase(NamedTuple):
    """A part of a run whose batches are alike: its only one, or one of multigrid training."""

    run: Run  # with the whole schedule
    loader: DataLoader[dict[str, Any]]
    span: Span
    splits: int  # of batch norms
    validates: Callable[[int], bool]
    steps: int  # of a pass, in the whole run


def _work(run: Run, phase: Phase, passes: int, processes: int, splits: dict[str, Any]) -> Work:
    batches: EpochBatches = phase.loader.batch_sampler  # type: ignore[assignment]
    last = phase.run.train.epochs - 1
    tested = len(splits.get(tested_split(splits) or "", ()))
    return Work(
        steps=phase.steps * passes, sweep=len(batches) * passes, several=passes > 1, clips=batches.batch * processes,
        validations=sum(phase.validates(epoch) or epoch == last for epoch in range(last + 1)),
        validated=len(splits.get("val", ())), tested=tested * run.test.clips * run.test.crops,
    )  # fmt: skip


def phases_of(run: Run, fabric: Fabric, clips: TrainClips, workers: int, done: int = 0) -> Iterator[Phase]:
    """The phases of a run that are not `done`, a number of steps. A resumed run has the same."""
    whole, planned = multigrid_run(run)
    every = run.train.validate_every
    validated = eval_epochs(planned) if run.multigrid.long else set(range(every - 1, whole.train.epochs, every))
    spans: list[tuple[Part, EpochBatches, Span]] = []
    epoch = step = 0
    for part in planned:
        end = min(part.end, whole.train.epochs)  # some releases plan more than they train
        if end <= epoch:
            continue
        batch = run.train.batch * part.scale
        cycle = short_cycle(batch, part.size, run.clip.size) if run.multigrid.short else None
        batches = EpochBatches(len(clips), batch, run.seed, fabric.global_rank, fabric.world_size, cycle)
        spans.append((part, batches, Span(epoch, step, end)))
        epoch, step = end, step + len(batches) * (end - epoch)
    for part, batches, span in spans:
        if done and done >= span.step + len(batches) * (span.end - span.epoch):
            continue
        shaped = dataclasses.replace(
            clips,
            clip=run.clip.model_copy(update={"frames": part.frames, "size": part.size}),
            longest_interval=longest_interval(run.clip.interval, part.frames, run.clip.frames),
            full_size=run.clip.size,
        )
        loader = train_loader(shaped, batches, workers=workers, start=run.train.start, pin=fabric.device.type == "cuda")
        splits = norm_splits(batches.batch, run.multigrid.norm_batch) if run.multigrid.long else 1
        if len(planned) > 1:
            log.info("epochs %d to %d: %d frames of %d², %d clips a process, batch norm of %d parts",
                     span.epoch + 1, span.end, part.frames, part.size, batches.batch, splits)  # fmt: skip
        yield Phase(whole, loader, span, splits, validated.__contains__, step)


@contextlib.contextmanager
def _train_log(folder: Path) -> Iterator[None]:
    handler = logging.FileHandler(folder / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("vidstill")
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.INFO
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level = level
        handler.close()
