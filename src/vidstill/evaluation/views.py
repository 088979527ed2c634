"""Testing: every view of a video from one decoding pass, fused into one score."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidstill.config import Clip, OnError
from vidstill.data.annotations import Sample, multi_hot
from vidstill.data.dataset import sample_seed
from vidstill.data.loader import start_worker
from vidstill.data.transforms import normalise, test_clips
from vidstill.evaluation.metrics import Metrics, MultiLabelMetrics, headline, measure, measure_multi_label
from vidstill.files import atomic
from vidstill.models.registry import VideoModel
from vidstill.video.decode import VideoError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Of predictions.csv; the classes follow. Of multi-label data the second one is "labels", with a ; between classes
COLUMNS = ["path", "label", "predicted", "score"]
MULTI_LABEL_COLUMNS = ["path", "labels", "predicted", "score"]
# Views that go through the model together, though a batch of videos may have 12 of each: enough to fill a GPU and few
# enough for its memory; on a CPU 4 take 0.8 of the time of 16 and 0.64 of that of 48 (VFL-Net at 112 pixels).
VIEWS_AT_ONCE, VIEWS_AT_ONCE_ON_CPU = 16, 4
NAMED_AT_MOST = 20  # unreadable videos in a summary; the report has them all


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A test: probabilities (N,K), float32, of the readable videos `samples`, and the others as (path, reason).

    `multi_label`: a video may have several classes, so that mAP is measured.
    """

    classes: list[str]
    samples: list[Sample]
    probabilities: np.ndarray
    unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    multi_label: bool = False

    @property
    def figures(self) -> dict[str, float]:
        """The single numbers by the names under which a run folder keeps them."""
        return self.metrics.figures

    @property
    def headline(self) -> tuple[str, float] | None:
        """The figure that models are judged by, with its name in print."""
        return headline(self.figures)

    @property
    def videos(self) -> int:
        return len(self.samples)

    def write(self, folder: Path) -> None:
        """predictions.csv (see `write_predictions`)."""
        write_predictions(folder / "predictions.csv", self)

    @property
    def paths(self) -> list[Path]:
        return [sample.path for sample in self.samples]

    @cached_property
    def labels(self) -> np.ndarray:
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @cached_property
    def metrics(self) -> Metrics | MultiLabelMetrics:
        if self.multi_label:
            targets = multi_hot(self.samples, len(self.classes))
            return measure_multi_label(self.probabilities, targets, self.classes)
        return measure(self.probabilities, self.labels, self.classes)

    def summary(self) -> str:
        """The headline in one line, and one for each video that could not be read."""
        m = self.metrics
        left_out = f", {len(self.unreadable)} unreadable left out" if self.unreadable else ""
        if isinstance(m, Metrics):
            figures = (
                f"top-1 {m.top1:.1%}  top-5 {m.top5:.1%}  mean class {m.mean_class:.1%}  calibration error "
                f"{m.calibration_error:.1%}"
            )
        else:
            figures = f"mAP {m.mean_average_precision:.1%}  by chance about {m.chance:.1%}"
        lines = [f"{figures}  ({m.videos} videos{left_out})"]
        lines += [f"unreadable: {reason}" for _, reason in self.unreadable[:NAMED_AT_MOST]]
        if (more := len(self.unreadable) - NAMED_AT_MOST) > 0:
            lines.append(f"and {more} more, in the report")
        return "\n".join(lines)


def scores_of(logits: Tensor, activation: str) -> Tensor:
    """What a view scores: softmax, or sigmoid where classes do not exclude each other, or relu (released GhostNet)."""
    return logits.softmax(-1) if activation == "softmax" else getattr(logits, activation)()


def fuse(logits: Tensor, activation: str = "softmax", ensemble: str = "sum") -> Tensor:
    """Logits of views (…,V,K) → one (…,K): the sum or the maximum over the views of their scores, or with "score" the
    score of the mean logits."""
    if ensemble == "score":
        return scores_of(logits.mean(-2), activation)
    scores = scores_of(logits, activation)
    return scores.sum(-2) if ensemble == "sum" else scores.amax(-2)


@dataclasses.dataclass
class TestViews(Dataset[dict[str, Any]]):
    """Batches of test videos, asked for as lists of indices."""

    samples: Sequence[Sample]
    clip: Clip
    clips: int
    crops: int
    seed: int | None  # of random clips; None: evenly spread
    side: int | None = None  # short side before the crop
    __test__ = False  # the name is not a test's

    def __getitem__(self, indices: Sequence[int]) -> dict[str, Any]:
        """{"index": of the readable ones, "views": uint8 (n,crops·clips,T,S,S,3), "unreadable": [(index, reason)]}"""
        read: dict[int, Tensor] = {}
        unreadable: list[tuple[int, str]] = []
        for index in indices:
            rng = None if self.seed is None else np.random.RandomState(sample_seed(self.seed, index))
            try:
                views = test_clips(self.samples[index].path, self.clip, self.clips, self.crops, rng, self.side)
                read[index] = torch.from_numpy(views)
            except VideoError as error:
                unreadable.append((index, str(error)))
        return {"index": list(read), "views": list(read.values()), "unreadable": unreadable}


def evaluate(
    model: VideoModel,
    samples: Sequence[Sample],
    *,
    clip: Clip | None = None,
    clips: int = 4,
    crops: int = 3,
    seed: int | None = None,
    side: int | None = None,
    ensemble: str = "sum",
    batch: int = 4,
    workers: int = 0,
    start: str | None = None,
    on_error: OnError = "skip",
    multi_label: bool = False,
    fabric: Fabric | None = None,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Evaluation:
    """Score `samples` with `clips` x `crops` views each, `batch` videos at a time, every video exactly once.

    `clip` defaults to the model's input; `side` is the short side that crops are taken from, `ensemble` fuses the views
    (see `fuse`). With `seed` the clips are random, as in the released Video-FocalNet test. `workers` processes, started
    by `start` (fork, spawn), read the videos. Unreadable ones are never replaced: they are left out of the figures and
    named, or with `on_error="raise"` the first stops the test. `multi_label`: a video may have several classes, and mAP
    is measured. Under `fabric` the ranks share the videos and all get the whole result. `report` hears of {"what",
    "done", "total"}.

    Raises ValueError where no video is readable or a loader process is killed, VideoError with `on_error="raise"`.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    device = fabric.device if fabric else next(model.parameters()).device
    spec = clip or model.input
    mine = range(rank, len(samples), world)
    loader = DataLoader(
        TestViews(samples, spec, clips, crops, seed, side),
        batch_size=None,
        sampler=[list(mine[i : i + batch]) for i in range(0, len(mine), batch)],
        num_workers=workers,
        multiprocessing_context=start if workers else None,
        worker_init_fn=start_worker,
        pin_memory=device.type == "cuda",
    )
    scores: dict[int, np.ndarray] = {}
    reasons: dict[int, str] = {}
    with _evaluating(model), fabric.autocast() if fabric else contextlib.nullcontext():
        for videos in _batches(loader):
            reasons.update(videos["unreadable"])
            if on_error == "raise" and reasons:
                break  # raised below by all ranks, which would wait for this one
            if videos["index"]:
                views = torch.stack([video.to(device, non_blocking=True) for video in videos["views"]])
                fused = score_views(model, views, spec, ensemble=ensemble).cpu().numpy()
                scores.update(zip(videos["index"], fused, strict=True))
            done = min((len(scores) + len(reasons)) * world, len(samples))
            report({"what": "testing", "done": done, "total": len(samples)})
    if world > 1:
        parts: list[Any] = [None] * world
        torch.distributed.all_gather_object(parts, (scores, reasons))
        scores = {index: score for part, _ in parts for index, score in part.items()}
        reasons = {index: reason for _, part in parts for index, reason in part.items()}
    if on_error == "raise" and reasons:
        raise VideoError(reasons[min(reasons)])
    if not scores:
        first = f", the first: {reasons[0]}" if reasons else ""
        raise ValueError(f"none of the {len(samples)} test videos is readable{first}")
    kept = sorted(scores)
    return Evaluation(
        model.classes or [str(number) for number in range(len(scores[kept[0]]))],
        [samples[index] for index in kept],
        np.stack([scores[index] for index in kept]),
        [(str(samples[index].path), reasons[index]) for index in sorted(reasons)],
        multi_label,
    )


@torch.inference_mode()
def view_logits(model: VideoModel, views: Tensor, clip: Clip | None = None, *, at_once: int | None = None) -> Tensor:
    """Views uint8 (N,V,T,S,S,3) of N videos, on the model's device → the logits of each (N,V,K), float32.

    Of a model without classifier, pooled features. Views that are normalised already come as floats (N,V,3,T,H,W).
    `at_once` of them go through the model together, which changes nothing but time and memory.
    """
    spec = clip or model.input
    together = at_once or (VIEWS_AT_ONCE_ON_CPU if views.device.type == "cpu" else VIEWS_AT_ONCE)
    parts = views.flatten(0, 1).split(together)
    logits = [model(part if part.is_floating_point() else normalise(part, spec.mean, spec.std)) for part in parts]
    return torch.cat(logits).float().unflatten(0, views.shape[:2])


@torch.inference_mode()
def score_views(
    model: VideoModel,
    views: Tensor,
    clip: Clip | None = None,
    *,
    ensemble: str = "sum",
    at_once: int | None = None,
) -> Tensor:
    """As `view_logits` → the videos' probabilities (N,K): what `fuse` makes of the views, a sum as their mean."""
    scores = fuse(view_logits(model, views, clip, at_once=at_once), model.activation, ensemble)
    return scores / views.shape[1] if ensemble == "sum" else scores


def write_predictions(path: Path, evaluation: Evaluation) -> None:
    """predictions.csv: path, label(s), predicted, score, then the probability of every class, whole or not at all.

    `predicted` is the class with the highest score.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = evaluation.classes
    writer.writerow([*(MULTI_LABEL_COLUMNS if evaluation.multi_label else COLUMNS), *names])
    for sample, scores in zip(evaluation.samples, evaluation.probabilities.astype(np.float32), strict=True):
        best, digits = int(scores.argmax()), scores.astype(str)  # the shortest digits that read back as the same number
        labels = ";".join(names[label] for label in sample.labels)
        writer.writerow([sample.path, labels, names[best], digits[best], *digits])
    with atomic(path) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))


def read_predictions(path: Path) -> Evaluation:
    """What `write_predictions` wrote; the videos that could not be read are not in it. Raises ValueError."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file)
        names = header[4:]
        multi_label = header[:4] == MULTI_LABEL_COLUMNS
        if not (multi_label or header[:4] == COLUMNS) or not names:
            raise ValueError(f"its columns are {', '.join(header)[:80]}")
        index = {name: number for number, name in enumerate(names)}
        labels = [[index[name] for name in (row[1].split(";") if multi_label else [row[1]])] for row in rows]
        samples = [Sample(Path(row[0]), own[0], more=tuple(own[1:])) for row, own in zip(rows, labels, strict=True)]
        scores = np.array([row[4:] for row in rows], dtype=np.float32).reshape(len(rows), len(names))
    except (KeyError, IndexError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} holds no predictions as `vidstill test` writes them ({type(error).__name__}: {error}): test again"
        ) from None
    return Evaluation(names, samples, scores, multi_label=multi_label)


def ensemble(parts: Sequence[Evaluation], weights: Sequence[float] | None = None) -> Evaluation:
    """Several tests of the same videos as one: the weighted mean of their probabilities.

    The order of the videos may differ. Raises ValueError where videos, labels or classes do.
    """
    weights = list(weights or [1.0] * len(parts))
    if len(weights) != len(parts) or not sum(weights) > 0:
        raise ValueError(f"{len(weights)} weights for {len(parts)} predictions: give one each, of a positive sum")
    first = parts[0]
    place = {sample.path: number for number, sample in enumerate(first.samples)}
    total = np.zeros(first.probabilities.shape)
    for number, (part, weight) in enumerate(zip(parts, weights, strict=True), 1):
        if part.classes != first.classes:
            raise ValueError(f"predictions {number} are of other classes than the first: only the same can be averaged")
        labels, others = ({s.path: s.labels for s in each.samples} for each in (first, part))
        if labels != others or part.multi_label != first.multi_label:
            raise ValueError(
                f"predictions {number} are of other videos or labels than the first: test on the same list"
            )
        total[[place[sample.path] for sample in part.samples]] += weight * part.probabilities
    return dataclasses.replace(first, probabilities=(total / sum(weights)).astype(np.float32), unreadable=[])


@contextlib.contextmanager
def _evaluating(model: VideoModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _batches(loader: DataLoader[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ValueError(
            "a loader process was killed, most often for lack of memory: take fewer loader processes (train.workers), "
            f"videos per step (test.batch) or views ({' '.join(str(error).split())[:120]})"
        ) from error
