"""Testing: every view of a video from one decoding pass, fused into one score."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vidstill.config import Clip, OnError
from vidstill.data.annotations import Sample
from vidstill.data.dataset import sample_seed
from vidstill.data.loader import start_worker
from vidstill.data.views import Views, read_views
from vidstill.evaluation.engine import Engine, TorchEngine, video_scores
from vidstill.evaluation.predictions import Evaluation
from vidstill.models.registry import VideoModel
from vidstill.video.decode import VideoError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
        """{"index": of the readable ones, "views": their `Views`, "unreadable": [(index, reason)]}"""
        read: dict[int, Views] = {}
        unreadable: list[tuple[int, str]] = []
        for index in indices:
            rng = None if self.seed is None else np.random.RandomState(sample_seed(self.seed, index))
            try:
                read[index] = read_views(self.samples[index].video, self.clip, self.clips, self.crops, rng, self.side)
            except VideoError as error:
                unreadable.append((index, str(error)))
        return {"index": list(read), "views": list(read.values()), "unreadable": unreadable}


def evaluate(
    model: VideoModel | Engine,
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
    """Score `samples` with `clips` x `crops` views each, every video exactly once.

    `batch` videos at most are read at a time, fewer where their views fill the device as they are; see `Views` for the
    memory that each takes. `clip` is what the views are, by default the model's input; `side` is the short side that
    crops are taken from, `ensemble` fuses the views (see `fuse`). With `seed` the clips are random, as in the released
    Video-FocalNet test. `workers` processes, started by `start` (fork, spawn), read the videos. Unreadable ones are
    never replaced: they are left out of the figures and named, or with `on_error="raise"` the first stops the test.
    `multi_label`: a video may have several classes, and mAP is measured. Under `fabric` the ranks share the videos and
    all get the whole result. `report` hears of {"what", "done", "total"}.

    Raises ValueError where no video is readable or a loader process is killed, VideoError with `on_error="raise"`.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    engine = TorchEngine(model, clip) if isinstance(model, VideoModel) else model
    spec = clip or engine.input
    mine = range(rank, len(samples), world)
    batch = min(batch, -(-engine.at_once // (clips * crops)))
    loader = DataLoader(
        TestViews(samples, spec, clips, crops, seed, side),
        batch_size=None,
        sampler=[list(mine[i : i + batch]) for i in range(0, len(mine), batch)],
        num_workers=workers,
        multiprocessing_context=start if workers else None,
        worker_init_fn=start_worker,
        pin_memory=engine.device.type == "cuda",
    )
    scores: dict[int, np.ndarray] = {}
    reasons: dict[int, str] = {}
    with _evaluating(model), fabric.autocast() if fabric else contextlib.nullcontext():
        for videos in _batches(loader):
            reasons.update(videos["unreadable"])
            if on_error == "raise" and reasons:
                break  # raised below by all ranks, which would wait for this one
            if videos["index"]:
                fused = video_scores(engine, videos["views"], ensemble).cpu().numpy()
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
        engine.classes or [str(number) for number in range(len(scores[kept[0]]))],
        [samples[index] for index in kept],
        np.stack([scores[index] for index in kept]),
        [(str(samples[index].video), reasons[index]) for index in sorted(reasons)],
        multi_label,
    )


@contextlib.contextmanager
def _evaluating(model: VideoModel | Engine) -> Iterator[None]:
    if not isinstance(model, VideoModel):
        yield
        return
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
