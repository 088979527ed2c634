"""Plain training: cross-entropy of the logits against labels or soft targets."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class Recognise(nn.Module):
    """`model` learns to name the class. A batch holds `clips` (B,3,T,H,W) and `targets`, (B,) or (B,K)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(self.model(batch["clips"]), batch["targets"])}
