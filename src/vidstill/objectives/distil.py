"""Distillation: what a teacher's logits teach a student."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F


def kl_on_logits(
    student: Tensor, teacher: Tensor, temperature: float, form: Literal["forward", "released"] = "forward"
) -> Tensor:
    """τ²/B · Σ q (log q − log p) with q, p the tempered softmax of teacher and student logits (B,K).

    `released` is what the DVFL-Net code computed, τ²/B · Σ q (log q − p): unbounded below and with next to no
    gradient; it exists to reproduce that code's numbers. Source: DVFL-Net (arXiv 2507.12426), loss figure and code.
    """
    log_q = F.log_softmax(teacher / temperature, dim=-1)
    log_p = F.log_softmax(student / temperature, dim=-1)
    entered = log_p if form == "forward" else log_p.exp()
    return temperature**2 / len(student) * (log_q.exp() * (log_q - entered)).sum()


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    temperature: float,
    form: Literal["forward", "released"] = "forward",
) -> dict[str, Tensor]:
    """α · KL + (1 − α) · cross-entropy, with its terms. `targets` are labels (B,) or probabilities (B,K)."""
    kd = kl_on_logits(student, teacher, temperature, form)
    ce = F.cross_entropy(student, targets)
    return {"loss": alpha * kd + (1 - alpha) * ce, "kd": kd, "ce": ce}
