"""Plain training: cross-entropy of the logits against labels or targets."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from vidstill.models.registry import VideoModel
from vidstill.objectives.objective import Objective


class Recognise(Objective):
    """`model` learns to name the class, or with `multi_label` each class by itself: binary cross-entropy, its mean over
    clips and classes.

    A batch holds `clips` (B,C,T,H,W) and `targets`, (B,) or (B,K); with `multi_label` (B,K).
    """

    def __init__(self, model: VideoModel, multi_label: bool = False) -> None:
        super().__init__()
        self.model = model
        self.loss = F.binary_cross_entropy_with_logits if multi_label else F.cross_entropy

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": self.loss(self.model(batch["clips"]), batch["targets"])}
