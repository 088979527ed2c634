"""What every objective answers, and the batch of labelled clips that most of them learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidstill.config import Clip, Run
from vidstill.data.blending import blend
from vidstill.data.dataset import sample_seed
from vidstill.data.transforms import normalise
from vidstill.models.registry import VideoModel


class Objective(nn.Module):
    """What a pass over the training videos learns: `forward(batch)` gives {"loss": …} with its named terms.

    `model` is the network that learns. What is registered is trained, sharded and kept in checkpoints; frozen networks
    (teachers) are held in a tuple, which registers nothing. An objective is called through DDP, so that all that needs
    gradients happens in `forward`.
    """

    model: VideoModel

    @property
    def formats(self) -> Sequence[Clip]:
        """The formats in which it wants each training clip beside the run's own, one for each teacher."""
        return ()

    @property
    def provenance(self) -> dict[str, Any]:
        """What the saved model should say of how it was trained."""
        return {}

    def batch_number(self, step: int) -> int:
        """Which batch of clips a step takes: its videos, augmentation and blending depend on this number alone.

        Each step has its own, unless batches come again.
        """
        return step

    def prepare(self, batch: dict[str, Any], run: Run, device: torch.device, number: int, rank: int) -> dict[str, Any]:
        """A batch of `TrainClips` on the device: `clips` normalised and blended (B,C,T,H,W), `targets` (B,K),
        `teacher_clips`, the same in each of `formats`, and `number`."""
        labels = batch["labels"].to(device, non_blocking=True)

        def blended(pixels: Tensor, clip: Clip) -> tuple[Tensor, Tensor]:
            clips = normalise(pixels.to(device, non_blocking=True), clip.mean, clip.std)
            rng = np.random.RandomState(sample_seed(run.seed, 1, number, rank))  # the same places in every format
            frame = (run.clip.size, run.clip.size)
            return blend(clips, labels, self.model.num_classes, run.augment, rng, frame)

        clips, targets = blended(batch["clips"], run.clip)
        teacher_clips = []
        for clip in self.formats:
            pixels = batch["formats"][clip]
            alike = pixels is None and (clip.mean, clip.std) == (run.clip.mean, run.clip.std)
            teacher_clips.append(clips if alike else blended(batch["clips"] if pixels is None else pixels, clip)[0])
        return {**batch, "clips": clips, "targets": targets, "labels": labels, "teacher_clips": teacher_clips,
                "number": number}  # fmt: skip
