"""Views take no more memory than is promised, and unrounded ones are PyTorch's own resizing, whatever is kept."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from vidstill.config import Clip
from vidstill.data.sampling import Timing
from vidstill.data.views import Views, frame_side, kept, read_views, resized_size, views_of
from vidstill.video.encode import write_video

CLIP = Clip(frames=8, size=32, interval=2, sampling="dense")


@given(st.integers(20, 150), st.integers(20, 150), st.integers(8, 60), st.sampled_from([1, 3]), st.integers(0, 99))
def test_unrounded_views_are_those_of_whole_frames(height: int, width: int, size: int, crops: int, seed: int) -> None:
    """Reduced, enlarged, upright or not: of the pixels that are kept the same is made as of all."""
    clip = CLIP.model_copy(update={"size": size, "frames": 2, "views": "torch"})
    frames = np.random.RandomState(seed).randint(0, 256, (3, height, width, 3)).astype(np.uint8)
    views = views_of([kept(frame, clip, size) for frame in frames], (height, width), clip, Timing(25), crops)
    h, w = resized_size(height, width, clip, size)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    resized = F.interpolate(pictures, (h, w), mode="bilinear").permute(0, 2, 3, 1)
    y, x = -(-(h - size) // 2), -(-(w - size) // 2)
    middle = resized[[0, 2], y : y + size, x : x + size]
    torch.testing.assert_close(views.view(1 if crops == 3 else 0), middle, rtol=0, atol=1e-3)
    assert len(views) == crops and views.pixels().shape == (crops, 2, size, size, 3)


@pytest.mark.parametrize("resizing", ["opencv", "torch", "pillow"])
@pytest.mark.parametrize(("height", "width"), [(30, 44), (130, 210), (400, 560)])
def test_frames_are_kept_once_and_no_larger_than_resizing_needs(
    resizing: str, height: int, width: int, tmp_path: Path
) -> None:
    """Ten clips that overlap, three crops: 240 pictures of 32 x 32 would be 2.9 MB as float32."""
    path = tmp_path / "v.mp4"
    write_video(path, (np.full((height, width, 3), shade, np.uint8) for shade in range(0, 200, 5)), 25)
    clip = CLIP.model_copy(update={"views": resizing})
    read_views(path, clip, 1, 3)  # from here on, what the file holds is known
    tracemalloc.start()
    views = read_views(path, clip, 10, 3)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    h, w = resized_size(height, width, clip, frame_side(clip, 3))
    each = 3 * h * w if resizing != "torch" else 3 * min(height, 2 * h) * min(width, 2 * w)
    assert views.frames.dtype == torch.uint8 and views.frames.nbytes == len(views.numbers) * each
    assert len(views.numbers) == len(set(views.shown().reshape(-1).tolist())) <= 40
    assert views.shown().shape == (30, 8)
    frame = 3 * height * width
    assert most <= views.frames.nbytes + 12 * frame + 200_000, "a few source frames at a time, never all of them"


def test_moving_views_moves_their_frames_alone() -> None:
    clip = CLIP.model_copy(update={"frames": 2})
    frames = [np.full((36, 48, 3), shade, np.uint8) for shade in range(9)]
    views = views_of(frames, (36, 48), clip, Timing(25))
    moved = views.to(torch.device("meta"))
    assert isinstance(moved, Views) and moved.view(0).device.type == "meta" and moved.view(0).shape == (2, 32, 32, 3)
    assert views.frames.device.type == "cpu"
    assert views.shown().tolist() == [[1, 3], [3, 5], [5, 7]]
