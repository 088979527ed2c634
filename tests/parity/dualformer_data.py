"""Goldens of the DualFormer data side, each driven through the function that training or testing uses."""

from __future__ import annotations

import ast
import copy
import json
import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fill import clip as fill_clip
from focal_data import write_lossless

from vidstill import config
from vidstill.config import Clip
from vidstill.data import blending, sampling, transforms
from vidstill.data.loader import share_of_rank
from vidstill.data.views import test_clips, view_boxes
from vidstill.evaluation import metrics
from vidstill.inference import frame_labels
from vidstill.video.decode import read_frames
from vidstill.video.pixels import short_side_size

Golden = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def run_sampling(golden: Golden, arrays: Arrays) -> None:
    for case in golden["cases"]:
        args, n = dict(case["args"]), case["total_frames"]
        test, clips = args.pop("test_mode", False), args.pop("num_clips", 1)
        frames, interval = args.pop("clip_len"), args.pop("frame_interval", 1)
        rng = np.random.RandomState(case["numpy_seed"]) if "numpy_seed" in case else None
        assert test or rng is not None
        indices = sample(case["op"], n, frames, interval, clips, rng, test, args)
        expected = arrays[case["name"]]
        np.testing.assert_array_equal(indices.reshape(-1) + case["start_index"], expected, err_msg=case["name"])


def sample(
    op: str, n: int, frames: int, interval: int, clips: int, rng: Any, test: bool, args: dict[str, Any]
) -> np.ndarray:
    """Through the functions of training and testing where a recipe can say it, else the function behind them."""
    if op == "SampleFrames_v1":  # of later releases, which this family never used: for information
        starts = max(0, n - (frames - 1) * interval - 1)
        first = np.around(np.arange(clips) * starts / (clips - 1)) if clips > 1 else np.array([starts // 2])
        return (first[:, None].astype(int) + np.arange(frames) * interval) % n
    kinds = {
        "SampleFrames": "sample_frames", "DenseSampleFrames": "dense_sample_frames",
        "UniformSampleFrames": "uniform_sample_frames",
    }  # fmt: skip
    uniform = args.pop("frame_uniform", False)
    spec = Clip(frames=frames, interval=interval, sampling="tsm_segments" if uniform else kinds[op])
    if op == "DenseSampleFrames":
        args = {"span": args["sample_range"], "positions": args["num_sample_positions"]}
        if args != {"span": 64, "positions": 10}:
            return sampling.dense_sample_frames(n, frames, interval, clips, None if test else rng, **args)
    elif args:
        renamed = {"twice": args.pop("twice_sample", False), "jitter": args.pop("temporal_jitter", False)}
        beyond = {"loop": "loop", "repeat_last": "hold"}[args.pop("out_of_bound_opt", "loop")]
        assert not args
        return sampling.sample_frames(n, frames, interval, clips, rng, beyond=beyond, **renamed)
    if test:
        return sampling.test_indices(n, spec, clips)
    return sampling.train_indices(n, spec, rng) if clips == 1 else sampling.test_indices(n, spec, clips, rng)


def run_sampler(golden: Golden, arrays: Arrays) -> None:
    for case in golden["cases"]:
        seed, keys = case["seed"] or 0, ("n", "rank", "world", "shuffle", "epoch")
        assert share_of_rank(**{key: case[key] for key in keys}, seed=seed) == case["indices"]


def run_pipeline(golden: Golden, arrays: Arrays) -> None:
    for width, height, side, *expected in golden["short_side_sizes"]["rows"]:
        assert list(short_side_size(height, width, side)) == expected[::-1]
    for case in golden["random_resized_crop"]["boxes_ltrb"]:
        box, _ = draw(*case["img_shape"], {}, case["seed"])
        assert list(box) == case["box"], case
    for case in golden["cases"]:
        views, boxes, flip = run_steps(case)
        np.testing.assert_array_equal(boxes, case["crop_bbox"])
        assert flip == case["flip"] and list(views.shape) == case["output_shape"], case["name"]
        std = torch.tensor(case["normalise"]["std"])[:, None, None, None]
        expected = torch.from_numpy(arrays[case["name"]])
        grey = ((strided(views, case["stored"]) - expected) * std).abs()
        assert grey.max() <= golden["tolerance"]["max_grey_levels"] + 1e-3, case["name"]
        assert grey.mean() <= golden["tolerance"]["mean_abs_grey_levels"], case["name"]
        assert abs(views.double().sum().item() - case["sum"]) <= 0.35 * views.numel() / std.min(), case["name"]


def run_steps(case: Golden) -> tuple[torch.Tensor, Any, bool]:
    """Views (V,3,T,H,W), the crop boxes, and whether they are mirrored."""
    steps = {step["type"]: step for step in case["steps"]}
    case["normalise"] = steps["Normalize"]
    assert case["steps"][0]["type"] == "Resize" and not steps["Normalize"]["to_bgr"]
    side = case["steps"][0]["scale"][1]
    crop = next((steps[name]["crop_size"] for name in ("CenterCrop", "ThreeCrop") if name in steps), None)
    frames = np.random.RandomState(case["frames_seed"]).randint(0, 256, case["frames_shape"]).astype(np.uint8)
    flip = False
    with TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mov"
        write_lossless(path, frames)
        if crop is None:
            height, width = short_side_size(*frames.shape[1:3], side)
            boxes, flip = draw(height, width, steps, case["rng_seed"])
            x1, y1, x2, y2 = boxes
            # Training resizes once; the released two steps are made here from the same box.
            resized = read_frames(path, range(len(frames)), short_side=side)[:, y1:y2, x1:x2]
            last = case["steps"][2]
            assert last["type"] == "Resize" and not last["keep_ratio"]
            pixels = np.stack([cv2.resize(frame, tuple(last["scale"])) for frame in resized])
            views = (pixels[:, :, ::-1] if flip else pixels)[None].copy()
        else:
            crops = 3 if "ThreeCrop" in steps else 1
            every = Clip(frames=case["clip_len"], interval=1, size=crop, sampling="sample_frames")
            views = test_clips(path, every, case["num_clips"], crops, side=side)
            boxes = view_boxes(*short_side_size(*frames.shape[1:3], side), crop, crops)
            boxes = boxes if crops > 1 else boxes[0]
    mean, std = steps["Normalize"]["mean"], steps["Normalize"]["std"]
    return transforms.normalise(torch.from_numpy(views), mean, std), boxes, flip


def draw(height: int, width: int, steps: Golden, seed: int) -> tuple[transforms.Box, bool]:
    """The random crop and mirroring, from the two generators of the release."""
    rng = np.random.RandomState(seed)
    about = steps.get("RandomResizedCrop", {})
    scale, ratio = about.get("area_range", (0.08, 1.0)), about.get("aspect_ratio_range", (3 / 4, 4 / 3))
    box = transforms.random_resized_crop(height, width, tuple(scale), tuple(ratio), rng, random.Random(seed))
    return box, bool("Flip" in steps and rng.random_sample() < steps["Flip"]["flip_ratio"])


def strided(views: torch.Tensor, how: str) -> torch.Tensor:
    """What a golden keeps: "[:, :, :, ::9, ::9]"."""
    steps = [int(part.strip().lstrip(":") or 1) for part in how.strip("[]").split(",")]
    return views[tuple(slice(None, None, step) for step in steps)]


def run_blending(golden: Golden, arrays: Arrays) -> None:
    for case in golden["cases"]:
        clips = torch.from_numpy(fill_clip(case["input_seed"], tuple(case["input_shape"])))
        targets = blending.one_hot(torch.tensor(case["labels"]), case["num_classes"], case["smoothing"])
        if case["op"] == "mixup":
            clips, targets = blending.mixup(clips, targets, case["lam"], torch.tensor(case["perm"]))
        elif case["op"] == "cutmix":
            box = blending.cutmix_box(*case["input_shape"][-2:], case["lam"], *case["centre_x_y"])
            clips, targets = blending.cutmix(clips, targets, box, torch.tensor(case["perm"]))
        atol = golden["tolerance"]["atol"]
        np.testing.assert_allclose(clips, arrays[f"{case['name']}_imgs"], rtol=0, atol=atol)
        np.testing.assert_allclose(targets, arrays[f"{case['name']}_labels"], rtol=0, atol=atol)


def run_metrics(golden: Golden, arrays: Arrays) -> None:
    outputs, atol = golden["outputs"], golden["tolerance"]["atol"]
    scores, labels, several = arrays["scores"], arrays["labels"], arrays["multi_labels"]
    accuracy = {f"top{k}_acc": metrics.topk_accuracy(scores, labels, int(k)) for k in outputs["top_k_accuracy"]}
    mean_class = metrics.mean_class_accuracy(scores, labels, predicted=True)
    for k, share in outputs["top_k_accuracy"].items():
        assert abs(accuracy[f"top{k}_acc"] - share) <= atol
    assert abs(mean_class - outputs["mean_class_accuracy"]) <= atol
    figures = {**accuracy, "mean_class_accuracy": mean_class, "mean_acc": mean_class}
    for name, share in outputs["evaluate"].items():
        assert abs(figures[name] - share) <= atol
    for line in outputs["evaluate_printed"].split("\n"):
        name, tab, share = line.partition("\t")
        assert not tab or f"{figures[name]:.4f}" == share
    counts = metrics.confusion_matrix(scores.argmax(1), labels, scores.shape[1])
    there = outputs["confusion_labels"]
    assert there == np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
    counts = counts[np.ix_(there, there)]
    for name, expected in outputs.items():
        if name == "confusion_matrix":
            np.testing.assert_array_equal(counts, expected)
        elif name.startswith("confusion_matrix_"):
            by: Any = name.removeprefix("confusion_matrix_")
            np.testing.assert_allclose(metrics.normalise_confusion(counts, by), expected, rtol=0, atol=atol)
        elif name.startswith("weighted_"):
            one, other = map(float, name.split("_")[1:])
            both = one * scores + other * arrays["scores2"]
            for figure, share in expected.items():
                ours = (
                    metrics.topk_accuracy(both, labels, int(figure.removeprefix("top")))
                    if figure.startswith("top")
                    else metrics.mean_class_accuracy(both, labels, predicted=True)
                )
                assert abs(ours - share) <= atol
    assert abs(metrics.mean_average_precision(scores, several) - outputs["mean_average_precision"]) <= atol
    assert abs(metrics.mean_video_precision(scores, several) - outputs["mmit_mean_average_precision"]) <= atol


def run_cfg_options(golden: Golden, arrays: Arrays) -> None:
    for text, expected in golden["values"]["rows"]:
        released = ast.literal_eval(expected)
        # The release keeps the word, we read it as no value.
        assert config.parse_value(text, text) == (None if released == "None" else released), text
    for case in golden["merges"]:
        values = copy.deepcopy(golden["base"])
        if "error" in case["result"]:
            with pytest.raises(config.ConfigError):
                config.put_all(values, ["--cfg-options", *case["args"]])
            continue
        config.put_all(values, ["--cfg-options", *case["args"]])
        assert values == case["result"], case["args"]


def run_longvideo(golden: Golden, arrays: Arrays) -> None:
    scored: list[list[int]] = []

    def score(window: list[int]) -> np.ndarray:
        scored.append([window[0], window[-1]])
        rng = np.random.RandomState(sum(window) % 9973)
        scores = np.exp(2.5 * rng.standard_normal(len(golden["labels"])))
        return (scores / scores.sum()).astype(np.float32)

    assert "sum of its 1-based frame numbers mod 9973" in golden["fake_model"]
    for case in golden["cases"]:
        scored.clear()
        missing = set(case["unreadable_frames"])
        frames = [None if n in missing else n for n in range(1, case["num_frames"] + 1)]
        windows = frame_labels.frame_windows(
            frames, case["sample_length"], step=case["input_step"], stride=case["stride"], rng=np.random.RandomState(0)
        )
        labelled = frame_labels.label_frames(windows, score, golden["labels"], case["threshold"])
        said = {number: frame_labels.describe(ranked) for number, _, ranked in labelled}
        assert json.loads(json.dumps(said)) == case["json"]
        assert scored == case["windows_first_last"] and len(scored) == case["num_predictions"]


RUNNERS = {
    ("dualformer", kind): run
    for kind, run in {
        "sampling": run_sampling,
        "sampler": run_sampler,
        "pipeline": run_pipeline,
        "blending": run_blending,
        "metrics": run_metrics,
        "cfg_options": run_cfg_options,
        "longvideo": run_longvideo,
    }.items()
}
