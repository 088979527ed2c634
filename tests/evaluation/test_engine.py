"""Engines: one score of many views, a few views at a time, whatever computes them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidstill.config import Clip
from vidstill.data.sampling import Timing
from vidstill.data.transforms import normalise
from vidstill.data.views import Views, kept, views_of
from vidstill.evaluation.engine import TorchEngine, fuse, score_views, video_logits, video_scores, view_logits
from vidstill.models.registry import VideoModel, create_model

CLIP = Clip(frames=4, size=32, interval=2)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    torch.manual_seed(0)
    network = create_model("vfl_net", num_classes=3, width=8, init_std=0.3).eval()
    network.classes, network.input = ["a", "b", "c"], CLIP
    return network


def videos(clip: Clip, crops: int, count: int = 3) -> list[Views]:
    rng = np.random.RandomState(0)
    made = []
    for height, width in ((40, 60), (90, 70), (200, 300))[:count]:
        frames = [rng.randint(0, 256, (height, width, 3)).astype(np.uint8) for _ in range(9)]
        small = [kept(frame, clip, 36 if crops == 1 and clip.views == "opencv" else 32) for frame in frames]
        made.append(views_of(small, (height, width), clip, Timing(25), crops))
    return made


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 12), st.integers(2, 9))
def test_fusion_sums_the_probabilities_of_views(seed: int, videos: int, count: int, classes: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, (videos, count, classes))
    expected = [sum(np.exp(view) / np.exp(view).sum() for view in video) for video in logits]
    np.testing.assert_allclose(fuse(torch.from_numpy(logits)).numpy(), expected, rtol=1e-12)
    geometric = np.exp(logits.mean(1)) / np.exp(logits.mean(1)).sum(-1, keepdims=True)
    np.testing.assert_allclose(fuse(torch.from_numpy(logits), ensemble="score").numpy(), geometric, rtol=1e-12)


@pytest.mark.parametrize("resizing", ["opencv", "torch", "pillow"])
@pytest.mark.parametrize("crops", [1, 3])
def test_logits_of_videos_are_those_of_their_views(model: VideoModel, resizing: Any, crops: int) -> None:
    """Of videos of different sizes, some views of one and some of the next together."""
    clip = CLIP.model_copy(update={"views": resizing})
    batch = videos(clip, crops)
    found = video_logits(TorchEngine(model, clip, at_once=2), batch)
    with torch.no_grad():
        expected = [model(normalise(video.pixels(), clip.mean, clip.std)) for video in batch]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    scores = video_scores(TorchEngine(model, clip), batch)
    torch.testing.assert_close(scores, found.softmax(-1).mean(1), rtol=1e-4, atol=1e-6)


def test_views_as_an_array_score_the_same(model: VideoModel) -> None:
    (video,) = videos(CLIP, 3, 1)
    arrays = video.pixels().unsqueeze(0)
    for found in (
        view_logits(model, arrays),
        view_logits(model, arrays, at_once=2),
        view_logits(model, normalise(arrays.flatten(0, 1), CLIP.mean, CLIP.std).unsqueeze(0)),
    ):
        torch.testing.assert_close(found, video_logits(TorchEngine(model), [video]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(score_views(model, arrays), video_scores(TorchEngine(model), [video]))


@dataclasses.dataclass
class Counting:
    """An engine without torch modules."""

    input: Clip = CLIP
    classes: Any = None
    activation: str = "sigmoid"
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    at_once: int = 4
    seen: list[tuple[tuple[int, ...], torch.dtype]] = dataclasses.field(default_factory=list)

    def logits(self, views: Tensor) -> Tensor:
        self.seen.append((tuple(views.shape), views.dtype))
        return views.float().mean((2, 3, 4)) / 255


def test_no_more_views_are_cut_than_go_through_together() -> None:
    """What is in memory of 9 views of three videos: 4 at a time, in grey levels."""
    engine = Counting()
    scores = video_scores(engine, videos(CLIP, 3))
    assert engine.seen == [((count, 1, 4, 32, 32, 3), torch.uint8) for count in (4, 4, 1)]
    assert scores.shape == (3, 3) and (scores > 0.5).all()
    engine = Counting(CLIP.model_copy(update={"views": "torch"}))
    video_logits(engine, videos(engine.input, 1))
    assert engine.seen == [((3, 1, 4, 32, 32, 3), torch.float32)]


def test_the_mode_of_a_model_is_its_own(model: VideoModel) -> None:
    model.train()
    TorchEngine(model)
    assert model.training
    model.eval()
