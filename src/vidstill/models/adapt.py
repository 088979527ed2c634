"""Weights of other networks made a model's own, and the report of what went where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Report:
    """What a file gave to a model, key by key."""

    source: str
    loaded: list[str] = field(default_factory=list)  # copied as they are
    resized: dict[str, str] = field(default_factory=dict)  # key → what was done to it
    kept: dict[str, str] = field(default_factory=dict)  # the model's own values stay → why
    ignored: dict[str, str] = field(default_factory=dict)  # of the file, not in the model → why
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        counts = (f"{len(getattr(self, what))} {what}" for what in ("loaded", "resized", "kept", "ignored"))
        return f"{self.source}: {', '.join(counts)}"

    def __str__(self) -> str:
        lines = [self.summary, *self.notes]
        for what in ("resized", "kept", "ignored"):
            lines += [f"{what} {key}: {why}" for key, why in getattr(self, what).items()]
        return "\n  ".join(lines)


def inflate(images: Mapping[str, Tensor], own: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
    """Weights of a network for images in the shapes of the same network for videos, `own`.

    (C',C,H,W) becomes (C',C,T,H,W): repeated along time and divided by T, so that a still video gives what the image
    gave. Weights of any other shape stay the model's, and `report` says so.
    """
    state: dict[str, Tensor] = {}
    for key, value in images.items():
        target = own.get(key, value)
        if value.ndim == 4 and target.ndim == 5 and value.shape == target.shape[:2] + target.shape[3:]:
            steps = target.shape[2]
            value = value.unsqueeze(2).expand(target.shape) / steps
            report.resized[key] = f"repeated over {steps} time steps, divided by {steps}"
        if value.shape == target.shape:
            state[key] = value
        else:
            report.kept[key] = f"the file's is {shape_of(value)}"
    return state


def shape_of(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"
