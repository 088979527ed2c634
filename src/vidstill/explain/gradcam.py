"""Grad-CAM: where in a clip the evidence for a class is, for every registered model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidstill.evaluation.engine import VIEWS_AT_ONCE_ON_CPU, fuse
from vidstill.explain.look import look_at
from vidstill.explain.pictures import Colours, Scale, blend, colour, write_pictures
from vidstill.inference.overlay import clock, draw
from vidstill.models.layers import is_packed
from vidstill.models.registry import VideoModel


@dataclass(frozen=True)
class GradCam:
    """Evidence for class `target` in the views of one video, whose fused probabilities are `scores` (K,).

    Of each pathway `activations` (V,C,d,h,w), their `weights` (V,C,d) and `frames`, the frames of the clip it sees.
    """

    target: int
    scores: Tensor
    activations: list[Tensor]
    weights: list[Tensor]
    frames: list[list[int]]

    def maps(self, pathway: int = 0) -> Tensor:
        """(V,d,h,w) at the layer's resolution: ReLU of the weighted sum of its channels."""
        return torch.einsum("vcd,vcdhw->vdhw", self.weights[pathway], self.activations[pathway]).relu()

    def heat(self, height: int, width: int, pathway: int = 0) -> Tensor:
        """(V,T,H,W) between 0 and 1, one map for each of `frames`: trilinear, and least to greatest of each view."""
        size = (len(self.frames[pathway]), height, width)
        drawn = F.interpolate(self.maps(pathway).unsqueeze(1), size, mode="trilinear").squeeze(1)
        drawn = drawn - drawn.amin((1, 2, 3), keepdim=True)
        return drawn / (drawn.amax((1, 2, 3), keepdim=True) + 1e-20)


def grad_cam(
    model: VideoModel, clips: Tensor, layer: str | None = None, target: int | None = None, *, at_once: int | None = None
) -> GradCam:
    """Grad-CAM of normalised clips (V,3,T,H,W), all views of one video (Selvaraju et al., ICCV 2017).

    The score is the probability of class `target`, by default the likeliest, as a test fuses it over the views; a
    channel's weight at a time step is the mean over the grid of the score's gradient. `layer` is a module's path with
    slashes, e.g. "backbone/blocks/3/1", by default `model.cam_layer`; it gives one (V,C,d,h,w), or one per pathway.
    `at_once` views go through the model together. Raises ValueError for a layer that is not there, with those that
    are, or that gives something else, and for a class that is not there.
    """
    if is_packed(model):
        model = copy.deepcopy(model)
    name = layer or model.cam_layer
    module = find_layer(model, name)
    taken: list[list[Tensor]] = []

    def take(module: nn.Module, inputs: object, output: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        tensors = [output] if isinstance(output, Tensor) else list(output)
        if any(tensor.ndim != 5 for tensor in tensors):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise ValueError(f"layer {name} gives {shapes}, not (B,C,T,H,W): take another, e.g. {model.cam_layer}")
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        taken.append(leaves)
        copies = [leaf.clone() for leaf in leaves]  # the next layer may work in place
        return copies[0] if isinstance(output, Tensor) else type(output)(copies)

    hook = module.register_forward_hook(take)
    try:
        with _still(model), torch.enable_grad():
            parts = clips.split(at_once or VIEWS_AT_ONCE_ON_CPU)
            scores = fuse(torch.cat([model(part) for part in parts]).float(), model.activation) / len(clips)
            if target is not None and not 0 <= target < len(scores):
                raise ValueError(f"no class {target}: the model has {len(scores)}, counted from 0")
            chosen = int(scores.argmax()) if target is None else target
            leaves = [leaf for part in taken for leaf in part]
            found = torch.autograd.grad(scores[chosen], leaves, allow_unused=True)
    finally:
        hook.remove()
    gradients = dict(zip(map(id, leaves), found, strict=True))
    pathways = [
        [(leaf, gradients[id(leaf)]) for leaf in pathway]
        for pathway in zip(*taken, strict=True)
        if gradients[id(pathway[0])] is not None
    ]
    if not pathways:
        raise ValueError(f"the class scores do not depend on layer {name}: take another, e.g. {model.cam_layer}")
    activations = [_channels_first(model, [leaf for leaf, _ in pathway]) for pathway in pathways]
    weights = [_channels_first(model, [slope for _, slope in pathway]).mean((3, 4)) for pathway in pathways]
    frames = model.seen_frames(clips.shape[2])
    if len(frames) != len(pathways):
        frames = [list(range(clips.shape[2]))] * len(pathways)
    return GradCam(chosen, scores.detach(), activations, weights, frames)


def find_layer(model: nn.Module, path: str) -> nn.Module:
    """The module at `path`, parts separated by slashes or dots. Raises ValueError that lists what there is."""
    module, walked = model, ""
    for part in path.replace(".", "/").split("/"):
        children = dict(module.named_children())
        if part not in children:
            where = f"{walked} has" if walked else "the model has"
            raise ValueError(f"no layer {path!r}: {where} {', '.join(children) or 'no layers inside'}")
        module, walked = children[part], f"{walked}/{part}".lstrip("/")
    return module


def cam_pictures(
    cam: GradCam,
    views: np.ndarray,
    layout: Literal["over", "beside"] = "over",
    colours: Colours = "viridis",
    alpha: float = 0.5,
) -> list[list[np.ndarray]]:
    """The heat over each frame of `views` uint8 (V,T,S,S,3), with a share of `alpha`, or beside it: uint8 pictures, a
    row for every view of every pathway, each with the frames that the pathway sees."""
    rows = []
    for pathway, seen in enumerate(cam.frames):
        heat = cam.heat(views.shape[2], views.shape[3], pathway).cpu().numpy()
        for view, warmth in zip(views[:, seen], heat, strict=True):
            shown = colour(warmth, colours) if layout == "beside" else blend(view / 255, warmth, colours, alpha)
            pictures = (shown * 255).clip(0, 255).astype(np.uint8)
            rows.append(list(np.concatenate([view, pictures], 2) if layout == "beside" else pictures))
    return rows


def write_grad_cam(
    model: VideoModel,
    source: str | Path,
    path: str | Path,
    *,
    layer: str | None = None,
    target: int | None = None,
    clips: int | None = None,
    crops: Literal[1, 3] = 1,
    layout: Literal["over", "beside"] = "over",
    colours: Colours = "viridis",
    alpha: float = 0.5,
    fps: float = 5.0,
) -> GradCam:
    """Grad-CAM of the file `source` in what `predict` labels, of a long one the window in which the class scores
    highest, or in as many `clips` as a test would see (see `look_at`): an .mp4, a .gif or a sheet of frames (.png).

    All views follow each other, `fps` frames per second, each a row of the sheet, and every pathway with the frames
    that it sees; see `cam_pictures`. The sheet says what is explained and where it comes from, frames of a film what
    the model says and their times. Errors are those of `grad_cam` and `look_at`, and VideoError where a file cannot be
    written.
    """
    look = look_at(model, source, target=target, clips=clips, crops=crops)
    cam = grad_cam(model, look.clips, layer, look.target)
    rows = cam_pictures(cam, look.pictures, layout, colours, alpha)
    times = [view[seen] for seen in cam.frames for view in look.seconds]
    pathways = [f"{name} pathway: " for name in ("slow", "fast")] if len(cam.frames) > 1 else [""]
    captions = [
        f"{pathways[pathway]}{len(seen)} of {look.seconds.shape[1]} frames, view {number} of {len(look.seconds)}"
        for pathway, seen in enumerate(cam.frames)
        for number in range(1, len(look.seconds) + 1)
    ]
    if Path(path).suffix.lower() != ".png":
        rows = [
            [draw(picture, look.ranked, second) for picture, second in zip(row, seconds, strict=True)]
            for row, seconds in zip(rows, times, strict=True)
        ]
    scale = Scale("no evidence", "most of its view", colours)
    write_pictures(
        path, rows, fps, captions, title=look.title("Grad-CAM"), scale=scale,
        labels=[[clock(second) for second in row] for row in times],
    )  # fmt: skip
    return cam


def _channels_first(model: VideoModel, parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).detach().movedim(model.channel_axis, 1)


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Eval mode, and parameters without gradients, so that nothing before the chosen layer is remembered."""
    training, learning = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        model.train(training)
