"""What turns uint8 views into logits, whatever computes them; and views into one score."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vidstill.config import Clip
from vidstill.data.transforms import normalise
from vidstill.data.views import Views
from vidstill.devices import threads
from vidstill.evaluation.cost import threads_of_small
from vidstill.models.registry import VideoModel

# Views that go through the model together, though a batch of videos may have 12 of each: enough to fill a GPU and few
# enough for its memory; on a CPU 4 take 0.8 of the time of 16 and 0.64 of that of 48 (VFL-Net at 112 pixels).
VIEWS_AT_ONCE, VIEWS_AT_ONCE_ON_CPU = 16, 4

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Engine(Protocol):
    """A trained network as tests and predictions see it: views in grey levels go in, logits come out. Normalising is
    its own affair, and so is the library that computes."""

    input: Clip  # what its views are
    classes: list[str] | None
    device: torch.device  # where its views are best cut; the CPU where it does not matter
    at_once: int  # views that it is best given together

    @property
    def activation(self) -> str:
        """What makes scores of the logits: softmax, sigmoid, relu."""
        ...

    def logits(self, views: Tensor) -> Tensor:
        """Views (N,V,T,S,S,3) of N videos, uint8, or float32 where `input.views` is torch → (N,V,K), float32."""
        ...


class TorchEngine:
    """A VideoModel as an engine, in the mode and on the device that it is in, its matrix products in `precision`
    (fp32, bf16, fp16). `clip` is what its views are where it is not what the model says. With `measured` a small
    network gets the number of CPU threads on which its first views went fastest."""

    def __init__(
        self,
        model: VideoModel,
        clip: Clip | None = None,
        *,
        precision: str = "fp32",
        at_once: int | None = None,
        measured: bool = False,
    ) -> None:
        self.model, self.input = model, clip or model.input
        self.classes, self.activation = model.classes, model.activation
        self.device = next(model.parameters()).device
        self.at_once = at_once or (VIEWS_AT_ONCE_ON_CPU if self.device.type == "cpu" else VIEWS_AT_ONCE)
        self.dtype = DTYPES.get(precision)
        self.threads: int | None = None  # PyTorch's number
        self.measured = measured and self.device.type == "cpu"

    def logits(self, views: Tensor) -> Tensor:
        return self.run(views, lambda part: normalise(part, self.input.mean, self.input.std))

    @torch.inference_mode()
    def run(self, views: Tensor, prepare: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits of views (N,V,…), `prepare`d for the model `at_once` at a time."""
        autocast = torch.autocast(self.device.type, self.dtype) if self.dtype else contextlib.nullcontext()
        with autocast, threads(self.threads):
            parts = views.flatten(0, 1).split(self.at_once)
            logits = [self.model(prepare(part.to(self.device, non_blocking=True))) for part in parts]
            if self.measured:
                self.measured, clip = False, prepare(parts[0])
                self.threads = threads_of_small(lambda: self.model(clip))
        return torch.cat(logits).float().unflatten(0, views.shape[:2])


def video_logits(engine: Engine, videos: Sequence[Views]) -> Tensor:
    """The logits (N,V,K) of every view of N videos, each with V: no more than `engine.at_once` are cut and in memory at
    a time."""
    with torch.inference_mode():
        there = [video.to(engine.device) for video in videos]
        numbered = [(video, number) for video in there for number in range(len(video))]
        parts = []
        for first in range(0, len(numbered), engine.at_once):
            together = numbered[first : first + engine.at_once]
            parts.append(engine.logits(torch.stack([video.view(number) for video, number in together]).unsqueeze(1)))
        return torch.cat(parts).squeeze(1).unflatten(0, (len(videos), -1))


def video_scores(engine: Engine, videos: Sequence[Views], ensemble: str = "sum") -> Tensor:
    """As `video_logits` → the videos' probabilities (N,K): what `fuse` makes of the views, a sum as their mean."""
    return fused_scores(video_logits(engine, videos), engine.activation, ensemble)


def view_logits(model: VideoModel, views: Tensor, clip: Clip | None = None, *, at_once: int | None = None) -> Tensor:
    """Views uint8 (N,V,T,S,S,3) of N videos → the logits of each (N,V,K), float32.

    Of a model without classifier, pooled features. Views that are normalised already come as floats (N,V,3,T,H,W).
    `at_once` of them go through the model together, which changes nothing but time and memory.
    """
    engine = TorchEngine(model, clip, at_once=at_once)
    return engine.run(views, lambda part: part) if views.is_floating_point() else engine.logits(views)


def score_views(
    model: VideoModel,
    views: Tensor,
    clip: Clip | None = None,
    *,
    ensemble: str = "sum",
    at_once: int | None = None,
) -> Tensor:
    """As `view_logits` → the videos' probabilities (N,K): what `fuse` makes of the views, a sum as their mean."""
    return fused_scores(view_logits(model, views, clip, at_once=at_once), model.activation, ensemble)


def fused_scores(logits: Tensor, activation: str = "softmax", ensemble: str = "sum") -> Tensor:
    """As `fuse`, a sum as the mean over the views: (…,V,K) → (…,K)."""
    scores = fuse(logits, activation, ensemble)
    return scores / logits.shape[-2] if ensemble == "sum" else scores


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
