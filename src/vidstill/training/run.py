"""From a resolved run to a finished run folder: data, model, objective, loop, test, report."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from vidstill.config import ConfigError, Run, resolve
from vidstill.data.annotations import Annotations, Sample, find_problems, read_annotations
from vidstill.data.dataset import TrainClips
from vidstill.data.loader import EpochBatches, train_loader, worker_count
from vidstill.data.randaugment import parse_policy
from vidstill.data.synthetic import make_synthetic
from vidstill.evaluation.predictions import Evaluation, write_predictions
from vidstill.evaluation.testing import evaluate
from vidstill.files import atomic
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.subnorm import split_norms
from vidstill.models.weights import load, load_weights
from vidstill.objectives.cache import LogitCache
from vidstill.objectives.distil import Distil
from vidstill.objectives.recognise import Recognise
from vidstill.objectives.teachers import Teacher, class_difference, load_teachers
from vidstill.objectives.token_labels import TokenLabels, load_annotator
from vidstill.reporting.report import write_report
from vidstill.training.checkpoint import Log, TrainingError, has_checkpoint, open_folder, read_checkpoint
from vidstill.training.loop import Report, Span, fit
from vidstill.training.multigrid import NormPlan, eval_epochs, longest_interval, multigrid_run, norm_plan, short_cycle
from vidstill.video.decode import VideoError, probe

log = logging.getLogger(__name__)

PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train(run: Run, report: Report = lambda event: None) -> Path:
    """Train, test and report one run; returns its folder. A run that was stopped goes on; a finished one is only
    tested again.

    `report` hears of progress: {"epoch", "step", "steps", "loss", "lr", "clips_per_s", "data_wait", …} during
    training, {"tested", "videos"} during the test. Raises ConfigError, TrainingError or VideoError, in one line.
    """
    fabric = make_fabric(run)
    fabric.launch()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_threads(run.train.threads))
        if fabric.is_global_zero:
            folder = stack.enter_context(open_folder(run))
            stack.enter_context(_train_log(folder))
        else:
            folder, report = run.folder, _silent
            logging.getLogger("vidstill").setLevel(logging.ERROR)
        annotations = read_checked(run, fabric, report)
        if run.augment.randaugment is not None:
            parse_policy(run.augment.randaugment)  # refused here, not by the first sample
        model = build_model(run, annotations)
        workers, why = worker_count(run.train.workers, processes=fabric.world_size, on_gpu=fabric.device.type == "cuda")
        log.info("device %s, %d process(es), precision %s", fabric.device, fabric.world_size, run.train.precision)
        log.info("%d loader process(es) (%s); videos are decoded on the CPU", workers, why)
        clips = TrainClips(
            annotations.splits["train"], run.clip, run.augment, run.seed, run.data.on_error,
            classes=len(annotations.classes) if run.data.multi_label else 0,
        )  # fmt: skip
        batches = EpochBatches(len(clips), run.train.batch, run.seed, fabric.global_rank, fabric.world_size)
        held_out = annotations.splits.get("test") or annotations.splits.get("val", [])
        objective = build_objective(run, model, annotations, len(batches), fabric)
        clips.others = [form for form in getattr(objective, "teacher_formats", ()) if not form.same_frames(run.clip)]
        val = annotations.splits.get("val", [])

        def single_view(candidate: VideoModel) -> dict[str, float]:
            figures = evaluate(
                candidate, val, clips=1, crops=1, batch=run.train.batch, workers=workers, start=run.train.start,
                multi_label=run.data.multi_label, fabric=fabric,
            ).metrics.figures  # fmt: skip
            return {name: figures[name] for name in ("loss", "mAP", "top1", "top5") if name in figures}

        provenance = {"run": run.name, "seed": run.seed, "vidstill": version("vidstill"), "torch": torch.__version__}
        if isinstance(objective, Distil):
            provenance["teachers"] = _introduce(objective.teachers, held_out, run, fabric, workers, report)
        for phase in phases_of(run, fabric, clips, workers, done=(read_checkpoint(folder) or {"step": 0})["step"]):
            split_norms(model, phase.splits)
            fit(phase.run, fabric, objective, phase.loader, folder, span=phase.span, validates=phase.validates,
                validate=single_view if val else None, provenance=provenance, report=report)  # fmt: skip
            del phase  # its loader processes end before those of the next phase, or of the test, start
        fabric.barrier()
        if held_out:
            best = load(folder).to(fabric.device)
            scored = _test(best, held_out, run, fabric, workers, report)
            if fabric.is_global_zero:
                _record(folder, scored, run)
        if fabric.is_global_zero:
            write_report(folder)
    return folder


class Phase(NamedTuple):
    """A part of a run whose batches are alike: its only one, or one of multigrid training."""

    run: Run  # with the whole schedule
    loader: DataLoader[dict[str, Any]]
    span: Span
    splits: int  # of batch norms
    validates: Callable[[int], bool]


def phases_of(run: Run, fabric: Fabric, clips: TrainClips, workers: int, done: int = 0) -> Iterator[Phase]:
    """The phases of a run that are not `done`, a number of steps. A resumed run has the same."""
    whole, planned = multigrid_run(run)
    every = run.train.validate_every
    validated = eval_epochs(planned) if run.multigrid.long else set(range(every - 1, whole.train.epochs, every))
    epoch = step = 0
    for part in planned:
        end = min(part.end, whole.train.epochs)  # some releases plan more than they train
        if end <= epoch:
            continue
        batch = run.train.batch * part.scale
        cycle = short_cycle(batch, part.size, run.clip.size) if run.multigrid.short else None
        batches = EpochBatches(len(clips), batch, run.seed, fabric.global_rank, fabric.world_size, cycle)
        span = Span(epoch, step, end)
        epoch, step = end, step + len(batches) * (end - epoch)
        if done and done >= step:
            continue
        shaped = dataclasses.replace(
            clips,
            clip=run.clip.model_copy(update={"frames": part.frames, "size": part.size}),
            longest_interval=longest_interval(run.clip.interval, part.frames, run.clip.frames),
            full_size=run.clip.size,
        )
        loader = train_loader(shaped, batches, workers=workers, start=run.train.start, pin=fabric.device.type == "cuda")
        plan = norm_plan(batch, run.multigrid.norm_batch) if run.multigrid.long else NormPlan(1, 1)
        if len(planned) > 1:
            log.info("epochs %d to %d: %d frames of %d², %d clips a process, batch norm of %d parts",
                     span.epoch + 1, span.end, part.frames, part.size, batch, plan.splits)  # fmt: skip
        yield Phase(whole, loader, span, plan.splits, validated.__contains__)


def test(
    source: str | Path,
    settings: Sequence[str] = (),
    *,
    clips: int | None = None,
    crops: Literal[1, 3] | None = None,
    report: Report = lambda event: None,
) -> tuple[Path, Evaluation]:
    """Test a run folder, or a model file with --data.… settings, on its test videos (validation where there are none).

    Views default to the recipe's. Writes predictions.csv and report.html beside the model; returns their folder and
    the result. Raises ValueError where the classes of data and model differ.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    recipe = folder / "config.yaml"
    run = resolve(recipe if recipe.exists() else None, settings)
    fabric = make_fabric(run)
    fabric.launch()
    model = load(path).to(fabric.device)
    annotations = read_checked(run, fabric)
    if annotations.classes != model.classes:
        raise ConfigError(class_difference(annotations.classes, model.classes or []))
    run.test.clips, run.test.crops = clips or run.test.clips, crops or run.test.crops
    held_out = next((samples for name in ("test", "val", "train") if (samples := annotations.splits.get(name))), [])
    workers, _ = worker_count(run.train.workers, processes=fabric.world_size, on_gpu=fabric.device.type == "cuda")
    scored = _test(model, held_out, run, fabric, workers, report)
    if fabric.is_global_zero:
        _record(folder, scored, run)
        write_report(folder)
    return folder, scored


def _test(
    model: VideoModel, samples: Sequence[Sample], run: Run, fabric: Fabric, workers: int, report: Report
) -> Evaluation:
    views = run.test
    clip = model.input.model_copy(update={"size": views.size}) if views.size else None
    return evaluate(
        model, samples, clip=clip, clips=views.clips, crops=views.crops, seed=run.seed if views.random else None,
        side=views.side, ensemble=views.ensemble, batch=views.batch, workers=workers, start=run.train.start,
        multi_label=run.data.multi_label, fabric=fabric, report=report,
    )  # fmt: skip


def _introduce(
    teachers: Sequence[Teacher], samples: Sequence[Sample], run: Run, fabric: Fabric, workers: int, report: Report
) -> list[dict[str, Any]]:
    """Who teaches, with the top-1 on the student's own test videos; kept in teachers.json for a resumed run."""
    known = run.folder / "teachers.json"
    if known.exists() and has_checkpoint(run.folder):
        introduced: list[dict[str, Any]] = json.loads(known.read_text(encoding="utf-8"))
        if [row["sha256"] for row in introduced] != [teacher.sha256 for teacher in teachers]:
            raise TrainingError(f"{run.folder} was begun with another teacher: choose another --name or delete it")
        return introduced
    fabric.barrier()  # no process writes before all have looked
    introduced = []
    for teacher in teachers:
        tested = _test(teacher.model, samples, run, fabric, workers, report).metrics.figures if samples else {}
        top1 = tested.get("top1")
        name, sha256 = teacher.model.name, teacher.sha256
        introduced.append({"source": teacher.source, "sha256": sha256, "model": name, "top1": top1})
        log.info("teacher %s (%s, sha256 %s): top-1 %s", teacher.source, name, sha256, top1)
    if fabric.is_global_zero:
        with atomic(known) as file:
            file.write(json.dumps(introduced, indent=1).encode())
    return introduced


def _record(folder: Path, scored: Evaluation, run: Run) -> None:
    """predictions.csv, and the test's row in metrics.jsonl in place of an earlier one."""
    write_predictions(folder / "predictions.csv", scored)
    figures = scored.metrics.figures
    for path, reason in scored.unreadable:
        log.warning("not tested: %s (%s)", path, reason)
    unreadable = {"unreadable": len(scored.unreadable), "unreadable_videos": scored.unreadable}
    log_rows = Log(folder, keep=lambda row: row["split"] != "test")
    views = {"clips": run.test.clips, "crops": run.test.crops}
    log_rows.write({"split": "test", "step": 0, "videos": len(scored.samples), **views, **figures, **unreadable})


def make_fabric(run: Run) -> Fabric:
    """Devices, precision and strategy of the run; under torchrun its processes and nodes count instead.

    Raises ConfigError for devices that are not there.
    """
    t = run.train
    if "LOCAL_WORLD_SIZE" in os.environ:
        t.devices = int(os.environ["LOCAL_WORLD_SIZE"])
        t.nodes = int(os.environ["WORLD_SIZE"]) // t.devices
    gpus = torch.cuda.device_count()
    on_gpu = t.accelerator == "cuda" or (t.accelerator == "auto" and gpus > 0)
    if on_gpu and t.devices > gpus:
        raise ConfigError(
            f"train.devices {t.devices}: this machine has {gpus} GPU(s); set --train.devices {max(gpus, 1)}"
        )
    if t.precision == "fp16" and not (on_gpu or (t.accelerator != "cpu" and torch.backends.mps.is_available())):
        raise ConfigError("train.precision fp16 needs a GPU, and none is here: use --train.precision bf16 or fp32")
    strategy: Any = t.strategy
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(_shard, data_parallel_size=t.devices * t.nodes, tensor_parallel_size=1)
    return Fabric(
        accelerator=t.accelerator,
        devices=t.devices,
        num_nodes=t.nodes,
        precision=PRECISION[t.precision],
        strategy=strategy,
    )


def _shard(objective: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """FSDP2: every stage on its own, the rest at the root."""
    for module in objective.modules():
        if module is not objective and getattr(module, "is_stage", False):
            fully_shard(module, mesh=mesh["data_parallel"])
    fully_shard(objective, mesh=mesh["data_parallel"])
    return objective


def read_checked(run: Run, fabric: Fabric, report: Report = lambda event: None) -> Annotations:
    """The videos of the run, embedded ones made where they are missing. Raises ConfigError for data that cannot be
    trained on as it is; what is merely suspicious is logged."""
    if run.data.format == "synthetic":
        if fabric.is_global_zero:
            make_synthetic(
                run.data.root,
                seed=run.seed,
                progress=lambda done, total: report({"what": "making clips", "done": done, "total": total}),
            )
        fabric.barrier()
    annotations = read_annotations(run.data, run.seed)
    for problem in find_problems(annotations) if fabric.is_global_zero else ():
        if problem.fatal:
            raise ConfigError(f"{problem}; `vidstill check` tells more")
        log.warning("%s", problem)
    return annotations


def build_model(run: Run, annotations: Annotations) -> VideoModel:
    """The run's network with its starting weights, class names and input."""
    torch.manual_seed(run.seed)
    model = create_model(run.model.name, num_classes=len(annotations.classes), **run.model.options)
    if run.model.weights:
        log.info("%s", load_weights(model, run.model.weights, head=run.model.head))
    seconds = run.clip.seconds or _typical_seconds(annotations.splits["train"])
    model.classes, model.input = list(annotations.classes), run.clip.model_copy(update={"seconds": seconds})
    if run.data.multi_label:
        model.activation = "sigmoid"
    return model


def build_objective(
    run: Run, model: VideoModel, annotations: Annotations, iterations: int, fabric: Fabric
) -> nn.Module:
    """What the run trains for; `iterations` per epoch. Raises ValueError for a teacher that does not fit."""
    if run.objective == "recognise":
        return Recognise(model, run.data.multi_label)
    if run.objective == "token_labels":
        annotator = load_annotator(run.token_labels, annotations.classes, fabric.device)
        return TokenLabels(model, annotator, run.token_labels)
    settings = run.distil
    teachers = load_teachers(settings, annotations.classes, run.clip, fabric.device)
    cache = None
    if settings.cache is not None:
        samples = repr([(str(sample.path), sample.label) for sample in annotations.splits["train"]]).encode()
        identity = {
            "seed": run.seed, "videos": hashlib.sha256(samples).hexdigest()[:16], "processes": fabric.world_size,
            "teachers": [teacher.sha256 for teacher in teachers], "shares": settings.teacher_weights,
            "precision": settings.precision, "clip": run.clip.model_dump(mode="json", exclude={"seconds"}),
            "augment": run.augment.model_dump(mode="json"), "on_error": run.data.on_error,
        }  # fmt: skip
        cache = LogitCache(
            settings.cache, identity, moments=settings.cache_epochs * iterations, batch=run.train.batch,
            classes=len(annotations.classes), kept=settings.cache_classes, rank=fabric.global_rank,
        )  # fmt: skip
    return Distil(model, teachers, settings, cache)


def _typical_seconds(samples: Sequence[Sample]) -> float | None:
    """Median length of up to 50 of the videos, spread over the list."""
    lengths = []
    for sample in samples[:: max(1, len(samples) // 50)]:
        with contextlib.suppress(VideoError):
            lengths.append(probe(sample.path).seconds)
    return round(statistics.median(lengths), 3) if lengths else None


def _silent(event: dict[str, Any]) -> None:
    """Progress is shown by the first process alone."""


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
