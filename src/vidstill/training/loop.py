"""The loop: one for every objective, on one device or many, resumable at any step."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from vidstill.config import Run
from vidstill.data.dataset import sample_seed
from vidstill.data.loader import EpochBatches
from vidstill.evaluation.metrics import headline, per_cent
from vidstill.models.registry import VideoModel
from vidstill.models.subnorm import aggregate_norms, split_norms, whole_state
from vidstill.models.weights import save
from vidstill.objectives.objective import Objective
from vidstill.reporting.log import Log
from vidstill.tasks.task import Figures, Pass, Report, ignore
from vidstill.training.checkpoint import TrainingError, read_checkpoint, restore, state_of, write_checkpoint
from vidstill.training.optim import make_optimiser
from vidstill.training.schedules import Schedule
from vidstill.training.statistics import precise_statistics, share_statistics

log = logging.getLogger(__name__)

REPORT_SECONDS = 0.5  # often enough to look alive, rare enough not to stall a GPU
FOR_THE_FILE = ("none_below", "none_below_videos")  # of the figures of an epoch, what is kept and not shown
SHARES = ("mAP", "top1", "top5", "data_wait")  # of the figures of an epoch, what is shown in per cent


def unwatched(step: int, waited: float) -> None:
    """A pace that nobody wants to know."""


class Span(NamedTuple):
    """What one call of `fit` does of a run: the epochs from `epoch`, which begins at `step`, to before `end`."""

    epoch: int
    step: int
    end: int


def fit(
    run: Run,
    fabric: Fabric,
    passes: Sequence[Pass],
    loader: DataLoader[dict[str, Any]],
    folder: Path,
    *,
    span: Span | None = None,
    validate: Callable[[VideoModel], Figures] | None = None,
    validates: Callable[[int], bool] = lambda epoch: True,
    provenance: dict[str, Any] | None = None,
    report: Report = ignore,
    paced: Callable[[int, float], None] = unwatched,
) -> None:
    """Train until the end of `span`, by default of `run`, from the checkpoint in `folder` where there is one.

    Every epoch makes the `passes` in turn, each over all batches of `loader`; the model of the last one is validated
    and saved. `validates` says after which epochs, from 0, to validate. Writes metrics.jsonl, last.pt after every epoch
    and best.safetensors with best.json after the best one (by the `mAP` or `top1` that `validate` returns; without it
    after every epoch). `report` hears twice a second of {"what", "done", "total", "detail"},
    `paced` after every step of how many are done, and the seconds that a pass has waited for its data.

    What a step computes depends on (seed, step, rank) alone, so that a run stopped anywhere and started again gives the
    same weights as one that was not. Raises TrainingError where the loss is not finite, a loader process dies or the
    disk is full.
    """
    span = span or Span(0, 0, run.train.epochs)
    batches: EpochBatches = loader.batch_sampler  # type: ignore[assignment]
    iterations, accumulate = len(batches), run.train.accumulate
    sweep = iterations * len(passes)  # steps of an epoch
    steps = span.step + sweep * (span.end - span.epoch)
    plain = copy.deepcopy(passes[-1].objective.model).to(fabric.device)  # never sharded, compiled or averaged in place
    split_norms(plain, 1)
    if run.train.compile:
        _compile_stages(passes)
    clips_per_update = run.train.batch * fabric.world_size * accumulate
    begin = span.epoch, span.step // len(passes)
    learners = [
        Learner(each, fabric, Schedule(each.optim, run.train.epochs, iterations, clips_per_update, accumulate, begin))
        for each in passes
    ]
    main = learners[-1]
    ema = _averaged(main.bare.model, run.train.ema)

    state: dict[str, Any] = {"step": 0, "best": -math.inf, "stale": 0, "loss": {}}
    if (saved := read_checkpoint(folder)) is not None:
        if "optimiser" in saved["weights"]:  # as it was written when an epoch had a single pass
            saved |= {"weights": {main.name: saved["weights"]}, "loss": {main.name: saved["loss"]}}
        for learner in learners:
            learner.restore(saved["weights"][learner.name])
        fabric.strategy.precision.load_state_dict(saved["precision"])
        if ema is not None:
            ema.load_state_dict(saved["ema"])
        state = {name: saved[name] for name in state}
        log.info("resumed at step %d of %d", state["step"], steps)
    unreadable: set[str] = set()
    rows = Log(folder, keep=lambda row: row["step"] <= state["step"]) if fabric.is_global_zero else None

    def place(step: int) -> tuple[int, int, int]:
        """Epoch, pass and batch of a step."""
        epoch, rest = divmod(step - span.step, sweep)
        return span.epoch + epoch, *divmod(rest, iterations)

    def batches_from(learner: Learner) -> Iterator[dict[str, Any]]:
        """Those that are left of the pass that the next step belongs to."""
        repeated, batches.start = divmod(learner.bare.batch_number(state["step"]) - span.step, iterations)
        batches.epoch = span.epoch * len(passes) + repeated
        return iter(loader)

    def check_loss() -> None:
        state["loss"] = {name: float(total) for name, total in state["loss"].items()}
        for name, total in state["loss"].items():
            if not math.isfinite(total):
                raise TrainingError(
                    f"the loss of {name} is {total} at step {state['step']}: lower optim.lr, clip with "
                    "optim.clip_grad or use train.precision fp32; the checkpoint before it is kept"
                )

    def checkpoint() -> None:
        check_loss()
        weights = {learner.name: learner.state() for learner in learners}
        if fabric.is_global_zero:
            averaged = {} if ema is None else {"ema": ema.state_dict()}
            scaler = fabric.strategy.precision.state_dict()
            write_checkpoint(folder, {**state, "weights": weights, "precision": scaler, **averaged})

    def finish_epoch(epoch: int, speed: Figures) -> None:
        check_loss()
        aggregate_norms(main.bare.model)
        weights = ema.module.state_dict() if ema is not None else _part(main.state()["model"], "model.")
        plain.load_state_dict(whole_state(weights, plain.state_dict())[0])
        if run.train.precise_norms:
            batches.epoch, batches.start = epoch, 0
            read = itertools.islice(iter(loader), min(run.train.precise_norms, iterations))
            prepared = (main.bare.prepare(each, run, fabric.device, epoch, fabric.global_rank) for each in read)
            with fabric.autocast():
                precise_statistics(plain.train(), (each["clips"] for each in prepared))
            share_statistics(plain.eval())
        means = {name: total / iterations for name, total in state["loss"].items()}
        loss, lr = means.pop(main.name), main.rate(epoch, iterations - 1)
        others = {f"{name}_loss": mean for name, mean in means.items()}
        row = {"epoch": epoch, "step": state["step"], "split": "train", "loss": loss, **others, "lr": lr,
               "unreadable": len(unreadable), **speed}  # fmt: skip
        metrics = validate(plain) if validate and (validates(epoch) or epoch + 1 == run.train.epochs) else {}
        judged = headline(metrics)
        better = judged[1] > state["best"] if judged else validate is None
        state.update(loss={}, stale=0 if better else state["stale"] + bool(metrics))
        if better and judged:
            state["best"] = judged[1]
        if rows is not None:
            rows.write(row)
            if metrics:
                rows.write({"epoch": epoch, "step": state["step"], "split": "val", **metrics})
            if better:
                save(plain, folder / "best", metrics=metrics, provenance={**(provenance or {}), "epoch": epoch})
        shown = {"loss": loss, **others, "lr": lr, **{f"val {name}": value for name, value in metrics.items()}, **speed}
        log.info("epoch %d/%d  %s", epoch + 1, run.train.epochs, _listed(shown))
        checkpoint()

    with _explained_deaths(), _stop_signals(fabric.world_size) as stopped:
        while state["step"] < steps:
            if run.train.patience and state["stale"] >= run.train.patience:
                log.info("stopped early: the validation has not become better for %d epochs", run.train.patience)
                break
            epoch, number, _ = place(state["step"])
            learner = learners[number]
            learner.optimiser.zero_grad()  # another pass's gradients may have gone through
            speed = _Speed(batches.batch * fabric.world_size)
            total: Any = torch.tensor(state["loss"].get(learner.name, 0.0), device=fabric.device)
            for batch in speed.watch(batches_from(learner)):
                step = state["step"]
                _, _, index = place(step)
                _warn_of(batch["unreadable"], unreadable, run.data.on_error)
                rate = learner.rate(epoch, index)
                learner.set_rate(rate)
                torch.manual_seed(sample_seed(run.seed, step, fabric.global_rank))
                batch_number = learner.bare.batch_number(step)
                prepared = learner.bare.prepare(batch, run, fabric.device, batch_number, fabric.global_rank)
                last, update = index == iterations - 1, (index + 1) % accumulate == 0
                terms = train_step(
                    fabric, learner.objective, learner.optimiser, prepared, accumulate, update, learner.clip_grad
                )
                if update:
                    share_statistics(learner.bare)
                if update and ema is not None and learner is main:
                    ema.update_parameters(main.bare.model)
                total = total + fabric.all_reduce(terms["loss"], reduce_op="mean")
                state["step"], state["loss"][learner.name] = step + 1, total
                paced(step + 1, speed.waited)
                due = run.train.save_every and update and (step + 1) % run.train.save_every == 0
                if speed.due() or due or stopped or step + 1 == steps:
                    shown = {**{name: value.item() for name, value in terms.items()}, "lr": rate, **speed.summary()}
                    report({"what": "training", "done": step + 1, "total": steps, "detail": _listed(shown)})
                if (due or (stopped and update)) and not last:
                    checkpoint()
                if stopped and update and not last:
                    raise KeyboardInterrupt
            if number == len(passes) - 1:
                finish_epoch(epoch, speed.summary())
            else:
                checkpoint()
            if stopped:
                raise KeyboardInterrupt


class Learner:
    """A pass on the devices: its objective as DDP or FSDP runs it, its optimiser and its schedule."""

    def __init__(self, each: Pass, fabric: Fabric, schedule: Schedule) -> None:
        self.name, self.schedule, self.clip_grad = each.name, schedule, each.optim.clip_grad
        self.objective: nn.Module = fabric.setup_module(each.objective)
        self.bare: Objective = self.objective.module  # type: ignore[assignment]  # without DDP; FSDP shards in place
        self.inner = make_optimiser(self.bare, each.optim, each.learns)
        self.optimiser: Any = fabric.setup_optimizers(self.inner)

    def rate(self, epoch: int, index: int) -> float:
        """Of a batch; the schedule counts the batches of this pass alone."""
        first, before = self.schedule.begin
        return self.schedule.rate(before + (epoch - first) * self.schedule.iterations + index)

    def set_rate(self, rate: float) -> None:
        for group in self.inner.param_groups:
            group["lr"] = rate * group["scale"]

    def state(self) -> dict[str, Any]:
        """Whole weights and optimiser state, on every rank. Every rank must call it."""
        return state_of(self.bare, self.inner)

    def restore(self, state: dict[str, Any]) -> None:
        restore(self.bare, self.inner, state)


def train_step(
    fabric: Fabric,
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: dict[str, Any],
    accumulate: int = 1,
    update: bool = True,
    clip_grad: float | None = None,
) -> dict[str, Tensor]:
    """Gradients of one batch and, where `update`, the step. Returns the objective's terms and the gradient norm
    before clipping."""
    with fabric.no_backward_sync(objective, enabled=not update):  # type: ignore[arg-type]
        terms: dict[str, Tensor] = objective(batch)
        fabric.backward(terms["loss"] / accumulate)
    if update:
        if clip_grad is not None:
            # An overflow under fp16 is the gradient scaler's to handle; elsewhere the loss shows it.
            norm = fabric.clip_gradients(objective, optimiser, max_norm=clip_grad, error_if_nonfinite=False)
            terms = {**terms, "grad_norm": norm}  # type: ignore[dict-item]
        optimiser.step()
        optimiser.zero_grad()
    return {name: term.detach() for name, term in terms.items()}


def _compile_stages(passes: Sequence[Pass]) -> None:
    """Stage by stage: alike ones are compiled once, and some objectives never call the model as a whole."""
    models = {id(each.objective.model): each.objective.model for each in passes}
    for stage in [stage for model in models.values() for stage in model.stages()]:
        stage.compile()


def _averaged(model: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _warn_of(found: Sequence[tuple[str, str]], known: set[str], on_error: str) -> None:
    for path, reason in found:
        if path not in known:
            known.add(path)
            log.warning("%d unreadable so far (on_error: %s): %s", len(known), on_error, reason)


def _listed(figures: Figures) -> str:
    said = []
    for key, value in figures.items():
        name = key.split()[-1]
        if name not in FOR_THE_FILE:
            said.append(f"{key.replace('_', ' ')} {per_cent(value) if name in SHARES else f'{value:.4g}'}")
    return "  ".join(said)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@contextlib.contextmanager
def _explained_deaths() -> Iterator[None]:
    """A loader process that dies is noticed wherever the loop happens to be."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            "a loader process was killed, most often for lack of memory: lower train.workers or train.batch and start "
            f"the run again; it goes on from its last checkpoint ({' '.join(str(error).split())[:120]})"
        ) from error


@contextlib.contextmanager
def _stop_signals(world_size: int) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM ask for a checkpoint first: the list is filled, a second signal stops at once. With several
    processes, which would not see it at the same step, the signals keep their meaning."""
    stopped: list[int] = []
    if world_size > 1:
        yield stopped
        return

    def ask(number: int, frame: object) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are the caller's
        yield stopped
        return
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Speed:
    """Clips per second and the share of time spent waiting for data."""

    def __init__(self, clips_per_step: int) -> None:
        self.clips_per_step, self.steps, self.waited = clips_per_step, 0, 0.0
        self.began = self.reported = time.perf_counter()

    def watch(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self.waited += time.perf_counter() - asked
            self.steps += 1
            yield batch

    def due(self) -> bool:
        late = time.perf_counter() - self.reported >= REPORT_SECONDS
        if late:
            self.reported = time.perf_counter()
        return late

    def summary(self) -> Figures:
        elapsed = time.perf_counter() - self.began
        return {"clips_per_s": self.steps * self.clips_per_step / elapsed, "data_wait": self.waited / elapsed}
