"""From a video file to the uint8 clips of training: crop boxes, flip, colour; and normalisation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from math import cos, pi, sin

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vidstill.config import Augment, Clip
from vidstill.data.blending import Box, rescale
from vidstill.data.randaugment import parse_policy, randaugment
from vidstill.data.sampling import Timing, matching_indices, train_indices
from vidstill.data.views import margin_size
from vidstill.video.decode import FramesMissing, Source, VideoInfo, probe, read_frames
from vidstill.video.pixels import short_side_size

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601
SHARES = tuple(2 ** (-n / 4) for n in range(5))  # of the short side: 1, 0.84, 0.71, 0.59, 0.5
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def train_clip(
    path: Source, clip: Clip, augment: Augment, rng: np.random.RandomState, formats: Sequence[Clip] = ()
) -> list[np.ndarray]:
    """One training sample, uint8 (T,S,S,3) RGB: a pure function of the file and the state of `rng`.

    It is followed by the same moments, box, flip and colours in other `formats`. The box is drawn in the frame of
    short side 256/224 S as released, but cut from the source and resized once.
    A file that decodes fewer frames than its packets promise is sampled anew, from the same state, over those it has.
    Raises VideoError when the file cannot be read.
    """
    info = probe(path)
    state = rng.get_state()
    try:
        return _train_clip(path, info, info.frames, clip, augment, rng, formats)
    except FramesMissing as missing:
        if not missing.available:
            raise
        rng.set_state(state)
        return _train_clip(path, info, missing.available, clip, augment, rng, formats)


def normalise(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Grey levels (B,T,H,W,3), uint8 or float32 → (x - mean) / std, float32 (B,3,T,H,W), a permuted view of
    channels-last memory."""
    # A whole row at a time: an inner loop over 3 channels would cost ten times as much on a CPU. Not made on the
    # device, because that would wait for it.
    mean_row, std_row = torch.tensor([mean, std]).repeat(1, clips.shape[-2]).to(clips.device, non_blocking=True)
    values = clips.flatten(-2).to(torch.float32, copy=True).sub_(mean_row).div_(std_row)
    return values.view(clips.shape).permute(0, 4, 1, 2, 3)


def random_resized_crop(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.RandomState,
    position: random.Random,
) -> Box:
    """(x1,y1,x2,y2) of a random share `scale` of the frame with aspect (w/h) `ratio`, log-uniform.

    `rng` draws ten ratios and then ten shares; the first box that fits is placed by `position`, x before y, as in the
    released pipeline, whose two generators these are. If none fits: the centred square of the short side.
    """
    ratios = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), size=10))
    areas = rng.uniform(*scale, size=10) * height * width
    widths = np.round(np.sqrt(areas * ratios)).astype(int)
    heights = np.round(np.sqrt(areas / ratios)).astype(int)
    for w, h in zip(widths.tolist(), heights.tolist(), strict=True):
        if 0 < w <= width and 0 < h <= height:
            x, y = position.randint(0, width - w), position.randint(0, height - h)
            return x, y, x + w, y + h
    side = min(height, width)
    x, y = (width - side) // 2, (height - side) // 2
    return x, y, x + side, y + side


def jitter_scales(augment: Augment, size: int, full: int) -> tuple[int, int]:
    """Shortest and longest short side for crops of `size` where the recipe's are of `full`: the shortest shrinks with
    them."""
    least, most = augment.scales
    return round(least * size / full), most


def scaled_crop(
    height: int, width: int, size: int, augment: Augment, rng: np.random.RandomState
) -> tuple[tuple[int, int], Box]:
    """A window of `size`² in the frame at a random scale: the resized (height, width), and (x1,y1,x2,y2) in it.

    The short side is uniform between `augment.scales`, or its inverse is; no crop reaches the last row or column.
    """
    low, high = augment.scales
    side = round(1 / rng.uniform(1 / high, 1 / low)) if augment.inverse_scales else round(rng.uniform(low, high))
    height, width = short_side_size(height, width, max(side, size), down=True)
    y, x = (rng.randint(0, length - size) if length > size else 0 for length in (height, width))
    return (height, width), (x, y, x + size, y + size)


def multiscale_crop(height: int, width: int, rng: np.random.RandomState) -> Box:
    """(x1,y1,x2,y2) of a square of one of `SHARES` of the short side, anywhere in the frame (Efficient-3DCNNs)."""
    side = int(min(height, width) * SHARES[rng.randint(len(SHARES))])
    x, y = (round(rng.random_sample() * (length - side)) for length in (width, height))
    return x, y, x + side, y + side


def recolour(clip: np.ndarray, augment: Augment, rng: np.random.RandomState) -> np.ndarray:
    """Colour jitter and grey of a clip uint8 (T,H,W,3), each with its probability, for the clip as a whole.

    With `jitter_per_frame` every frame draws its own jitter, as released (it flickers).
    """
    jitter, grey = rng.random_sample() < augment.jitter, rng.random_sample() < augment.grey
    if not (jitter or grey):
        return clip
    images = clip if augment.jitter_per_frame else clip.reshape(1, -1, *clip.shape[2:])
    recoloured = np.empty_like(images)
    for image, result in zip(images, recoloured, strict=True):
        steps = _draw_jitter(augment, rng) if jitter else []
        matrix = colour_matrix(cv2.mean(image)[:3], [*steps, ("saturation", 0.0)] if grey else steps)
        cv2.transform(image, matrix, result)
    return recoloured.reshape(clip.shape)


def colour_matrix(mean: Sequence[float], steps: Sequence[tuple[str, float]]) -> np.ndarray:
    """3x4 matrix that applies `steps`, (brightness | contrast | saturation, factor) or (hue, share of a turn), in
    their order to an RGB image of colour `mean` on average, 0..255.

    One matrix is two orders of magnitude faster than the image operations of PIL. It differs from them in that values
    are clamped once, at the end, and that hue is turned in YIQ, which keeps luma, instead of HSV.
    """
    matrix = np.eye(4)
    for name, value in steps:
        step = np.eye(4)
        if name == "brightness":
            step[:3, :3] *= value
        elif name == "contrast":
            step[:3, :3] *= value
            step[:3, 3] = (1 - value) * LUMA @ (matrix @ [*mean, 1.0])[:3]
        elif name == "saturation":
            step[:3, :3] = value * np.eye(3) + (1 - value) * LUMA
        else:
            cosine, sine = cos(2 * pi * value), sin(2 * pi * value)
            turn = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
            step[:3, :3] = np.linalg.inv(YIQ) @ turn @ YIQ
        matrix = step @ matrix
    return matrix[:3]


def erase(
    clip: np.ndarray, colour: Sequence[float], rng: np.random.RandomState, frame: tuple[int, int] | None = None
) -> np.ndarray:
    """`clip` (T,H,W,3) with one random box, 1/50 to 1/3 of the frame, filled with `colour` in all frames.

    With `frame` (H,W) the box is drawn in a frame of that size: the same place in clips of any size.
    """
    height, width = frame or clip.shape[1:3]
    box = random_resized_crop(height, width, (0.02, 1 / 3), (0.3, 1 / 0.3), rng, _position(rng))
    x1, y1, x2, y2 = rescale(box, height, width, *clip.shape[1:3])
    erased = clip.copy()
    erased[:, y1:y2, x1:x2] = np.rint(colour)
    return erased


def _train_clip(
    path: Source,
    info: VideoInfo,
    frames: int,
    clip: Clip,
    augment: Augment,
    rng: np.random.RandomState,
    formats: Sequence[Clip],
) -> list[np.ndarray]:
    timing = Timing(info.fps, info.ticks)
    indices = train_indices(frames, clip, rng, timing)
    height, width = info.height, info.width
    if augment.crop == "multiscale":
        box = multiscale_crop(height, width, rng)
    elif augment.crop == "scaled":
        (height, width), box = scaled_crop(height, width, clip.size, augment, rng)
    else:
        height, width = short_side_size(height, width, margin_size(clip.size))
        box = random_resized_crop(height, width, augment.scale, augment.ratio, rng, _position(rng))
    box = _source_box(box, height, width, info)
    specs = (clip, *formats)
    wanted = [indices, *(matching_indices(indices, frames, clip, other, timing) for other in formats)]
    state, samples = rng.get_state(), {}
    for size in {spec.size for spec in specs}:  # one decoding pass for each
        alike = [n for n, spec in enumerate(specs) if spec.size == size]
        numbers = np.concatenate([wanted[n] for n in alike])
        if augment.crop == "multiscale":  # resized as released, with antialiasing
            pixels = read_frames(path, numbers, resize=partial(_antialiased, box=box, size=size))
        else:
            pixels = read_frames(path, numbers, box=box, size=(size, size))
        for n, part in zip(alike, np.split(pixels, np.cumsum([len(wanted[n]) for n in alike])[:-1]), strict=True):
            rng.set_state(state)
            samples[n] = _augmented(part, specs[n], augment, rng, (clip.size, clip.size))
    return [samples[n] for n in range(len(specs))]


def _augmented(
    pixels: np.ndarray, clip: Clip, augment: Augment, rng: np.random.RandomState, frame: tuple[int, int]
) -> np.ndarray:
    if rng.random_sample() < augment.flip:
        # cv2 flips 3-byte pixels forty times faster than numpy copies them.
        pixels = cv2.flip(pixels.reshape(-1, *pixels.shape[2:]), 1).reshape(pixels.shape)
    if augment.randaugment is not None:
        pixels = randaugment(pixels, parse_policy(augment.randaugment), rng)
    pixels = recolour(pixels, augment, rng)
    if rng.random_sample() < augment.erase:
        pixels = erase(pixels, clip.mean, rng, frame)
    return pixels


def _antialiased(frame: np.ndarray, box: Box, size: int) -> np.ndarray:
    """The box of a frame uint8 (H,W,3) as PIL resizes it, (S,S,3)."""
    x1, y1, x2, y2 = box
    cut = Image.fromarray(np.ascontiguousarray(frame[y1:y2, x1:x2]))
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR))


def _source_box(box: Box, height: int, width: int, info: VideoInfo) -> Box:
    """`box` of a frame (height, width) in whole pixels of the source; never empty."""
    x1, y1, x2, y2 = rescale(box, height, width, info.height, info.width)
    x1, y1 = min(x1, info.width - 1), min(y1, info.height - 1)
    return x1, y1, max(x1 + 1, x2), max(y1 + 1, y2)


def _position(rng: np.random.RandomState) -> random.Random:
    return random.Random(int(rng.randint(2**31)))


def _draw_jitter(augment: Augment, rng: np.random.RandomState) -> list[tuple[str, float]]:
    """Factors as torchvision draws them, in random order."""
    steps = [
        (name, rng.uniform(*(strength if isinstance(strength, tuple) else (max(0.0, 1 - strength), 1 + strength))))
        for name, strength in (
            ("brightness", augment.brightness),
            ("contrast", augment.contrast),
            ("saturation", augment.saturation),
        )
    ]
    steps.append(("hue", rng.uniform(-augment.hue, augment.hue)))
    return [steps[i] for i in rng.permutation(len(steps))]
