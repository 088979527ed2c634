"""What training sees: a batch of its clips, cropped, coloured and blended as the loop has them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from vidstill.config import Run
from vidstill.data.annotations import Annotations, class_text, read_annotations
from vidstill.data.blending import blend
from vidstill.data.dataset import TrainClips, sample_seed
from vidstill.data.loader import EpochBatches
from vidstill.data.transforms import normalise
from vidstill.explain.pictures import grid, write_png
from vidstill.video.encode import write_video

ROWS, COLUMNS = 8, 8  # clips and frames of a sheet
LEAST, MOST = 96, 160  # pixels of a picture's side: smaller clips are enlarged, larger ones reduced
RATE = 8  # frames per second of the moving sheet, whatever the clips' own

log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """A batch as the network gets it, in grey levels: uint8 (B,T,S,S,3), with a caption for each clip."""

    clips: np.ndarray
    captions: list[str]


def browse(
    run: Run, out: Path, *, rows: int = ROWS, report: Callable[[dict[str, Any]], None] = lambda event: None
) -> list[Path]:
    """Write a sheet of training clips (.png), a row for each of the first `rows` of the first batch, with up to
    `COLUMNS` of its frames, and beside it (.gif) the same clips moving, with all of their frames.

    `report` hears of {"what", "done", "total"}. Raises ValueError for data that cannot be read, another suffix than
    .png, or a set without training videos.
    """
    if out.suffix.lower() != ".png":
        raise ValueError(f"{out}: the sheet is written as .png, and a .gif beside it: give a name that ends in .png")
    if rows < 1:
        raise ValueError(f"rows {rows}: give 1 or more")
    report({"what": "reading clips", "done": 0, "total": 1})
    (clips, captions), count = first_batch(run, rows)
    report({"what": "reading clips", "done": 1, "total": 1})
    title = [f"What training sees: {run.name}", *_about(run, len(clips), count)]
    shown = np.unique(np.linspace(0, clips.shape[1] - 1, min(clips.shape[1], COLUMNS)).round().astype(int))
    pictures = [[_sized(frame) for frame in clip[shown]] for clip in clips]
    write_png(out, grid(pictures, captions, title=title))
    moving = out.with_suffix(".gif")
    columns = math.ceil(math.sqrt(len(clips)))
    labels = _in_rows([caption.partition(" – ")[0] for caption in captions], columns)
    frames = (
        grid(_in_rows([_sized(clip[number]) for clip in clips], columns), labels=labels)
        for number in range(clips.shape[1])
    )
    write_video(moving, frames, RATE)
    return [out, moving]


def first_batch(run: Run, rows: int | None = None) -> tuple[Seen, int]:
    """The first `rows` clips (None: all) of the first batch of a training on one process, or of the first process of
    several, and how many clips that batch has.

    It is that of the loop: the same order, frames, boxes, colours and blending for the same `run.seed`.
    """
    annotations = read_annotations(run.data, run.seed)
    if not (samples := annotations.splits.get("train")):
        raise ValueError(f"{run.data.root}: no training videos among {', '.join(annotations.splits) or 'nothing'}")
    classes = len(annotations.classes)
    reader = TrainClips(
        samples, run.clip, run.augment, run.seed, run.data.on_error, classes=classes if run.data.multi_label else 0
    )
    batches = EpochBatches(len(samples), run.train.batch, run.seed, 0, run.train.devices * run.train.nodes)
    keys = next(iter(batches))
    blended = bool(run.augment.mixup or run.augment.cutmix)
    batch = reader.__getitems__(keys if blended else keys[:rows])  # partners are anywhere in the batch
    for _, reason in batch["unreadable"]:  # which names the file
        log.warning("%s (data.on_error: %s)", reason, run.data.on_error)
    clip = run.clip
    rng = np.random.RandomState(sample_seed(run.seed, 1, 0, 0))  # as `Objective.prepare` draws for the first step
    clips, targets = blend(
        normalise(batch["clips"], clip.mean, clip.std), batch["labels"], classes, run.augment, rng,
        (clip.size, clip.size),
    )  # fmt: skip
    levels = clips.permute(0, 2, 3, 4, 1) * torch.tensor(clip.std) + torch.tensor(clip.mean)
    pixels = levels.round().clamp(0, 255).to(torch.uint8).numpy()
    captions = _captions(run, annotations, batch["index"].tolist(), targets.numpy())
    return Seen(pixels[:rows], captions[:rows]), len(keys)


def _captions(run: Run, annotations: Annotations, indices: Sequence[int], targets: np.ndarray) -> list[str]:
    """The classes of each clip, with their shares where clips are blended, and its file."""
    samples = annotations.splits["train"]
    floor = run.augment.smoothing / max(1, len(annotations.classes)) + 1e-3
    captions = []
    for index, target in zip(indices, targets, strict=True):
        named = class_text(annotations, samples[index])
        if run.augment.mixup or run.augment.cutmix:
            order = [k for k in np.argsort(-target, kind="stable") if target[k] > floor]
            shares = [(annotations.classes[k], target[k]) for k in order]
            named = " + ".join(f"{name} {share:.2f}" for name, share in shares[:4])
        captions.append(f"{named} – {samples[index].path.name}")
    return captions


def _about(run: Run, shown: int, count: int) -> list[str]:
    """What was done to the clips, in two lines."""
    clip, augment = run.clip, run.augment
    crops = {
        "resized": f"a share of {augment.scale[0]:g} to {augment.scale[1]:g} of the frame",
        "scaled": f"a window where the short side is {augment.scales[0]} to {augment.scales[1]}",
        "multiscale": "a square of 1 to 0.5 times the short side",
    }
    jitter = f"jitter {augment.jitter:g}" + (" in every frame anew" if augment.jitter_per_frame else "")
    done = [f"crop: {crops[augment.crop]}", f"flip {augment.flip:g}", jitter, f"grey {augment.grey:g}"]
    done += [f"RandAugment {augment.randaugment}"] if augment.randaugment else []
    done += [f"erasing {augment.erase:g}"] if augment.erase else []
    kinds = [name for name, alpha in (("mixup", augment.mixup), ("CutMix", augment.cutmix)) if alpha]
    done.append(f"blended by {' or '.join(kinds)}" if kinds else "not blended")
    done += [f"labels smoothed by {augment.smoothing:g}"] if augment.smoothing else []
    lines = [
        f"{shown} of the {count} clips of the first batch; {clip.frames} frames of {clip.size}², {clip.sampling}"
        + ("" if clip.spans else f", interval {clip.interval}"),
        ", ".join(done),
    ]
    if run.multigrid.long or run.multigrid.short:
        lines.append("whole clips; multigrid training also has smaller ones")
    return lines


def _sized(frame: np.ndarray) -> np.ndarray:
    side = frame.shape[0]
    if side > MOST:
        return cv2.resize(frame, (MOST, MOST), interpolation=cv2.INTER_AREA)
    if (times := -(-LEAST // side)) > 1:  # each pixel as a square, as the network has no more
        return cv2.resize(frame, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)
    return frame


def _in_rows(items: Sequence[Any], columns: int) -> list[list[Any]]:
    return [list(items[first : first + columns]) for first in range(0, len(items), columns)]
