"""Goldens of the Video-FocalNet data side, each driven through the function that training or testing uses."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
from fill import clip as fill_clip

from vidstill.config import Clip
from vidstill.data import blending, randaugment, sampling, transforms
from vidstill.data.views import margin_size, test_clips
from vidstill.video.decode import read_frames

Arrays = Mapping[str, np.ndarray]


def run_sampling(golden: dict[str, Any], arrays: Arrays) -> None:
    for frames in golden["T"]:
        clip = Clip(frames=frames, interval=golden["frame_interval"])
        for row, n in enumerate(golden["total_frames"]):
            seed = golden["seed"] + n
            np.testing.assert_array_equal(sampling.test_indices(n, clip, 1)[0], arrays[f"T{frames}_test"][row])
            np.testing.assert_array_equal(
                sampling.train_indices(n, clip, np.random.RandomState(seed)), arrays[f"T{frames}_train"][row]
            )
            np.testing.assert_array_equal(
                sampling.test_indices(n, clip, 4, np.random.RandomState(seed)).reshape(-1),
                arrays[f"T{frames}_multiclip4"][row],
            )


def run_random_resized_crop(golden: dict[str, Any], arrays: Arrays) -> None:
    for i, (height, width) in enumerate(golden["shapes_hw"]):
        seed = golden["seed"] + i
        box = transforms.random_resized_crop(
            height, width, (0.08, 1.0), (3 / 4, 4 / 3), np.random.RandomState(seed), random.Random(seed)
        )
        np.testing.assert_array_equal(box, arrays["boxes"][i])


def run_preprocess(golden: dict[str, Any], arrays: Arrays) -> None:
    """Through a lossless file, so that reading, resizing and cropping are those of a real test."""
    for i, case in enumerate(golden["cases"]):
        size, crops = case["input_size"], 1 if case["mode"] == "single" else 3
        frames = _made_frames(**case["frames"])
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
            atol=golden["tolerance"]["uint8"],
        )
        output = transforms.normalise(torch.from_numpy(views), clip.mean, clip.std).transpose(1, 2).flatten(0, 1)
        assert list(output.shape) == case["output_shape"]
        np.testing.assert_allclose(
            output.reshape(-1)[:: case["flat_stride"]], arrays[f"case{i}"], atol=golden["tolerance"]["normalised"]
        )


def run_blending(golden: dict[str, Any], arrays: Arrays) -> None:
    config, shape = golden["config"], tuple(golden["input"]["shape"])
    assert golden["input"]["layout"] == "NTCHW"
    for i, case in enumerate(golden["cases"]):
        clips = torch.from_numpy(fill_clip(case["clip_seed"], shape)).transpose(1, 2)
        targets = blending.one_hot(torch.tensor(case["labels"]), config["num_classes"], config["smoothing"])
        perm = torch.tensor(case["permutation"])
        if case["kind"] == "mixup":
            blended, targets = blending.mixup(clips, targets, case["drawn_lambda"], perm)
        else:
            x1, y1, x2, y2 = box = tuple(case["box_x1_y1_x2_y2"])
            height, width = shape[-2:]
            # A box that the frame did not cut has its drawn centre in its middle.
            if min(x1, y1) > 0 and x2 < width and y2 < height:
                centre = (x1 + x2) // 2, (y1 + y2) // 2
                assert blending.cutmix_box(height, width, case["drawn_lambda"], *centre) == box
            assert abs(1 - (x2 - x1) * (y2 - y1) / (height * width) - case["effective_lambda"]) < 1e-12
            blended, targets = blending.cutmix(clips, targets, box, perm)
        flat = blended.transpose(1, 2).reshape(-1)[:: case["flat_stride"]]
        np.testing.assert_allclose(flat, arrays[f"case{i}_clip"], atol=golden["tolerance"])
        np.testing.assert_allclose(targets, arrays[f"case{i}_target"], atol=golden["tolerance"])


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

    scores = fuse(torch.from_numpy(arrays["logits"])).numpy()
    np.testing.assert_allclose(scores, arrays["summed_probabilities"], atol=golden["tolerance"])
    for k in (1, 5):
        percent = 100 * topk_accuracy(scores, np.array(golden["labels"]), k)
        assert abs(percent - golden[f"top{k}_percent"]) <= golden["tolerance"]


def write_lossless(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _made_frames(seed: int, T: int, H: int, W: int, kind: str) -> np.ndarray:  # noqa: N803 - the golden's names
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
