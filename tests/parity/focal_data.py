"""Goldens of the Video-FocalNet data side, each driven through the function that training or testing uses."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
from fill import clip as fill_clip
from reading import channels_first

from vidstill.config import Clip
from vidstill.data import blending, randaugment, sampling, transforms
from vidstill.data.views import margin_size, test_clips
from vidstill.video.decode import read_frames

Arrays = Mapping[str, np.ndarray]


def run_sampling(golden: dict[str, Any], arrays: Arrays) -> None:
    for name in arrays:
        frames, kind, clips = re.fullmatch(r"T(\d+)_(test|train|multiclip)(\d*)", name).groups()  # type: ignore[union-attr]
        assert int(frames) in golden["T"]
        clip = Clip(frames=int(frames), interval=golden["frame_interval"])
        for n, expected in zip(golden["total_frames"], arrays[name], strict=True):
            rng = np.random.RandomState(golden["seed"] + n)
            if kind == "train":
                ours = sampling.train_indices(n, clip, rng)
            else:
                ours = sampling.test_indices(n, clip, int(clips or 1), rng if kind == "multiclip" else None)
            np.testing.assert_array_equal(ours.reshape(-1), expected, err_msg=f"{name} of {n} frames")


def run_random_resized_crop(golden: dict[str, Any], arrays: Arrays) -> None:
    scale, ratio = golden.get("scale", (0.08, 1.0)), golden.get("ratio", (3 / 4, 4 / 3))
    for i, ((height, width), expected) in enumerate(zip(golden["shapes_hw"], arrays["boxes"], strict=True)):
        seed = golden["seed"] + i
        rngs = np.random.RandomState(seed), random.Random(seed)
        box = transforms.random_resized_crop(height, width, tuple(scale), tuple(ratio), *rngs)
        np.testing.assert_allclose(box, expected, rtol=0, atol=golden["tolerance"])


def run_preprocess(golden: dict[str, Any], arrays: Arrays) -> None:
    """Through a lossless file, so that reading, resizing and cropping are those of a real test."""
    for i, case in enumerate(golden["cases"]):
        size, crops = case["input_size"], {"single": 1, "three": 3}[case["mode"]]
        made = case["frames"]
        frames = _made_frames(made["kind"], made["seed"], made["T"], made["H"], made["W"])
        clip = Clip(frames=len(frames), interval=1, size=size)  # every frame once
        with TemporaryDirectory() as folder:
            path = Path(folder) / "frames.mov"
            write_lossless(path, frames)
            short_side = margin_size(size) if crops == 1 else size
            resized = read_frames(path, range(len(frames)), short_side=short_side)
            views = test_clips(path, clip, 1, crops)
        assert list(resized.shape[1:3]) == case["resized_hw"]
        np.testing.assert_allclose(
            resized[0].reshape(-1)[:: case["resized_uint8_flat_stride"]].astype(int),
            arrays[f"case{i}_resized_uint8"].astype(int),
            rtol=0,
            atol=golden["tolerance"]["uint8"],
        )
        output = transforms.normalise(torch.from_numpy(views), clip.mean, clip.std).transpose(1, 2).flatten(0, 1)
        assert list(output.shape) == case["output_shape"]
        flat = output.reshape(-1)[:: case["flat_stride"]]
        np.testing.assert_allclose(flat, arrays[f"case{i}"], rtol=0, atol=golden["tolerance"]["normalised"])


def run_blending(golden: dict[str, Any], arrays: Arrays) -> None:
    for i, case in enumerate(golden["cases"]):
        about = {**golden["config"], **golden["input"], **case}
        layout, shape = about["layout"], tuple(about["shape"])
        clips = channels_first(fill_clip(about["clip_seed"], shape), layout)
        height, width = clips.shape[-2:]
        targets = blending.one_hot(torch.tensor(about["labels"]), about["num_classes"], about["smoothing"])
        assert about["kind"] in ("mixup", "cutmix", "none")
        if about["kind"] == "mixup":
            assert about["effective_lambda"] == about["drawn_lambda"]
            blended, targets = blending.mixup(clips, targets, about["drawn_lambda"], torch.tensor(about["permutation"]))
        elif about["kind"] == "cutmix":
            x1, y1, x2, y2 = box = tuple(about["box_x1_y1_x2_y2"])
            # A box that the frame did not cut has its drawn centre in its middle.
            if min(x1, y1) > 0 and x2 < width and y2 < height:
                centre = (x1 + x2) // 2, (y1 + y2) // 2
                assert blending.cutmix_box(height, width, about["drawn_lambda"], *centre) == box
            assert abs(1 - (x2 - x1) * (y2 - y1) / (height * width) - about["effective_lambda"]) < 1e-12
            blended, targets = blending.cutmix(clips, targets, box, torch.tensor(about["permutation"]))
        else:
            blended = clips
        flat = (blended.transpose(1, 2) if "TCHW" in layout else blended).reshape(-1)[:: about.get("flat_stride", 1)]
        np.testing.assert_allclose(flat, arrays[f"case{i}_clip"], rtol=0, atol=golden["tolerance"])
        np.testing.assert_allclose(targets, arrays[f"case{i}_target"], rtol=0, atol=golden["tolerance"])


def run_randaugment_levels(golden: dict[str, Any], arrays: Arrays) -> None:
    for table in golden["values_with_positive_sign"].values():
        assert {name.removesuffix("Increasing") for name in table} == set(randaugment.OPERATIONS)
        for name, values in table.items():
            for magnitude, value in zip(golden["magnitudes"], values, strict=True):
                strength = randaugment.strength(name, magnitude)
                opposite = randaugment.strength(name, magnitude, negative=True)
                if value is None:
                    assert strength is None
                    continue
                assert abs(strength - value) <= golden["tolerance"]
                pivot = 1 if name.endswith("Increasing") else 0
                turned = 2 * pivot - value if name in golden["signed_ops"] else value
                assert abs(opposite - turned) <= golden["tolerance"]


def run_multiview_fusion(golden: dict[str, Any], arrays: Arrays) -> None:
    from vidstill.evaluation.engine import fuse
    from vidstill.evaluation.metrics import topk_accuracy

    assert arrays["logits"].shape == tuple(golden[name] for name in ("videos", "views", "classes"))
    scores = fuse(torch.from_numpy(arrays["logits"])).numpy()
    np.testing.assert_allclose(scores, arrays["summed_probabilities"], rtol=0, atol=golden["tolerance"])
    shares = {name: found[1] for name in golden if (found := re.fullmatch(r"top(\d+)_percent", name))}
    assert shares
    for name, k in shares.items():
        percent = 100 * topk_accuracy(scores, np.array(golden["labels"]), int(k))
        assert abs(percent - golden[name]) <= golden["tolerance"]


def write_lossless(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _made_frames(kind: str, seed: int, T: int, H: int, W: int) -> np.ndarray:  # noqa: N803 - the golden's names
    assert kind in ("noise", "smooth")
    rng = np.random.RandomState(seed)
    if kind == "noise":
        return rng.randint(0, 256, (T, H, W, 3)).astype(np.uint8)
    y, x = np.mgrid[:H, :W]
    frames = np.empty((T, H, W, 3))
    for t in range(T):
        for c in range(3):
            p = rng.rand(6)
            waves = np.sin(2 * np.pi * (3 * p[0] * x / W + p[1])) * np.cos(2 * np.pi * (3 * p[2] * y / H + p[3]))
            diagonal = np.sin(2 * np.pi * (4 * p[4] * (x + y) / (H + W) + p[5]))
            frames[t, :, :, c] = 127.5 + 60 * waves + 60 * diagonal
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


RUNNERS = {
    "sampling": run_sampling,
    "random_resized_crop": run_random_resized_crop,
    "preprocess": run_preprocess,
    "blending": run_blending,
    "randaugment_levels": run_randaugment_levels,
    "multiview_fusion": run_multiview_fusion,
}
