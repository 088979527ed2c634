"""Training samples in the formats of several teachers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vidstill.config import Augment, Clip
from vidstill.data.annotations import Sample
from vidstill.data.dataset import TrainClips, sample_seed
from vidstill.data.transforms import train_clip

FULL = Clip(frames=8, size=48, interval=1)
PLAIN = Augment(jitter=0, grey=0, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0)


@pytest.fixture(scope="module")
def samples(embedded: Path) -> list[Sample]:
    return [Sample(path, 0) for path in sorted((embedded / "train").rglob("*.mp4"))[:3]]


def test_a_teacher_of_the_same_format_takes_the_clips_themselves(samples: list[Sample]) -> None:
    other = FULL.model_copy(update={"std": (1, 1, 1)})  # normalised in another way: the same pixels
    batch = TrainClips(samples, FULL, PLAIN, 0, formats=[FULL, other]).__getitems__([(0, 0), (0, 1)])
    assert batch["clips"].shape == (2, 8, 48, 48, 3) and batch["formats"] == {FULL: None, other: None}


@pytest.mark.parametrize(
    "update", [{"frames": 4}, {"size": 32}, {"interval": 2}, {"sampling": "dense"}, {"mean": (0, 0, 0)}]
)
def test_a_teacher_of_another_format_gets_its_own(samples: list[Sample], update: dict[str, object]) -> None:
    other = FULL.model_copy(update=update)
    clips = TrainClips(samples, FULL, PLAIN, 7, formats=[FULL, other])
    batch = clips.__getitems__([(3, 2)])
    same, own = batch["formats"][FULL], batch["formats"][other]
    rng = np.random.RandomState(sample_seed(7, 3, 2))
    expected = train_clip(samples[2].path, FULL, PLAIN, rng, [other])
    assert same is None
    assert torch.equal(batch["clips"][0], torch.from_numpy(expected[0]))
    assert torch.equal(own[0], torch.from_numpy(expected[1]))


@pytest.mark.parametrize("keys", [[(0, 0), (0, 1)], [(0, 0, 24), (0, 1, 24)]])
def test_multigrid_leaves_the_clips_of_the_teacher_whole(samples: list[Sample], keys: list[tuple[int, ...]]) -> None:
    """A long cycle shortens the clips of a phase, a short one shrinks those of a step; the teacher knows of neither."""
    shrunk = FULL if len(keys[0]) == 3 else FULL.model_copy(update={"frames": 4, "size": 32})
    clips = TrainClips(samples, shrunk, PLAIN, 0, formats=[FULL], full_size=FULL.size)
    batch = clips.__getitems__(keys)
    assert batch["clips"].shape[2] == (24 if len(keys[0]) == 3 else 32)
    assert batch["formats"][FULL].shape == (2, 8, 48, 48, 3)
