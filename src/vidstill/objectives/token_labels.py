"""Token labelling: every token of a clip learns what a frozen annotation model sees at its place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vidstill.config import TokenLabels as Settings
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import describes_itself, fetch, load, load_weights
from vidstill.objectives.objective import Objective

log = logging.getLogger(__name__)


def token_targets(logits: Tensor, top: int = 5, topk_only: bool = False) -> Tensor:
    """Annotation logits (…,K) → probabilities (…,K) that keep the `top` largest; equals of the last are kept too.

    The others' logits become 0, as released, so that they share what e⁰ gives them; with `topk_only` they get nothing.
    """
    least = logits.topk(min(top, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf if topk_only else 0.0).softmax(-1)


def fewer_steps(labels: Tensor, steps: int, alignment: Literal["neighbours", "released"] = "neighbours") -> Tensor:
    """Annotation (B,D,…) → (B,steps,…), the mean of neighbouring time steps.

    `released` takes the mean of steps that lie D/steps apart, a slip of the published code. Raises ValueError where
    `steps` does not divide D.
    """
    if labels.shape[1] % steps:
        raise ValueError(
            f"the annotation model sees {labels.shape[1]} time steps, the student {steps}: take models where the first "
            "is a multiple of the second"
        )
    if alignment == "released":
        return labels.unflatten(1, (-1, steps)).mean(1)
    return labels.unflatten(1, (steps, -1)).mean(2)


def token_label_loss(
    logits: Tensor, tokens: Tensor, labels: Tensor, targets: Tensor, *, gamma: float, top: int = 5,
    topk_only: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    """γ · cross-entropy of the logits (B,K) + (1 − γ) · that of the tokens (…,K) against `token_targets(labels)`.

    `targets` are labels (B,) or probabilities (B,K); `labels` the annotation model's logits (…,K).
    """
    clip = F.cross_entropy(logits, targets)
    classes = tokens.shape[-1]
    dense = F.cross_entropy(tokens.reshape(-1, classes), token_targets(labels, top, topk_only).reshape(-1, classes))
    return {"loss": gamma * clip + (1 - gamma) * dense, "clip": clip, "tokens": dense}


class TokenLabels(Objective):
    """`model`, with a token head, learns from labels and from `annotator`, which sees the same clips.

    A batch holds `clips` (B,C,T,H,W) and `targets`, (B,) or (B,K). Raises ValueError for models that do not fit each
    other.
    """

    def __init__(self, model: VideoModel, annotator: VideoModel, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        if not getattr(model, "token_head", False):
            raise ValueError("objective token_labels needs a DualFormer with --model.options '{token_head: true}'")
        if not hasattr(annotator, "annotate"):
            raise ValueError(f"{annotator.name or 'this model'} does not label tokens: take a DualFormer as annotator")
        if model.num_classes != annotator.num_classes:
            raise ValueError(
                f"the annotation model knows {annotator.num_classes} classes, the student {model.num_classes}: train "
                "on the data set that the annotation model was trained on"
            )
        self.annotators = (annotator.eval().requires_grad_(False),)  # a tuple registers nothing

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        logits, tokens = self.model.forward_tokens(batch["clips"])  # type: ignore[operator]
        s = self.settings
        labels = self.annotate(batch["clips"], tokens.shape[1:-1])
        return token_label_loss(
            logits, tokens, labels, batch["targets"], gamma=s.gamma, top=s.top, topk_only=s.topk_only
        )

    @torch.no_grad()
    def annotate(self, clips: Tensor, grid: Sequence[int]) -> Tensor:
        """The annotation model's logits (B,D,h,w,K) on the student's grid (D,h,w)."""
        labels: Tensor = self.annotators[0].annotate(clips)  # type: ignore[operator]
        if labels.shape[2:4] != torch.Size(grid[1:]):
            raise ValueError(
                f"the annotation model's grid is {'×'.join(map(str, labels.shape[2:4]))}, the student's "
                f"{'×'.join(map(str, grid[1:]))}: take models of equal stride"
            )
        return fewer_steps(labels, grid[0], self.settings.alignment)


def load_annotator(settings: Settings, classes: Sequence[str], device: torch.device) -> VideoModel:
    """The annotation model with its weights, all of which must fit; a model of ours names itself and its classes."""
    about = settings.annotator
    if about.weights is None:
        raise ValueError("objective token_labels needs a trained annotation model: --token_labels.annotator.weights")
    if describes_itself(fetch(about.weights)):
        annotator = load(about.weights)
        if annotator.classes != list(classes):
            raise ValueError(f"{about.weights} knows other classes than the data, or in another order")
    else:
        annotator = create_model(about.name, len(classes), **about.options)
        log.info("annotation model %s", load_weights(annotator, about.weights, head="error"))
    return annotator.to(device).optimise_for_inference()
