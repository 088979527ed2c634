"""From a video file to the uint8 clips of training and testing: crop boxes, views, flip, colour; and normalisation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import ceil, cos, pi, sin
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vidstill.config import Augment, Clip
from vidstill.data.blending import Box, rescale
from vidstill.data.randaugment import parse_policy, randaugment
from vidstill.data.sampling import Timing, matching_indices, test_indices, train_indices
from vidstill.video.decode import FramesMissing, VideoInfo, probe, read_frames
from vidstill.video.pixels import short_side_size

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def train_clip(
    path: str | Path, clip: Clip, augment: Augment, rng: np.random.RandomState, others: Sequence[Clip] = ()
) -> list[np.ndarray]:
    """One training sample, uint8 (T,S,S,3) RGB: a pure function of the file and the state of `rng`.

    It is followed by the same moments, box, flip and colours in the formats `others`. The box is drawn in the frame of
    short side 256/224 S as released, but cut from the source and resized once.
    A file that decodes fewer frames than its packets promise is sampled anew, from the same state, over those it has.
    Raises VideoError when the file cannot be read.
    """
    info = probe(path)
    state = rng.get_state()
    try:
        return _train_clip(path, info, info.frames, clip, augment, rng, others)
    except FramesMissing as missing:
        if not missing.available:
            raise
        rng.set_state(state)
        return _train_clip(path, info, missing.available, clip, augment, rng, others)


def test_clips(
    path: str | Path,
    clip: Clip,
    clips: int,
    crops: int,
    rng: np.random.RandomState | None = None,
    side: int | None = None,
) -> np.ndarray:
    """All views of one test video, uint8 (crops·clips,T,S,S,3), from one decoding pass; view = crop · clips + clip.

    One crop is the centre of the frame at short side 256/224 S; three crops lie along the long side at short side S;
    `side` is another short side than these. Where clip.views is exact they are not rounded to whole grey levels, and
    normalised: float32 (crops·clips,3,T,S,S).
    With `rng` the clips are random. Raises VideoError when the file cannot be read.
    """
    info = probe(path)
    state = rng.get_state() if rng is not None else None
    try:
        return _test_clips(path, info, info.frames, clip, clips, crops, rng, side)
    except FramesMissing as missing:
        if not missing.available:
            raise
        if rng is not None and state is not None:
            rng.set_state(state)
        return _test_clips(path, info, missing.available, clip, clips, crops, rng, side)


test_clips.__test__ = False  # type: ignore[attr-defined]  # the name is not a test's


def normalise(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B,T,H,W,3) → (x - mean) / std, float32 (B,3,T,H,W), a permuted view of channels-last memory."""
    # A whole row at a time: an inner loop over 3 channels would cost ten times as much on a CPU. Not made on the
    # device, because that would wait for it.
    mean_row, std_row = torch.tensor([mean, std]).repeat(1, clips.shape[-2]).to(clips.device, non_blocking=True)
    values = clips.flatten(-2).float().sub_(mean_row).div_(std_row)
    return values.view(clips.shape).permute(0, 4, 1, 2, 3)


def margin_size(size: int) -> int:
    """Short side from which a crop of `size` is taken: 256 for 224."""
    return int(256 / 224 * size)


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


def view_boxes(
    height: int, width: int, size: int, crops: int, middle: Literal["down", "up", "even"] = "down"
) -> list[Box]:
    """Square test crops of a frame: the centre, or along the long side left/top, right/bottom, middle.

    `middle` says how half pixels are rounded. Rounded down, the right crop ends as far from the edge as the left one
    would begin twice (Video-FocalNet), else at the edge and the middle comes second.
    """
    if min(height, width) < size:
        raise ValueError(f"no crop of {size} pixels in a frame of {width}x{height}: resize it first")
    if middle != "down":
        round_half = ceil if middle == "up" else round
        x, y = (round_half((length - size) / 2) for length in (width, height))
        ends = [(0, y), (x, y), (width - size, y)] if width >= height else [(x, 0), (x, y), (x, height - size)]
        if crops not in (1, 3):
            raise ValueError(f"{crops} crops per clip: take 1 or 3")
        return [(x, y, x + size, y + size) for x, y in (ends if crops == 3 else [(x, y)])]
    x, y = (width - size) // 2, (height - size) // 2
    if crops == 1:
        corners = [(x, y)]
    elif crops == 3:
        corners = [(0, y), (2 * x, y), (x, y)] if width > height else [(x, 0), (x, 2 * y), (x, y)]
    else:
        raise ValueError(f"{crops} crops per clip: take 1 or 3")
    return [(x, y, x + size, y + size) for x, y in corners]


def test_views(frames: np.ndarray, size: int, crops: int, middle: Literal["down", "up", "even"] = "down") -> np.ndarray:
    """Frames (N,H,W,3), their short side resized already → crops (crops,N,S,S,3), in the order of view_boxes."""
    boxes = view_boxes(frames.shape[1], frames.shape[2], size, crops, middle)
    return np.stack([frames[:, y1:y2, x1:x2] for x1, y1, x2, y2 in boxes])


test_views.__test__ = False  # type: ignore[attr-defined]  # the name is not a test's


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
    path: str | Path,
    info: VideoInfo,
    frames: int,
    clip: Clip,
    augment: Augment,
    rng: np.random.RandomState,
    others: Sequence[Clip],
) -> list[np.ndarray]:
    indices = train_indices(frames, clip, rng, Timing(info.fps, info.ticks))
    if augment.crop == "scaled":
        (height, width), box = scaled_crop(info.height, info.width, clip.size, augment, rng)
    else:
        height, width = short_side_size(info.height, info.width, margin_size(clip.size))
        box = random_resized_crop(height, width, augment.scale, augment.ratio, rng, _position(rng))
    box = _source_box(box, height, width, info)
    formats = (clip, *others)
    wanted = [indices, *(matching_indices(indices, frames, clip, other) for other in others)]
    state, samples = rng.get_state(), {}
    for size in {form.size for form in formats}:  # one decoding pass for each
        alike = [n for n, form in enumerate(formats) if form.size == size]
        pixels = read_frames(path, np.concatenate([wanted[n] for n in alike]), box=box, size=(size, size))
        for n, part in zip(alike, np.split(pixels, np.cumsum([len(wanted[n]) for n in alike])[:-1]), strict=True):
            rng.set_state(state)
            samples[n] = _augmented(part, formats[n], augment, rng, (clip.size, clip.size))
    return [samples[n] for n in range(len(formats))]


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


def _test_clips(
    path: str | Path,
    info: VideoInfo,
    frames: int,
    clip: Clip,
    clips: int,
    crops: int,
    rng: np.random.RandomState | None,
    side: int | None,
) -> np.ndarray:
    indices = test_indices(frames, clip, clips, rng, Timing(info.fps, info.ticks)).reshape(-1)
    if clip.views == "opencv":
        pixels = read_frames(path, indices, short_side=side or (margin_size(clip.size) if crops == 1 else clip.size))
        return test_views(pixels, clip.size, crops).reshape(-1, clip.frames, clip.size, clip.size, 3)
    whole = read_frames(path, indices)
    if clip.views == "pillow":
        views = test_views(antialiased(whole, side or clip.size), clip.size, crops, "even")
        return views.reshape(-1, clip.frames, clip.size, clip.size, 3)
    views = test_views(unrounded(whole, side or clip.size), clip.size, crops, "up")
    views -= np.asarray(clip.mean, np.float32)
    views /= np.asarray(clip.std, np.float32)
    return views.reshape(-1, clip.frames, clip.size, clip.size, 3).transpose(0, 4, 1, 2, 3)


def pixels_of(views: np.ndarray, clip: Clip) -> np.ndarray:
    """The pictures that views of `test_clips` show, uint8 (V,T,S,S,3)."""
    if views.dtype == np.uint8:
        return views
    values = views.transpose(0, 2, 3, 4, 1) * np.asarray(clip.std, np.float32) + np.asarray(clip.mean, np.float32)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def unrounded(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames uint8 (N,H,W,3) → float32 at the short side `side`, the long one rounded down; bilinear (PySlowFast)."""
    height, width = short_side_size(frames.shape[1], frames.shape[2], side, down=True)
    resized = np.empty((len(frames), height, width, 3), np.float32)
    for frame, target in zip(frames, resized, strict=True):
        picture = torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0).float()
        # OpenCV's coordinates are half as exact.
        target[:] = F.interpolate(picture, (height, width), mode="bilinear")[0].permute(1, 2, 0).numpy()
    return resized


def antialiased(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames uint8 (N,H,W,3) at the short side `side`, the long one rounded down, as Pillow resizes."""
    height, width = short_side_size(frames.shape[1], frames.shape[2], side, down=True)
    size, bilinear = (width, height), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, bilinear)) for frame in frames])


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
