"""Training samples: (epoch, index) → one augmented uint8 clip, a pure function of the seed."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vidstill.config import Augment, Clip, OnError
from vidstill.data.annotations import Sample, multi_hot
from vidstill.data.transforms import jitter_scales, train_clip
from vidstill.video.decode import VideoError

# A set in which so many draws in a row are unreadable is not worth training on.
MAX_REPLACEMENTS = 20


def sample_seed(*parts: int) -> int:
    """A 32-bit seed from integers: close inputs give unrelated streams."""
    return zlib.crc32(np.asarray(parts, dtype=np.int64).tobytes())


@dataclasses.dataclass
class TrainClips(Dataset[Any]):
    """Batches of training clips, asked for as lists of (epoch, index) or (epoch, index, side).

    A video that does not decode is handled by `on_error`: `replace` takes another video drawn with the same seed,
    `skip` leaves it out of its batch (a batch keeps at least one clip), `raise` stops. Each batch names what failed.
    """

    samples: Sequence[Sample]
    clip: Clip
    augment: Augment
    seed: int
    on_error: OnError = "replace"
    formats: Sequence[Clip] = ()  # in which each clip is wanted beside `clip`, by teachers
    longest_interval: int = 0  # of multigrid training: each clip draws its interval up to this one
    full_size: int = 0  # of multigrid training: the side that `augment.scales` are for
    classes: int = 0  # how many, where labels are multi-hot; 0: one label each

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, keys: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """{"clips": uint8 (B,T,S,S,3), "formats": {each of `formats`: the same in it, None where that is what `clips`
        is}, "labels": (B,) or multi-hot (B,K), "index": (B,), "unreadable": [(path, reason)]}"""
        taken: list[tuple[list[np.ndarray], int]] = []
        unreadable: list[tuple[str, str]] = []
        sizes = {side for _, _, *sides in keys for side in sides} or {self.clip.size}
        (size,) = sizes  # a batch is of one size
        clip = self.clip.model_copy(update={"size": size})
        wanted = [each for each in dict.fromkeys(self.formats) if not each.same_frames(clip)]
        for position, (epoch, index, *_) in enumerate(keys):
            needed = self.on_error == "replace" or (position == len(keys) - 1 and not taken)
            drawn, index = self._read(epoch, index, clip, wanted, unreadable, MAX_REPLACEMENTS if needed else 0)
            if drawn:
                taken.append((drawn, index))
        clips, *more = (torch.from_numpy(np.stack(same)) for same in zip(*(drawn for drawn, _ in taken), strict=True))
        labelled = [self.samples[index] for _, index in taken]
        if self.classes:
            labels = torch.from_numpy(multi_hot(labelled, self.classes))
        else:
            labels = torch.tensor([sample.label for sample in labelled])
        return {
            "clips": clips,
            "formats": dict.fromkeys(self.formats) | dict(zip(wanted, more, strict=True)),
            "labels": labels,
            "index": torch.tensor([index for _, index in taken]),
            "unreadable": unreadable,
        }

    def _read(
        self, epoch: int, index: int, clip: Clip, formats: Sequence[Clip], unreadable: list[tuple[str, str]],
        replacements: int,
    ) -> tuple[list[np.ndarray], int]:  # fmt: skip
        rng = np.random.RandomState(sample_seed(self.seed, epoch, index))
        augment = self.augment
        if self.longest_interval > clip.interval:
            clip = clip.model_copy(update={"interval": int(rng.randint(clip.interval, self.longest_interval + 1))})
        if self.full_size and clip.size != self.full_size:
            augment = augment.model_copy(update={"scales": jitter_scales(augment, clip.size, self.full_size)})
        for _ in range(replacements + 1):
            video = self.samples[index].video
            try:
                return train_clip(video, clip, augment, rng, formats), index
            except VideoError as error:
                if self.on_error == "raise":
                    raise
                unreadable.append((str(video), str(error)))
                index = int(rng.randint(len(self.samples)))
        if replacements:
            raise VideoError(
                f"{replacements + 1} videos in a row do not decode, the last: {unreadable[-1][1]}; "
                "run `vidstill check` on this data set"
            )
        return [], index
