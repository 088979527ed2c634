"""Recognition: videos that have a class, or several, as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from vidstill.config import Clip, ConfigError, Run
from vidstill.data.annotations import Annotations, Sample, find_problems, read_annotations
from vidstill.data.dataset import TrainClips
from vidstill.data.loader import worker_count
from vidstill.data.randaugment import parse_policy
from vidstill.data.synthetic import make_synthetic
from vidstill.evaluation.metrics import per_cent
from vidstill.evaluation.predictions import Evaluation
from vidstill.evaluation.testing import evaluate
from vidstill.files import atomic
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import load_weights
from vidstill.objectives.cache import LogitCache
from vidstill.objectives.distil import Distil
from vidstill.objectives.objective import Objective
from vidstill.objectives.recognise import Recognise
from vidstill.objectives.teachers import Teacher, load_teachers
from vidstill.objectives.token_labels import TokenLabels, load_annotator
from vidstill.tasks.task import Figures, Pass, Report, ignore, tested_split
from vidstill.video.decode import VideoError, probe

log = logging.getLogger(__name__)

VALIDATED = ("loss", "mAP", "top1", "top5")  # of the figures of a test, what the curves of a run show


class Recognition:
    """A task (see `tasks.task.Task`): the data of a run, its objective, its tests."""

    def __init__(
        self, run: Run, fabric: Fabric, report: Report = ignore, annotations: Annotations | None = None
    ) -> None:
        self.run, self.fabric, self.report = run, fabric, report
        self.annotations = annotations or read_checked(run, fabric, report)
        self.splits, self.classes = self.annotations.splits, self.annotations.classes
        self.workers, self.workers_reason = worker_count(
            run.train.workers, processes=fabric.world_size, on_gpu=fabric.device.type == "cuda"
        )

    def build_model(self) -> VideoModel:
        run = self.run
        torch.manual_seed(run.seed)
        model = create_model(run.model.name, num_classes=len(self.classes), **run.model.options)
        if run.model.weights:
            log.info("%s", load_weights(model, run.model.weights, head=run.model.head))
        seconds = run.clip.seconds or _typical_seconds(self.splits["train"])
        model.classes, model.input = list(self.classes), run.clip.model_copy(update={"seconds": seconds})
        if run.data.multi_label:
            model.activation = "sigmoid"
        model.checkpointing, model.freeze_norms = run.train.checkpointing, run.train.freeze_norms
        return model.train()

    def training_clips(self) -> TrainClips:
        run = self.run
        if run.augment.randaugment is not None:
            parse_policy(run.augment.randaugment)  # refused here, not by the first sample
        classes = len(self.classes) if run.data.multi_label else 0
        return TrainClips(self.splits["train"], run.clip, run.augment, run.seed, run.data.on_error, classes=classes)

    def passes(self, model: VideoModel, iterations: int) -> list[Pass]:
        makers = {"recognise": self._recognise, "distil": self._distil, "token_labels": self._token_labels}
        return [Pass("training", makers[self.run.objective](model, iterations), self.run.optim)]

    def validate(self, model: VideoModel) -> Figures:
        """One view of every video, as `predict` sees it: what is fitted here holds there."""
        run = self.run
        result = evaluate(
            model, self.splits["val"], clips=1, crops=1, batch=run.train.batch, workers=self.workers,
            start=run.train.start, multi_label=run.data.multi_label, fabric=self.fabric,
            report=lambda event: self.report({**event, "what": "validating"}),
        )  # fmt: skip
        return {name: result.figures[name] for name in VALIDATED if name in result.figures} | result.none_below

    def test(self, model: VideoModel, split: str, report: Report = ignore, clip: Clip | None = None) -> Evaluation:
        """With the views of the run's test; `clip` in the place of the model's own input."""
        run, views = self.run, self.run.test
        if views.size:
            clip = (clip or model.input).model_copy(update={"size": views.size})
        return evaluate(
            model, self.splits[split], clip=clip, clips=views.clips, crops=views.crops,
            seed=run.seed if views.random else None, side=views.side, ensemble=views.ensemble, batch=views.batch,
            workers=self.workers, start=run.train.start, multi_label=run.data.multi_label, fabric=self.fabric,
            report=report,
        )  # fmt: skip

    def _recognise(self, model: VideoModel, iterations: int) -> Objective:
        return Recognise(model, self.run.data.multi_label)

    def _token_labels(self, model: VideoModel, iterations: int) -> Objective:
        settings = self.run.token_labels
        return TokenLabels(model, load_annotator(settings, self.classes, self.fabric.device), settings)

    def _distil(self, model: VideoModel, iterations: int) -> Objective:
        settings = self.run.distil
        teachers = load_teachers(settings, self.classes, self.run.clip, self.fabric.device)
        cache = None
        if settings.cache is not None:
            with self.fabric.rank_zero_first():  # it makes the folder and says whose logits it keeps
                cache = self._logit_cache(settings.cache, teachers, iterations)
        objective = Distil(model, teachers, settings, cache)  # first: its random weights depend on the seed alone
        objective.introduction = self._introduce(teachers)
        return objective

    def _logit_cache(self, folder: Path, teachers: Sequence[Teacher], iterations: int) -> LogitCache:
        run, settings = self.run, self.run.distil
        samples = repr([(str(sample.video), sample.label) for sample in self.splits["train"]]).encode()
        identity = {
            "seed": run.seed, "videos": hashlib.sha256(samples).hexdigest()[:16], "processes": self.fabric.world_size,
            "teachers": [teacher.sha256 for teacher in teachers], "shares": settings.teacher_weights,
            "precision": settings.precision, "clip": run.clip.model_dump(mode="json", exclude={"seconds"}),
            "augment": run.augment.model_dump(mode="json"), "on_error": run.data.on_error,
        }  # fmt: skip
        return LogitCache(
            folder, identity, batches=settings.cache_epochs * iterations, batch=run.train.batch,
            classes=len(self.classes), kept=settings.cache_classes, rank=self.fabric.global_rank,
        )  # fmt: skip

    def _introduce(self, teachers: Sequence[Teacher]) -> list[dict[str, Any]]:
        """Who teaches, with the top-1 on the student's own test videos; kept in teachers.json for a run taken up
        again. Raises ConfigError where that was begun with another teacher."""
        known = self.run.folder / "teachers.json"
        introduction: list[dict[str, Any]] = json.loads(known.read_text(encoding="utf-8")) if known.exists() else []
        if [row["sha256"] for row in introduction] == [teacher.sha256 for teacher in teachers]:
            return introduction
        if introduction and (self.run.folder / "last.pt").exists():
            raise ConfigError(f"{self.run.folder} was begun with another teacher: choose another --name or delete it")
        self.fabric.barrier()  # no process writes before all have looked
        introduction, split = [], tested_split(self.splits)
        for teacher in teachers:
            figures = self.test(teacher.model, split, self.report).metrics.figures if split else {}
            top1, name = figures.get("top1"), teacher.model.name
            introduction.append({"source": teacher.source, "sha256": teacher.sha256, "model": name, "top1": top1})
            shown = "not tested" if top1 is None else f"top-1 {per_cent(top1)}"
            log.info("teacher %s (%s, sha256 %s): %s", teacher.source, name, teacher.sha256, shown)
        if self.fabric.is_global_zero:
            with atomic(known) as file:
                file.write(json.dumps(introduction, indent=1).encode())
        return introduction


def read_checked(run: Run, fabric: Fabric, report: Report = ignore) -> Annotations:
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
    log_problems(annotations, fabric)
    return annotations


def log_problems(annotations: Annotations, fabric: Fabric) -> None:
    for problem in find_problems(annotations) if fabric.is_global_zero else ():
        if problem.fatal:
            raise ConfigError(f"{problem}; `vidstill check` tells more")
        log.warning("%s", problem)


def _typical_seconds(samples: Sequence[Sample]) -> float | None:
    """Median length of up to 50 of the videos, spread over the list."""
    lengths = []
    for sample in samples[:: max(1, len(samples) // 50)]:
        with contextlib.suppress(VideoError):
            lengths.append(probe(sample.video).seconds)
    return round(statistics.median(lengths), 3) if lengths else None
