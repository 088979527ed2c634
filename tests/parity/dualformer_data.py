"""Goldens of the DualFormer data side, each driven through the function that training or testing uses."""

from __future__ import annotations

import copy
import json
import random
import re
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
from reading import kept, named, number

from vidstill import config
from vidstill.config import Clip
from vidstill.data import blending, sampling, transforms
from vidstill.data.dataset import sample_seed
from vidstill.data.loader import EpochBatches
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
        np.testing.assert_array_equal(indices.reshape(-1) + case.get("start_index", 0), expected, err_msg=case["name"])


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
        about = {"span": args.pop("sample_range", 64), "positions": args.pop("num_sample_positions", 10)}
        if about != {"span": 64, "positions": 10}:
            assert not args
            return sampling.dense_sample_frames(n, frames, interval, clips, None if test else rng, **about)
    if test:
        indices = sampling.test_indices(n, spec, clips)
    elif clips > 1:
        indices = sampling.test_indices(n, spec, clips, rng)
    else:
        indices = sampling.train_indices(n, spec, rng)[None]
    return beyond_recipes(indices, n, frames, interval, clips, None if test else rng, args)


def beyond_recipes(
    indices: np.ndarray, n: int, frames: int, interval: int, clips: int, rng: Any, args: dict[str, Any]
) -> np.ndarray:
    """What OpenMMLab does on request, and no recipe asks for, to clips whose starts we choose: the clips from the
    parts' beginnings too, frames moved by less than the interval, the last frame held instead of starting again."""
    twice, jitter = args.pop("twice_sample", False), args.pop("temporal_jitter", False)
    bound = args.pop("out_of_bound_opt", "loop")
    assert not args and bound in ("loop", "repeat_last"), (args, bound)
    if not (twice or jitter or bound == "repeat_last"):
        return indices
    first = indices[:, :1].astype(float)
    starts = n - frames * interval + 1
    if twice and rng is None and starts > 0:
        first = np.concatenate([first, (np.arange(clips) * starts / clips)[:, None]])
    places = first + np.arange(frames) * interval
    if jitter and rng is not None:
        places = places + rng.randint(interval, size=places.shape)
    if bound == "loop":
        return (places % n).astype(np.int64)
    last = np.where(places < n, places, -1).max(1, keepdims=True)
    return np.where(places < n, places, last).astype(np.int64)


def run_sampler(golden: Golden, arrays: Arrays) -> None:
    """The shuffle is PyTorch's; which of the shuffled videos a rank takes at each step is ours. Videos that do not fill
    a step for all ranks, for which the release takes the first again, we leave to the next epoch."""
    for case in golden["cases"]:
        n, rank, world, seed = (case[name] for name in ("n", "rank", "world", "seed"))
        generator = torch.Generator().manual_seed(case["epoch"] + (seed or 0))
        order = torch.randperm(n, generator=generator) if case["shuffle"] else torch.arange(n)
        ranks = [EpochBatches(n, 1, 0, each, world) for each in range(world)]
        taken = [[index for batch in batches for _, index in batch] for batches in ranks]
        drawn = np.random.RandomState(sample_seed(0, 0)).permutation(n)  # our order, of which `taken` are the shares
        places = [int(np.flatnonzero(drawn == index)[0]) for index in taken[rank]]
        whole = n // world
        assert order[places[:whole]].tolist() == case["indices"][:whole]
        rest = np.resize(order.numpy(), -(-n // world) * world)[whole * world :]
        assert case["indices"][whole:] == rest[rank::world].tolist()


def run_pipeline(golden: Golden, arrays: Arrays) -> None:
    for width, height, side, *expected in golden["short_side_sizes"]["rows"]:
        assert list(short_side_size(height, width, side)) == expected[::-1]
    for case in golden["random_resized_crop"]["boxes_ltrb"]:
        box, _ = draw(*case["img_shape"], {"RandomResizedCrop": case}, case["seed"])
        assert list(box) == case["box"], case
    tolerance = golden["tolerance"]
    for case in golden["cases"]:
        views, boxes, flip = run_steps(case)
        about = next(step for step in case["steps"] if step["type"] == "Normalize")
        np.testing.assert_array_equal(boxes, case["crop_bbox"])
        assert flip == case["flip"] and list(views.shape) == case["output_shape"], case["name"]
        std = torch.tensor(about["std"])[:, None, None, None]
        expected = torch.from_numpy(arrays[case["name"]])
        grey = ((kept(views, case["stored"]) - expected) * std).abs()
        assert grey.max() <= tolerance["max_grey_levels"] + 1e-3, case["name"]
        assert grey.mean() <= tolerance["mean_abs_grey_levels"], case["name"]
        room = tolerance["mean_abs_grey_levels"] * views.numel() / min(about["std"])
        assert abs(views.double().sum().item() - case["sum"]) <= room, case["name"]


def run_steps(case: Golden) -> tuple[torch.Tensor, Any, bool]:
    """Views (V,3,T,H,W), the crop boxes, and whether they are mirrored."""
    kinds = [step["type"] for step in case["steps"]]
    steps = {step["type"]: step for step in case["steps"] if step["type"] != "Resize"}
    first, *more = [step for step in case["steps"] if step["type"] == "Resize"]
    assert kinds[0] == "Resize" and first["scale"][0] == -1 and not steps["Normalize"].get("to_bgr")
    side, clips, length = first["scale"][1], case["num_clips"], case["clip_len"]
    frames = np.random.RandomState(case["frames_seed"]).randint(0, 256, case["frames_shape"]).astype(np.uint8)
    assert len(frames) == clips * length
    grid = short_side_size(*frames.shape[1:3], side)
    flip = False
    with TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mov"
        write_lossless(path, frames)
        if "RandomResizedCrop" in steps:
            boxes, flip = draw(*grid, steps, case["rng_seed"])
            x1, y1, x2, y2 = boxes
            # Training resizes once; the released two steps are made here from the same box.
            resized = read_frames(path, range(len(frames)), short_side=side)[:, y1:y2, x1:x2]
            (last,) = more
            assert not last["keep_ratio"]
            pixels = np.stack([cv2.resize(frame, tuple(last["scale"])) for frame in resized])
            pixels = pixels[:, :, ::-1].copy() if flip else pixels
            views = pixels.reshape(clips, length, *pixels.shape[1:])
        else:
            (kind,) = {"CenterCrop", "ThreeCrop"} & set(kinds)
            assert not more and not steps.get("Flip", {}).get("flip_ratio")
            crop, crops = steps[kind]["crop_size"], 3 if kind == "ThreeCrop" else 1
            following = Clip(
                frames=length, interval=1, size=crop, sampling="dense_looped"
            )  # clip after clip, all frames
            views = test_clips(path, following, clips, crops, side=side)
            boxes = view_boxes(*grid, crop, crops)
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
    counts = metrics.confusion_matrix(scores.argmax(1), labels, scores.shape[1])
    there = np.flatnonzero(counts.sum(0) + counts.sum(1))
    counts = counts[np.ix_(there, there)]
    for name, expected in outputs.items():
        if name == "evaluate_printed":
            for line in expected.split("\n"):
                figure_name, tab, share = line.partition("\t")
                assert not tab or f"{figure(figure_name, scores, labels, several):.4f}" == share
        elif name == "confusion_labels":
            assert there.tolist() == expected
        elif name.startswith("confusion_matrix"):
            by = name.removeprefix("confusion_matrix").lstrip("_")
            np.testing.assert_allclose(shares(counts, by), expected, rtol=0, atol=atol, err_msg=name)
        elif name.startswith("weighted_"):
            weights = map(float, name.split("_")[1:])
            parts = [scores, *(arrays[f"scores{number}"] for number in range(2, name.count("_") + 1))]
            both = sum(weight * part for weight, part in zip(weights, parts, strict=True))
            for figure_name, share in expected.items():
                assert abs(figure(figure_name, both, labels, several) - share) <= atol, (name, figure_name)
        elif name in ("top_k_accuracy", "evaluate"):
            for figure_name, share in expected.items():
                figure_name = f"top{figure_name}_acc" if figure_name.isdigit() else figure_name
                assert abs(figure(figure_name, scores, labels, several) - share) <= atol, (name, figure_name)
        else:
            assert abs(figure(name, scores, labels, several) - expected) <= atol, name


def figure(name: str, scores: np.ndarray, labels: np.ndarray, several: np.ndarray) -> float:
    """A figure by its released name."""
    if found := re.fullmatch(r"top(\d+)(_acc)?", name):
        return metrics.topk_accuracy(scores, labels, int(found[1]))
    if name in ("mean_class_accuracy", "mean_class", "mean_acc"):
        # of the release also over classes that are only predicted, whose share is 0
        classes, predicted = {*labels.tolist()}, {*scores.argmax(1).tolist()}
        return metrics.mean_class_accuracy(scores, labels) * len(classes) / len(classes | predicted)
    if name == "mean_average_precision":
        return metrics.mean_average_precision(scores, several)
    assert name == "mmit_mean_average_precision", name  # Multi-Moments in Time: over the videos' rankings of classes
    return metrics.mean_average_precision(scores.T, several.T)


def shares(counts: np.ndarray, by: str) -> np.ndarray:
    """Of the true class, as the report shows them, of the predicted class or of all videos."""
    if by == "pred":
        return metrics.confusion_shares(counts.T).T
    return {"": counts, "true": metrics.confusion_shares(counts), "all": counts / counts.sum()}[by]


def run_cfg_options(golden: Golden, arrays: Arrays) -> None:
    for text, expected in golden["values"]["rows"]:
        # The release keeps the words, we read them as no value.
        expected = re.sub(r"'(none|null)'", "None", expected, flags=re.IGNORECASE)
        assert repr(config.parse_value(text, text)) == expected, text  # of nan only the name is equal
    for case in golden["merges"]:
        values = copy.deepcopy(golden["base"])
        if "error" in case["result"]:
            with pytest.raises(config.ConfigError):
                config.put_all(values, ["--cfg-options", *case["args"]])
            continue
        config.put_all(values, ["--cfg-options", *case["args"]])
        ours, theirs = (json.dumps(each, sort_keys=True) for each in (values, case["result"]))
        assert ours == theirs, case["args"]


def run_longvideo(golden: Golden, arrays: Arrays) -> None:
    scored: list[list[int]] = []

    text = golden["fake_model"]
    assert "sum of its 1-based frame numbers mod" in text and "standard_normal" in text
    modulus, spread = int(named(text, "mod")), number(text.partition("exp(")[2])

    def score(window: list[int]) -> np.ndarray:
        scored.append([window[0], window[-1]])
        rng = np.random.RandomState(sum(window) % modulus)
        scores = np.exp(spread * rng.standard_normal(len(golden["labels"])))
        return (scores / scores.sum()).astype(np.float32)

    for case in golden["cases"]:
        scored.clear()
        missing = set(case["unreadable_frames"])
        frames = [None if n in missing else n for n in range(1, case["num_frames"] + 1)]
        rng = np.random.RandomState(case.get("seed", 0))
        windows = frame_labels.frame_windows(
            frames, case["sample_length"], step=case["input_step"], stride=case["stride"], rng=rng
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
