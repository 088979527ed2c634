"""Runners of the SlowFast goldens about frames, crops, fused views and Grad-CAM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from fill import clip as fill_clip
from focal_data import write_lossless
from PIL import Image
from reading import number
from slowfast_model import build_from_overrides, filled
from torch import Tensor

from vidstill.config import Clip, Optim
from vidstill.data.sampling import (
    Timing,
    looped_indices,
    spread,
    test_indices,
    window_indices,
    window_length,
    window_room,
)
from vidstill.data.transforms import normalise
from vidstill.data.views import test_clips, view_boxes
from vidstill.evaluation.engine import fuse
from vidstill.evaluation.metrics import mean_average_precision, topk_accuracy
from vidstill.explain.gradcam import grad_cam
from vidstill.models.pathways import slow_frames
from vidstill.models.slowfast import kinetics_clip
from vidstill.training.schedules import exact_rate
from vidstill.video.pixels import short_side_size

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def window(row: Golden) -> tuple[Clip, Timing]:
    values = {"frames": row["NUM_FRAMES"], "interval": row["SAMPLING_RATE"], "fps": row["TARGET_FPS"]}
    ticks = row["pts_per_frame"] if row.get("duration_known", True) else 0
    return Clip(sampling="timed_window", **values), Timing(row["fps"], ticks)


TABLES = (
    "get_start_end_idx",
    "temporal_sampling",
    "pack_pathway",
    "test_views",
    "train_views",
    "uniform_crop",
    "demo_buffer",
)


def run_sampling(golden: Golden, arrays: Arrays) -> None:
    tables = {name for name, rows in golden.items() if isinstance(rows, list)}
    assert tables and tables <= {*TABLES}, tables
    golden = {**dict.fromkeys(TABLES, ()), **golden}
    for row in golden["get_start_end_idx"]:
        clip = Clip(sampling="timed_window", frames=1, interval=1, fps=1)
        timing = Timing(row["clip_size"])  # a clip of one frame at 1 Hz is that many frames long
        start = window_room(row["video_size"], clip, timing) * row["clip_idx"] / row["num_clips"]
        assert [start, start + window_length(clip, timing) - 1] == pytest.approx(row["start_end"], rel=1e-12)
    for row in golden["temporal_sampling"]:
        assert spread(row["start"], row["end"], row["num_samples"], row["num_frames"]).tolist() == row["indices"]
    for row in golden["pack_pathway"]:
        assert list(slow_frames(row["T"], row["ALPHA"])) == row["slow_indices"]
    for row in golden["test_views"]:
        clip, timing = window(row)
        ours = test_indices(row["video_frames"], clip, row["NUM_ENSEMBLE_VIEWS"], timing=timing)
        assert ours[row["clip_idx"]].tolist() == row["source_frame_indices"], row
    for row in golden["train_views"]:
        clip, timing = window(row)
        start = row["u"] * window_room(row["video_frames"], clip, timing)
        assert window_indices(row["video_frames"], clip, start, timing).tolist() == row["source_frame_indices"], row
    for row in golden["uniform_crop"]:
        height, width = short_side_size(row["H"], row["W"], row["size"], down=True)
        assert [height, width] == row["resized"]
        x1, y1, x2, y2 = view_boxes(height, width, row["size"], 3, "up")[row["spatial_idx"]]
        assert ([y1, x1], [y2 - y1, x2 - x1]) == (row["offset_yx"], row["crop"])
        if row["spatial_idx"] == 1:
            assert view_boxes(height, width, row["size"], 1, "up") == [(x1, y1, x2, y2)]
    for row in golden["demo_buffer"]:
        clip = Clip(sampling="timed_window", frames=row["NUM_FRAMES"], interval=row["SAMPLING_RATE"])
        assert window_length(clip, None) == row["buffer"]
        fast = test_indices(row["buffer"], clip, 1)[0]
        slow = fast[list(slow_frames(row["NUM_FRAMES"], row["ALPHA"]))]
        assert (fast.tolist(), slow.tolist()) == (row["fast"], row["slow"])
        assert len(fast) + row["NUM_FRAMES"] // row["ALPHA"] == row["fps_numerator"]


def run_testview(golden: Golden, arrays: Arrays) -> None:
    cases = {name: case for name, case in golden.items() if isinstance(case, dict)}
    assert cases
    for name, case in cases.items():
        shape = (case["T"], case["H"], case["W"], 3)
        frames = np.random.RandomState(case["seed"]).randint(0, 256, shape).astype(np.uint8)
        clip = kinetics_clip(case["T"], 1, case["size"]).model_copy(update={"fps": None})
        views = torch.from_numpy(views_of(frames, clip, 3))
        fast = normalise(views, clip.mean, clip.std)[case["spatial_idx"]]
        slow = fast[:, list(slow_frames(case["T"], case["ALPHA"]))]
        for speed, ours in (("slow", slow), ("fast", fast)):
            assert list(ours.shape) == case[f"{speed}_shape"]
            np.testing.assert_allclose(ours, arrays[f"{name}_{speed}"], rtol=0, atol=golden["tolerance"])


def views_of(frames: np.ndarray, clip: Clip, crops: int) -> np.ndarray:
    """Through a lossless file, as a test reads them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mov"
        write_lossless(path, frames)
        return test_clips(path, clip, 1, crops)


def run_e3d_pipeline(golden: Golden, arrays: Arrays) -> None:
    for row in golden["temporal"]:
        clip = Clip(frames=row["size"], interval=row["downsample"], sampling="dense_looped")
        centre, begin = test_indices(row["n_frames"], clip, 1)[0], looped_indices(row["n_frames"], clip, 0)
        assert (centre + 1).tolist() == row["center_indices_1based"]
        assert (begin + 1).tolist() == row["begin_indices_1based"]
    case = golden["spatial"]
    frame = np.random.RandomState(case["seed"]).randint(0, 256, (1, case["H"], case["W"], 3)).astype(np.uint8)
    assert case.get("norm_value", 1) == 1
    clip = Clip(frames=1, size=case["size"], sampling="dense_looped", views="pillow")
    (view,) = normalise(torch.from_numpy(views_of(frame, clip, 1)), case["mean"], case["std"])
    np.testing.assert_allclose(view[:, 0], arrays["spatial"], rtol=0, atol=case["tolerance"])

    rates = golden["lr"]
    falls = [step - 1 for step in rates["lr_steps"]]  # its epochs are counted from 1
    factors = [0.1**n for n in range(len(falls) + 1)]
    optim = Optim(lr=rates["learning_rate"], schedule="steps", milestones=[0, *falls], factors=factors)
    first, last = map(int, rates["epochs"].split(".."))
    ours = [exact_rate(optim, last, epoch - 1) for epoch in range(first, last + 1)]
    assert ours == pytest.approx(rates["lr"], rel=1e-9)


def run_meter(golden: Golden, arrays: Arrays) -> None:
    cases = {name: case for name, case in golden.items() if isinstance(case, dict)}
    assert cases
    for name, case in cases.items():
        videos, views, classes = case["num_videos"], case["num_clips"], case["classes"]
        rng = np.random.RandomState(case["seed"])
        scores = rng.random_sample((videos * views, classes)).astype(np.float32)
        scores /= scores.sum(1, keepdims=True)
        labels = rng.random_sample((videos, classes)) < 0.4 if case["multi_label"] else rng.randint(0, classes, videos)
        by_video = torch.from_numpy(scores).unflatten(0, (videos, views))
        activation = "sigmoid" if case["multi_label"] else "softmax"
        logits = by_video.logit() if case["multi_label"] else by_video.log()
        fused = fuse(logits, activation, case["ensemble"]).numpy()
        np.testing.assert_allclose(fused, arrays[f"{name}_video_preds"], rtol=1e-5, atol=1e-6)
        stats = case["stats"]
        assert stats["split"] == "test_final"
        if case["multi_label"]:
            assert mean_average_precision(fused, labels) == pytest.approx(stats["map"], abs=1e-5)
        else:
            shares = {name: int(name[3:-4]) for name in stats if name.startswith("top")}
            assert shares
            for name, k in shares.items():
                assert f"{100 * topk_accuracy(fused, labels, k):.2f}" == stats[name]


def run_gradcam(golden: Golden, arrays: Arrays) -> None:
    cases = {name: case for name, case in golden.items() if isinstance(case, dict) and "yaml" in case}
    assert cases
    for name, case in cases.items():
        model = build_from_overrides(case["yaml"], case["overrides"])
        shapes = {key: list(value.shape) for key, value in model.state_dict().items() if value.is_floating_point()}
        model.load_state_dict(filled(shapes), strict=False)
        x = torch.from_numpy(fill_clip(case["seed"], tuple(case["shape"])))
        cam = grad_cam(model, x, case["target_layer"], case["target_class"])
        assert cam.scores[cam.target].item() == pytest.approx(case["class_score"], abs=1e-5)
        frames = case["shape"][2]
        seen = {"slow": list(slow_frames(frames, model.alpha)) if model.alpha else list(range(frames))}
        seen |= {"fast": list(range(frames))} if model.alpha else {}
        assert cam.frames == [*seen.values()] and list(cam.maps().shape[2:]) == case["map_hw"]
        atol = {kind: number(about) for kind, about in golden["tolerance"].items()}
        for pathway, speed in enumerate(seen):
            assert len(seen[speed]) == case[f"{speed}_frames"]
            mean = cam.activations[pathway].mean(2)  # the release averages over time, and adds 1
            released = (1 + torch.einsum("vct,vchw->vthw", cam.weights[pathway], mean)).relu()[0]
            ours = {
                "standard_relu": cam.maps(pathway)[0],
                "released_pre_norm": released,
                "released_final": stretched(released, *case["shape"][-2:]),
            }
            for kind, maps in ours.items():
                expected = arrays[f"{name}/{kind}_{speed}"]
                relative = kind == "standard_relu"
                room = atol[kind] * expected.max() + 1e-9 if relative else atol[kind] + 1e-7
                if kind == "released_final":
                    expected = np.nan_to_num(expected)  # a constant map, which the release divides by 0
                np.testing.assert_allclose(maps, expected, rtol=0, atol=room, err_msg=f"{name} {kind} {speed}")


def stretched(maps: Tensor, height: int, width: int) -> np.ndarray:
    """(T,h,w) → (T,H,W) as released: 256 grey levels from the least to the largest of each step, drawn up by Lanczos'
    filter; 0 where a step is constant."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    levels = ((maps - low) / (high - low) * 255).nan_to_num(0).to(torch.uint8).numpy()
    lanczos = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(step).resize((width, height), lanczos)) for step in levels]) / 255


RUNNERS = {
    ("slowfast", "sampling"): run_sampling,
    ("slowfast", "testview"): run_testview,
    ("slowfast", "e3d_pipeline"): run_e3d_pipeline,
    ("slowfast", "meter"): run_meter,
    ("slowfast", "gradcam"): run_gradcam,
}
