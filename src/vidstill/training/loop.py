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

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from vidstill.config import Clip, Run
from vidstill.data.blending import blend
from vidstill.data.dataset import sample_seed
from vidstill.data.loader import EpochBatches
from vidstill.data.transforms import normalise
from vidstill.evaluation.metrics import headline
from vidstill.models.registry import VideoModel
from vidstill.models.subnorm import aggregate_norms, split_norms, whole_state
from vidstill.models.weights import save
from vidstill.training.checkpoint import Log, TrainingError, read_checkpoint, restore, state_of, write_checkpoint
from vidstill.training.optim import make_optimiser
from vidstill.training.precise import precise_statistics
from vidstill.training.schedules import Schedule

log = logging.getLogger(__name__)

Metrics = dict[str, float]
Report = Callable[[dict[str, Any]], None]

REPORT_SECONDS = 0.5  # often enough to look alive, rare enough not to stall a GPU


class Span(NamedTuple):
    """What one call of `fit` does of a run: the epochs from `epoch`, which begins at `step`, to before `end`."""

    epoch: int
    step: int
    end: int


def fit(
    run: Run,
    fabric: Fabric,
    objective: nn.Module,
    loader: DataLoader[dict[str, Any]],
    folder: Path,
    *,
    span: Span | None = None,
    validate: Callable[[VideoModel], Metrics] | None = None,
    validates: Callable[[int], bool] = lambda epoch: True,
    provenance: dict[str, Any] | None = None,
    report: Report = lambda event: None,
) -> None:
    """Train `objective.model` until the end of `span`, by default of `run`, from the checkpoint in `folder` where
    there is one. `validates` says after which epochs, from 0, to validate.

    Writes metrics.jsonl, last.pt after every epoch and best.safetensors with best.json after the best one (by the
    `mAP` or `top1` that `validate` returns; without it after every epoch). `report` hears twice a second of {"what",
    "done", "total", "detail"}. What a step computes depends on (seed, step, rank) alone, so that a run stopped anywhere
    and started again gives the same weights as one that was not.

    Raises TrainingError where the loss is not finite, a loader process dies or the disk is full.
    """
    model: VideoModel = objective.model  # type: ignore[assignment]
    formats: Sequence[Clip] = getattr(objective, "teacher_formats", ())
    span = span or Span(0, 0, run.train.epochs)
    plain = copy.deepcopy(model).to(fabric.device)  # validated and saved; never sharded, compiled or averaged in place
    split_norms(plain, 1)
    batches: EpochBatches = loader.batch_sampler  # type: ignore[assignment]
    iterations, accumulate = len(batches), run.train.accumulate
    steps = span.step + iterations * (span.end - span.epoch)
    schedule = Schedule(
        run.optim,
        run.train.epochs,
        iterations,
        run.train.batch * fabric.world_size * accumulate,
        accumulate,
        begin=(span.epoch, span.step),
    )
    if run.train.compile:  # stage by stage: alike ones are compiled once, and no objective calls the model otherwise
        for stage in model.modules():
            if getattr(stage, "is_stage", False):
                stage.compile()
    objective = fabric.setup_module(objective)
    bare: nn.Module = objective.module  # without DDP; FSDP shards it in place
    model = bare.model  # type: ignore[assignment]
    inner = make_optimiser(bare, run.optim)
    optimiser: Any = fabric.setup_optimizers(inner)
    ema = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(run.train.ema), use_buffers=True)
        if run.train.ema
        else None
    )

    state: dict[str, Any] = {"step": 0, "best": -math.inf, "stale": 0, "loss": 0.0}
    if (saved := read_checkpoint(folder)) is not None:
        restore(bare, inner, saved.pop("weights"))
        fabric.strategy.precision.load_state_dict(saved.pop("precision"))
        if ema is not None:
            ema.load_state_dict(saved.pop("ema"))
        state = saved
        log.info("resumed at step %d of %d", state["step"], steps)
    unreadable: set[str] = set()
    rows = Log(folder, keep=lambda row: row["step"] <= state["step"]) if fabric.is_global_zero else None

    def moment() -> int:
        """The number of the batch: its videos, augmentation and blending depend on it. With cached teacher logits the
        same batches come again after some epochs."""
        step: int = state["step"]
        return step % (run.distil.cache_epochs * iterations) if run.distil.cache else step

    def check_loss() -> None:
        state["loss"] = float(state["loss"])
        if not math.isfinite(state["loss"]):
            raise TrainingError(
                f"the loss is {state['loss']} at step {state['step']}: lower optim.lr, clip with optim.clip_grad or "
                "use train.precision fp32; the checkpoint before it is kept"
            )

    def checkpoint() -> None:
        weights = state_of(bare, inner)
        if fabric.is_global_zero:
            averaged = {} if ema is None else {"ema": ema.state_dict()}
            scaler = fabric.strategy.precision.state_dict()
            write_checkpoint(folder, {**state, "weights": weights, "precision": scaler, **averaged})

    def finish_epoch(epoch: int, speed: Metrics) -> None:
        check_loss()
        if run.train.precise_norms:
            batches.epoch, batches.start = epoch, 0
            read = itertools.islice(iter(loader), min(run.train.precise_norms, iterations))
            with fabric.autocast():
                precise_statistics(
                    model,
                    (prepare(each, run, plain, fabric.device, epoch, fabric.global_rank)["clips"] for each in read),
                )
        aggregate_norms(model)
        weights = ema.module.state_dict() if ema is not None else _part(state_of(bare, inner)["model"], "model.")
        plain.load_state_dict(whole_state(weights, plain.state_dict())[0])
        lr = schedule.rate(state["step"] - 1)
        row = {"epoch": epoch, "step": state["step"], "split": "train", "loss": state["loss"] / iterations, "lr": lr,
               "unreadable": len(unreadable), **speed}  # fmt: skip
        metrics = validate(plain) if validate and (validates(epoch) or epoch + 1 == run.train.epochs) else {}
        judged = headline(metrics)
        better = judged[1] > state["best"] if judged else validate is None
        state.update(loss=0.0, stale=0 if better else state["stale"] + bool(metrics))
        if better and judged:
            state["best"] = judged[1]
        if rows is not None:
            rows.write(row)
            if metrics:
                rows.write({"epoch": epoch, "step": state["step"], "split": "val", **metrics})
            if better:
                save(plain, folder / "best", metrics=metrics, provenance={**(provenance or {}), "epoch": epoch})
        shown = {"loss": row["loss"], "lr": lr, **{f"val {name}": value for name, value in metrics.items()}, **speed}
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        log.info("epoch %d/%d  %s", epoch + 1, run.train.epochs, numbers)
        checkpoint()

    with _explained_deaths(), _stop_signals(fabric.world_size) as stopped:
        while state["step"] < steps:
            if run.train.patience and state["stale"] >= run.train.patience:
                log.info("stopped early: the validation has not become better for %d epochs", run.train.patience)
                break
            epoch = span.epoch + (state["step"] - span.step) // iterations
            repeated, batches.start = divmod(moment() - span.step, iterations)
            batches.epoch = span.epoch + repeated
            speed = _Speed(batches.batch * fabric.world_size)
            total = torch.tensor(state["loss"], device=fabric.device)
            for batch in speed.watch(iter(loader)):
                step = state["step"]
                for path, reason in batch["unreadable"]:
                    if path not in unreadable:
                        unreadable.add(path)
                        log.warning(
                            "%d unreadable so far (on_error: %s): %s", len(unreadable), run.data.on_error, reason
                        )
                for group in inner.param_groups:
                    group["lr"] = schedule.rate(step) * group["scale"]
                torch.manual_seed(sample_seed(run.seed, step, fabric.global_rank))
                index = (step - span.step) % iterations
                prepared = prepare(batch, run, plain, fabric.device, moment(), fabric.global_rank, formats)
                last = index == iterations - 1
                update = (index + 1) % accumulate == 0
                terms = train_step(fabric, objective, optimiser, prepared, accumulate, update, run.optim.clip_grad)
                if update and ema is not None:
                    ema.update_parameters(model)
                if last and not update:
                    optimiser.zero_grad()  # an epoch's leftover micro-batches do not leak into the next epoch
                mean: Any = fabric.all_reduce(terms["loss"], reduce_op="mean")
                total = total + mean
                state["step"] = step + 1
                due = run.train.save_every and update and (step + 1) % run.train.save_every == 0
                if speed.due() or due or stopped:
                    shown = {**{name: value.item() for name, value in terms.items()}, "lr": schedule.rate(step)}
                    detail = "  ".join(f"{name} {value:.4g}" for name, value in {**shown, **speed.summary()}.items())
                    report({"what": "training", "done": step + 1, "total": steps, "detail": detail})
                state["loss"] = total
                if (due or (stopped and update)) and not last:
                    check_loss()
                    checkpoint()
                if stopped and update and not last:
                    raise KeyboardInterrupt
            finish_epoch(epoch, speed.summary())
            if stopped:
                raise KeyboardInterrupt


def prepare(
    batch: dict[str, Any],
    run: Run,
    model: nn.Module,
    device: torch.device,
    moment: int,
    rank: int,
    formats: Sequence[Clip] = (),
) -> dict[str, Any]:
    """A loader batch on the device: `clips` normalised and blended (B,3,T,H,W), `targets` (B,K), and `teacher_clips`,
    the same in the format of each teacher."""
    labels = batch["labels"].to(device, non_blocking=True)

    def ready(pixels: Tensor, form: Clip) -> tuple[Tensor, Tensor]:
        clips = normalise(pixels.to(device, non_blocking=True), form.mean, form.std)
        rng = np.random.RandomState(sample_seed(run.seed, 1, moment, rank))
        frame = (run.clip.size, run.clip.size)
        return blend(clips, labels, len(model.classes), run.augment, rng, frame)  # type: ignore[arg-type]

    clips, targets = ready(batch["clips"], run.clip)
    others = iter(batch["others"])
    teacher_clips = []
    for form in formats:
        same = form.same_frames(run.clip)
        pixels = batch["clips"] if same else next(others)
        alike = same and (form.mean, form.std) == (run.clip.mean, run.clip.std)
        teacher_clips.append(clips if alike else ready(pixels, form)[0])
    return {
        **batch, "clips": clips, "targets": targets, "labels": labels, "moment": moment, "teacher_clips": teacher_clips,
    }  # fmt: skip


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

    def summary(self) -> Metrics:
        elapsed = time.perf_counter() - self.began
        return {"clips_per_s": self.steps * self.clips_per_step / elapsed, "data_wait": self.waited / elapsed}
