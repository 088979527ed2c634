"""Testing: every view of a video from one decoding pass, fused into one score."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidstill.config import Clip
from vidstill.data.annotations import Sample
from vidstill.data.dataset import sample_seed
from vidstill.data.loader import start_worker
from vidstill.data.transforms import normalise, test_clips
from vidstill.evaluation.metrics import Metrics, measure
from vidstill.files import atomic
from vidstill.models.registry import VideoModel
from vidstill.video.decode import VideoError

Views = tuple[int, np.ndarray | None, str]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A test: `probabilities` (N,K) of the readable videos `samples`, and the others as (path, reason)."""

    classes: list[str]
    samples: list[Sample]
    probabilities: np.ndarray
    unreadable: list[tuple[str, str]]

    @property
    def labels(self) -> np.ndarray:
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @property
    def metrics(self) -> Metrics:
        return measure(self.probabilities, self.labels, self.classes)


def fuse(logits: Tensor) -> Tensor:
    """Logits of views (…,V,K) → sum over the views of their probabilities (…,K) (Video-FocalNet test rule)."""
    return logits.softmax(-1).sum(-2)


@dataclasses.dataclass
class TestViews(Dataset[Views]):
    """Videos as their views, uint8 (crops·clips,T,S,S,3); a video that does not decode as its reason."""

    samples: Sequence[Sample]
    clip: Clip
    clips: int
    crops: int
    seed: int | None  # of random clips; None: evenly spread
    __test__ = False  # the name is not a test's

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Views:
        rng = None if self.seed is None else np.random.RandomState(sample_seed(self.seed, index))
        try:
            return index, test_clips(self.samples[index].path, self.clip, self.clips, self.crops, rng), ""
        except VideoError as error:
            return index, None, str(error)


def evaluate(
    model: VideoModel,
    samples: Sequence[Sample],
    *,
    clips: int = 4,
    crops: int = 3,
    seed: int | None = None,
    batch: int = 4,
    workers: int = 0,
    fabric: Fabric | None = None,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Evaluation:
    """Score `samples` with `clips` x `crops` views each, `batch` videos at a time, every video exactly once.

    Under `fabric` the ranks share the videos and all get the whole result. With `seed` the clips are random, as in the
    released Video-FocalNet test. Unreadable videos are left out of the figures and named. Raises ValueError where none
    is readable.
    """
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    views = TestViews(samples, model.input, clips, crops, seed)
    mine = range(fabric.global_rank, len(samples), fabric.world_size)
    loader = DataLoader(
        views, batch_size=batch, sampler=list(mine), num_workers=workers, collate_fn=list, worker_init_fn=start_worker
    )
    training = model.training
    model.eval()
    scored: dict[int, np.ndarray | str] = {}
    for items in loader:
        scored.update({index: reason for index, pixels, reason in items if pixels is None})
        readable = [(index, pixels) for index, pixels, _ in items if pixels is not None]
        if readable:
            stacked = torch.from_numpy(np.stack([pixels for _, pixels in readable])).to(fabric.device, non_blocking=True)
            scored.update(zip([index for index, _ in readable], score_views(model, stacked, fabric), strict=True))
        report({"what": "testing", "done": min(len(scored) * fabric.world_size, len(samples)), "total": len(samples)})
    model.train(training)
    if fabric.world_size > 1:
        parts: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(parts, scored)
        scored = {index: result for part in parts for index, result in part.items()}
    kept = [index for index in range(len(samples)) if not isinstance(scored[index], str)]
    unreadable = [(str(samples[i].path), str(scored[i])) for i in range(len(samples)) if isinstance(scored[i], str)]
    if not kept:
        raise ValueError(f"none of the {len(samples)} test videos is readable, the first: {unreadable[0][1]}")
    return Evaluation(
        list(model.classes or []), [samples[index] for index in kept], np.stack([scored[i] for i in kept]), unreadable
    )


@torch.inference_mode()
def score_views(model: VideoModel, views: Tensor, fabric: Fabric) -> np.ndarray:
    """Views uint8 (N,V,T,S,S,3) of N videos on the model's device → their probabilities (N,K)."""
    count = views.shape[1]
    with fabric.autocast():
        logits = model(normalise(views.flatten(0, 1), model.input.mean, model.input.std))
    return (fuse(logits.float().unflatten(0, (-1, count))) / count).cpu().numpy()


def write_predictions(path: Path, evaluation: Evaluation) -> None:
    """predictions.csv: path, label, predicted, score, then the probability of every class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = evaluation.classes
    writer.writerow(["path", "label", "predicted", "score", *names])
    for sample, scores in zip(evaluation.samples, evaluation.probabilities, strict=True):
        best = int(scores.argmax())
        writer.writerow(
            [sample.path, names[sample.label], names[best], f"{scores[best]:.6f}", *(f"{score:.6f}" for score in scores)]
        )
    with atomic(path) as file:
        file.write(text.getvalue().encode())


def read_predictions(path: Path) -> Evaluation:
    """What `write_predictions` wrote; the videos that could not be read are not in it."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    names = header[4:]
    samples = [Sample(Path(row[0]), names.index(row[1])) for row in rows]
    return Evaluation(names, samples, np.array([row[4:] for row in rows], dtype=np.float64).reshape(-1, len(names)), [])
