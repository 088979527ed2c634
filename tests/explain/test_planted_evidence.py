"""Does Grad-CAM find what moves? On the embedded data the place of the moving shape is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import vidstill
from vidstill.data.sampling import test_indices as frames_of
from vidstill.data.synthetic import box_mask, make_synthetic, read_boxes
from vidstill.data.transforms import normalise
from vidstill.data.views import margin_size
from vidstill.data.views import test_clips as views_of
from vidstill.explain.gradcam import grad_cam

SIZE, FRAMES = 64, 24


@pytest.mark.slow
def test_the_strongest_evidence_lies_on_the_moving_shape(tmp_path: Path) -> None:
    """Pointing game on the first stage's 10 x 10 grid, whose cells still know where they are: how often the hottest
    pixel of a frame lies in the shape's box, against the share of the frame that the box covers (0.72 to 0.45 for the
    model of `vidstill demo`)."""
    data = make_synthetic(tmp_path / "data", seed=0)
    run = vidstill.resolve("demo", ["--data.root", str(data), "--out", str(tmp_path), "--train.epochs", "12"])
    model = vidstill.load(vidstill.train(run))
    hits, chance = [], []
    for name, boxes in read_boxes(data).items():
        split, label, _ = name.split("/")
        if split != "test":
            continue
        views = views_of(data / name, model.input, 1, 1)
        clips = normalise(torch.from_numpy(views), model.input.mean, model.input.std)
        heat = grad_cam(model, clips, "layers/0", model.classes.index(label)).heat(*views.shape[2:4])[0].numpy()
        masks = box_mask(boxes[frames_of(FRAMES, model.input, 1)[0]], SIZE)
        for mask, warm in zip(masks, heat, strict=True):
            inside = as_cropped(mask, model.input.size)
            hits.append(inside.reshape(-1)[warm.argmax()])
            chance.append(inside.mean())
    assert np.mean(hits) > np.mean(chance) + 0.1


def as_cropped(mask: np.ndarray, size: int) -> np.ndarray:
    """What the centre crop of a test shows of it."""
    full = margin_size(size)
    scaled = cv2.resize(mask.astype(np.uint8), (full, full), interpolation=cv2.INTER_NEAREST)
    start = (full - size) // 2
    return scaled[start : start + size, start : start + size].astype(bool)
