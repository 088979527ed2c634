"""What an annotation model says about every token: a numbered grid beside each frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from vidstill.explain.look import look_at
from vidstill.explain.pictures import GAP, LABEL, colour, grid, write_png
from vidstill.inference.overlay import INK, clock, font, write_text
from vidstill.models.registry import VideoModel


def token_label_grid(model: VideoModel, clips: torch.Tensor) -> torch.Tensor:
    """Normalised clips (B,3,T,H,W) → the likeliest class of every token, (B,D,h,w). Raises ValueError for a model
    that does not label tokens."""
    annotate: Any = getattr(model, "annotate", None)
    if annotate is None:
        raise ValueError(f"{model.name or 'this model'} does not label tokens: take a DualFormer")
    with torch.inference_mode():
        labels: torch.Tensor = annotate(clips).argmax(-1)
    return labels


def write_token_labels(model: VideoModel, source: str | Path, path: str | Path, *, frames: int = 5) -> np.ndarray:
    """A .png of `frames` frames spread over one clip of the file `source`, the first that `predict` looks at (of a long
    file see `look_at`), each above its grid of class numbers, and the names of the most frequent classes. Returns the
    labels (D,h,w) of the whole clip. Errors are those of `token_label_grid` and `look_at`."""
    look = look_at(model, source)
    labels = token_label_grid(model.eval(), look.clips[:1])[0].cpu().numpy()
    pictures, seconds = look.pictures[0], look.seconds[0]
    chosen = np.linspace(0, len(pictures) - 1, frames).round().astype(int)
    steps = chosen * len(labels) // len(pictures)
    cells = [draw_labels(labels[step], pictures.shape[1], model.num_classes) for step in steps]
    often = [int(label) for label in np.argsort(-np.bincount(labels.reshape(-1)), kind="stable")[:frames]]
    names = ", ".join(f"{label} {look.names[label]}" for label in often if label in labels)
    sheet = grid(
        [list(pictures[chosen]), cells], ["frames", f"likeliest class of each token: {names}"],
        title=look.title("Token labels"), labels=[[clock(seconds[number]) for number in chosen], ()],
    )  # fmt: skip
    write_png(Path(path), sheet)
    return labels


def draw_labels(labels: np.ndarray, side: int, classes: int) -> np.ndarray:
    """Class numbers (h,w) as coloured, numbered cells, uint8 (side,side,3)."""
    h, w = labels.shape
    shades = (colour((labels * 0.618034) % 1 if classes > 1 else labels * 0.0) * 200).astype(np.uint8)
    sheet = Image.fromarray(shades).resize((side, side), Image.Resampling.NEAREST)
    pen: Any = ImageDraw.Draw(sheet)
    size = max(6, min(LABEL, side // max(h, w) // 2))
    for row in range(h):
        for column in range(w):
            text = str(labels[row, column])
            left = (column + 0.5) * side / w - font(size).getlength(text) / 2
            write_text(pen, (left, (row + 0.5) * side / h - size / 2 - GAP / 2), text, size, INK)
    return np.asarray(sheet)
