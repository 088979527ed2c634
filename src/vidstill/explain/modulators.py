"""What a Video-FocalNet looks at: the strength of its modulators, its gates and its kernels, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidstill.explain.look import Look, look_at
from vidstill.explain.pictures import Scale, blend, colour, grid, write_pictures, write_png
from vidstill.inference.overlay import clock
from vidstill.models.focal import Modulators, capture_modulators, modulator_map
from vidstill.models.registry import VideoModel

Kind = Literal["spatial", "temporal", "both"]

ALPHA = 0.7  # share of a map over its frame, as published
FPS = 5.0  # 200 ms a frame, as published
SCALE = Scale("weakest", "strongest of its picture")


def modulators_of(model: VideoModel, clips: Tensor) -> list[Modulators]:
    """What the last block of each stage computes for one normalised clip (1,3,T,H,W). Raises ValueError for a model
    without focal modulation."""
    with torch.inference_mode(), capture_modulators(model) as captured:
        model.eval()(clips)
    return list({name.split(".")[1]: block for name, block in captured.items()}.values())


def heat(modulators: Modulators, kind: Kind, size: Sequence[int]) -> np.ndarray:
    """(T,H,W) between 0 and 1: the modulator's L2 norm over channels, drawn up, least to greatest of each frame."""
    chosen = modulators.spatial * modulators.temporal if kind == "both" else getattr(modulators, kind)
    height, width = size
    return _stretched(modulator_map(chosen, (height, width)))[:, 0].cpu().numpy()


def gate_maps(modulators: Modulators, size: Sequence[int]) -> np.ndarray:
    """(L+1,T,H,W) between 0 and 1: the gate of each focal level and of the mean, drawn up, stretched in each frame."""
    height, width = size
    drawn = F.interpolate(modulators.gates.float(), (height, width), mode="bilinear", align_corners=False)
    return _stretched(drawn).transpose(0, 1).cpu().numpy()


def kernel_maps(model: VideoModel, side: int = 96) -> list[list[np.ndarray]]:
    """The depth-wise kernels of each stage's last block, level by level, their mean over channels: (side,side) between
    0 and 1. Raises ValueError for a model without focal levels."""
    blocks = {name.split(".")[1]: module for name, module in model.named_modules() if hasattr(module, "focal_layers")}
    if not blocks:
        raise ValueError(f"{model.name or type(model).__name__} has no focal levels: give a Video-FocalNet or VFL-Net")
    maps = []
    for block in blocks.values():
        levels: Any = block.focal_layers
        kernels = [layer[0].weight.detach().mean(0, keepdim=True) for layer in levels]
        maps.append([_stretched(F.interpolate(k.float(), (side, side)))[0, 0].cpu().numpy() for k in kernels])
    return maps


def write_modulators(
    model: VideoModel,
    source: str | Path,
    path: str | Path,
    *,
    kind: Kind = "both",
    alpha: float = ALPHA,
    fps: float = FPS,
) -> Path:
    """Modulators of a Video-FocalNet for one clip of the file `source`, the first that `predict` looks at (of a long
    file see `look_at`).

    A .png has a column per frame and the rows of the published figure: frames, then spatial and temporal modulators of
    the first and of the last stage. A .gif or .mp4 shows each frame, `fps` per second, with the map of every stage over
    it; `kind` is the modulator, or the product of both. Errors are those of `modulators_of` and `look_at`, and
    VideoError.
    """
    look, stages = _look(model, source)
    frames, size = look.pictures[0], look.pictures.shape[2:4]
    every = max(1, len(frames) // len(stages[0].spatial))
    if Path(path).suffix.lower() == ".png":
        rows, captions = [list(frames[::every])], ["frames"]
        for number, stage in {1: stages[0], len(stages): stages[-1]}.items():
            for each in ("spatial", "temporal"):
                rows.append(_bytes(colour(heat(stage, each, size))))
                captions.append(f"{each} modulator, stage {number}")
        return _write_sheet(path, look, "Modulators", rows, captions, every)
    maps = [heat(stage, kind, size) for stage in stages]
    pictures = []
    for number, frame in enumerate(frames[::every]):
        shown = [_bytes(blend(frame / 255, each[number], alpha=alpha)) for each in maps]
        label = clock(look.seconds[0, number * every])
        captions = [f"{label}, then the {kind} modulators of stages 1 to {len(maps)}"]
        pictures.append(grid([[frame, *shown]], captions))
    return write_pictures(path, [pictures], fps)


def write_gates(model: VideoModel, source: str | Path, path: str | Path) -> Path:
    """Gates of the last block for one clip, a .png with a row per focal level and the mean, a column per frame."""
    look, stages = _look(model, source)
    maps = gate_maps(stages[-1], look.pictures.shape[2:4])
    every = max(1, len(look.pictures[0]) // maps.shape[1])
    rows = [list(look.pictures[0][::every]), *(_bytes(colour(level)) for level in maps)]
    levels = [f"gate of level {number}" for number in range(1, len(maps))]
    return _write_sheet(path, look, "Gates of the last block", rows, ["frames", *levels, "gate of the mean"], every)


def write_kernels(model: VideoModel, path: str | Path, side: int = 96) -> Path:
    """`kernel_maps` as a .png with a row per stage."""
    rows = [[_bytes(colour(kernel)) for kernel in stage] for stage in kernel_maps(model, side)]
    captions = [f"stage {number}" for number in range(1, len(rows) + 1)]
    title = [f"Depth-wise kernels of {model.name or type(model).__name__}", "mean over channels, a column per level"]
    return write_png(Path(path), grid(rows, captions, title=title, scale=SCALE))


def _look(model: VideoModel, source: str | Path) -> tuple[Look, list[Modulators]]:
    look = look_at(model, source)
    return look, modulators_of(model, look.clips[:1])


def _write_sheet(path: str | Path, look: Look, what: str, rows: list[Any], captions: Sequence[str], every: int) -> Path:
    labels = [[clock(second) for second in look.seconds[0, ::every]], *[()] * (len(rows) - 1)]
    return write_png(Path(path), grid(rows, captions, title=look.title(what), labels=labels, scale=SCALE))


def _stretched(maps: Tensor) -> Tensor:
    """(…,H,W) from the least 0 to the greatest 1; a constant map is 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-20)


def _bytes(pictures: np.ndarray) -> Any:
    """(…,H,W,3) between 0 and 1 → uint8."""
    return (pictures * 255).clip(0, 255).astype(np.uint8)
