"""What a Video-FocalNet looks at: the strength of its modulators, its gates and its kernels, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidstill.data.transforms import normalise, test_clips
from vidstill.explain.pictures import blend, colour, grid, write_pictures, write_png
from vidstill.models.focal import Modulators, capture_modulators, modulator_map
from vidstill.models.registry import VideoModel

Kind = Literal["spatial", "temporal", "both"]

ALPHA = 0.7  # share of a map over its frame, as published
FPS = 5.0  # 200 ms a frame, as published


def write_modulators(
    model: VideoModel, source: str | Path, path: str | Path, *, kind: Kind = "both", alpha: float = ALPHA
) -> Path:
    """Modulators of a Video-FocalNet for one clip of the video `source`, sampled as in a test.

    A .png has a column per frame and the rows of the published figure: frames, then spatial and temporal modulators of
    the first and of the last stage. A .gif or .mp4 shows each frame with the map of every stage over it; `kind` is the
    modulator, or the product of both. Errors are those of `modulator_maps`, and VideoError.
    """
    pixels, captured = _look(model, source)
    stages = {name.split(".")[1]: block for name, block in captured.items()}  # the last block of each
    if Path(path).suffix.lower() == ".png":
        rows, captions = [list(pixels)], ["frames"]
        for stage in (next(iter(stages)), next(reversed(stages))):
            for each in ("spatial", "temporal"):
                rows.append(_bytes(colour(heat(stages[stage], each, pixels.shape[1:3]))))
                captions.append(f"{each}, stage {int(stage) + 1}")
        steps = max(1, len(pixels) // len(rows[1]))
        return write_png(Path(path), grid([rows[0][::steps], *rows[1:]], captions))
    maps = [heat(block, kind, pixels.shape[1:3]) for block in stages.values()]
    frames = pixels[:: max(1, len(pixels) // len(maps[0]))]
    pictures = []
    for number, frame in enumerate(frames):
        shown = [_bytes(blend(frame / 255, each[number], alpha=alpha)) for each in maps]
        pictures.append(grid([[frame, *shown]]))
    return write_pictures(path, [pictures], FPS)


def write_gates(model: VideoModel, source: str | Path, path: str | Path) -> Path:
    """Gates of the last block for one clip, a .png with a row per focal level and the mean, a column per frame."""
    pixels, captured = _look(model, source)
    gates = list(captured.values())[-1].gates  # (T,L+1,h,w)
    size: Any = pixels.shape[1:3]
    drawn = _spread(F.interpolate(gates.float(), size, mode="bilinear", align_corners=False))
    rows = [list(pixels[:: max(1, len(pixels) // len(drawn))])]
    rows += [_bytes(colour(level.cpu().numpy())) for level in drawn.unbind(1)]
    levels = [f"level {number}" for number in range(1, drawn.shape[1])]
    return write_png(Path(path), grid(rows, ["frames", *levels, "mean"]))


def write_kernels(model: VideoModel, path: str | Path, side: int = 96) -> Path:
    """The depth-wise kernels of each stage's last block, their mean over channels: a .png with a row per stage."""
    layers: Any = getattr(model, "layers", None)
    if layers is None:
        raise ValueError(f"{type(model).__name__} has no focal levels: give a Video-FocalNet or VFL-Net")
    rows = []
    for stage in layers:
        kernels = [layer[0].weight.detach().mean(0, keepdim=True) for layer in stage.blocks[-1].modulation.focal_layers]
        drawn = [_spread(F.interpolate(kernel.float(), (side, side))).squeeze() for kernel in kernels]
        rows.append([_bytes(colour(kernel.cpu().numpy()[None]))[0] for kernel in drawn])
    return write_png(Path(path), grid(rows, [f"stage {number}" for number in range(1, len(rows) + 1)]))


def heat(modulators: Modulators, kind: Kind, size: Sequence[int]) -> np.ndarray:
    """(T,H,W) between 0 and 1: the modulator's L2 norm over channels, drawn up, least to greatest of each frame."""
    chosen = modulators.spatial * modulators.temporal if kind == "both" else getattr(modulators, kind)
    height, width = size
    return _spread(modulator_map(chosen, (height, width)))[:, 0].cpu().numpy()


def _look(model: VideoModel, source: str | Path) -> tuple[np.ndarray, dict[str, Modulators]]:
    spec = model.input
    pixels = test_clips(source, spec, clips=1, crops=1)
    clips = normalise(torch.from_numpy(pixels).to(next(model.parameters()).device), spec.mean, spec.std)
    model.eval()
    with torch.inference_mode(), capture_modulators(model) as captured:
        model(clips)
    return pixels[0], captured


def _spread(maps: Tensor) -> Tensor:
    """(…,H,W) from the least 0 to the greatest 1; a constant map is 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-20)


def _bytes(pictures: np.ndarray) -> Any:
    """(…,H,W,3) between 0 and 1 → uint8."""
    return (pictures * 255).clip(0, 255).astype(np.uint8)
