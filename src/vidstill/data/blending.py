"""Mixup and CutMix of a batch, and the soft targets that go with them. Runs where the clips are."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from torch import Tensor

from vidstill.config import Augment

Box = tuple[int, int, int, int]


def blend(
    clips: Tensor,
    labels: Tensor,
    classes: int,
    augment: Augment,
    rng: np.random.RandomState,
    frame: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Clips (B,3,T,H,W) and labels, (B,) or multi-hot (B,K), as a blended batch: clips, soft targets (B,K) float32.

    One λ and one permutation serve the whole batch, and it is always blended: by CutMix with probability
    `augment.switch`, else by mixup; where one alpha is 0 by the other; where both are 0 only the labels are smoothed.
    A pure function of the batch and the state of `rng`. The same clips in another size are blended in the same places
    by the same state and the `frame` (H,W) of the first.
    """
    targets = smooth(labels, augment.smoothing) if labels.ndim == 2 else one_hot(labels, classes, augment.smoothing)
    if not (augment.mixup or augment.cutmix):
        return clips, targets
    with_cutmix = rng.random_sample() < augment.switch if augment.mixup and augment.cutmix else augment.cutmix > 0
    alpha = augment.cutmix if with_cutmix else augment.mixup
    lam = float(rng.beta(alpha, alpha))
    perm = torch.from_numpy(rng.permutation(len(clips))).to(clips.device, non_blocking=True)
    if not with_cutmix:
        return mixup(clips, targets, lam, perm)
    height, width = frame or clips.shape[-2:]
    x, y = rng.randint(width), rng.randint(height)
    box = rescale(cutmix_box(height, width, lam, x, y), height, width, *clips.shape[-2:])
    return cutmix(clips, targets, box, perm)


def one_hot(labels: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Targets (B,K): 1 - s + s/K at the label, s/K elsewhere."""
    targets = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + smoothing / classes)


def smooth(targets: Tensor, smoothing: float) -> Tensor:
    """Multi-hot targets (B,K): 1 - s + s/K at each label, s/K elsewhere, as with one label."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def mixup(clips: Tensor, targets: Tensor, lam: float, perm: Tensor) -> tuple[Tensor, Tensor]:
    """λ of each clip and target plus 1 - λ of its partner `perm`."""
    return _mix(clips, perm, lam), _mix(targets, perm, lam)


def cutmix(clips: Tensor, targets: Tensor, box: Box, perm: Tensor) -> tuple[Tensor, Tensor]:
    """Pastes `box` of all frames from each clip's partner `perm`; targets weigh by the area that is left."""
    x1, y1, x2, y2 = box
    pasted = clips.clone()
    pasted[..., y1:y2, x1:x2] = clips[..., y1:y2, x1:x2][perm]
    height, width = clips.shape[-2:]
    return pasted, _mix(targets, perm, 1 - (x2 - x1) * (y2 - y1) / (height * width))


def cutmix_box(height: int, width: int, lam: float, x: int, y: int) -> Box:
    """(x1,y1,x2,y2) around (x,y) of about 1 - λ of the frame, cut off at its edges."""
    half_width, half_height = int(width * sqrt(1 - lam)) // 2, int(height * sqrt(1 - lam)) // 2
    return (
        max(x - half_width, 0),
        max(y - half_height, 0),
        min(x + half_width, width),
        min(y + half_height, height),
    )


def rescale(box: Box, height: int, width: int, new_height: int, new_width: int) -> Box:
    """`box` of a frame (height, width) in whole pixels of the same frame at another size."""
    x_scale, y_scale = new_width / width, new_height / height
    return round(box[0] * x_scale), round(box[1] * y_scale), round(box[2] * x_scale), round(box[3] * y_scale)


def _mix(values: Tensor, perm: Tensor, lam: float) -> Tensor:
    return values.mul(lam).add_(values[perm], alpha=1 - lam)
