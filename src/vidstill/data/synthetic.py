"""Embedded data: short clips of textured shapes whose motion is the class, and which no single frame gives away.

The world wraps around: a shape that leaves on the right comes back on the left, one that has turned once looks as
before, one that has grown to the largest size goes on from the smallest. So the state of a shape (x, y, angle, size)
is a point on a torus. The moving shape starts at a uniformly random point and its class adds displacements that do not
depend on that point; hence its state is uniform at every time, whatever the class. All the rest (looks, the other
shape, ground, camera drift, flicker) is drawn from distributions that do not know the class.

Shapes are bright and the ground is dark, so that a small network finds the motion within a minute on two CPU cores;
shapes are long, so that turning shows.
"""

from __future__ import annotations

import colorsys
import json
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidstill.files import atomic
from vidstill.video.encode import VideoWriter

log = logging.getLogger(__name__)

Motion = Callable[[np.ndarray, np.random.Generator], np.ndarray]

VERSION = 3  # of the pixels: another number where the same arguments would draw something else
FPS = 12
SPLITS = ("train", "val", "test")

X, Y, ANGLE, SIZE = range(4)  # of a state, each in turns of its own circle
RADIUS = (0.2, 0.46)  # smallest and largest, as a share of the frame
# Turns per frame: visible between the frames of a sparse clip, and far below the half turn that would look reversed.
SPEED = {X: (1 / 60, 1 / 35), Y: (1 / 60, 1 / 35), ANGLE: (1 / 60, 1 / 36), SIZE: (1 / 40, 1 / 26)}
DRIFT = 1 / 240  # the camera's fastest; a quarter of the slowest shape
SUPERSAMPLE = 2  # patches are drawn so much larger, for smooth edges


@dataclass(frozen=True)
class Scene:
    """All of a clip but its motion. Shapes are premultiplied RGBA, float32 (P,P,4)."""

    ground: np.ndarray  # (S,S,3) float32, periodic
    camera: np.ndarray  # (T,4) displacement of the ground and the still shapes
    shape: np.ndarray
    start: np.ndarray  # (4,) state of the moving shape in the first frame
    other: tuple[np.ndarray, np.ndarray]  # a still or trembling shape with its states (T,4)
    gain: np.ndarray  # (T,) brightness


def make_synthetic(
    folder: str | Path,
    *,
    train: int = 60,
    val: int = 10,
    test: int = 12,
    frames: int = 24,
    size: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Make `folder`/{train,val,test}/<class>/<nn>.mp4: so many clips per class, of `frames` frames of `size` pixels.

    Beside them: card.json (what was asked for, classes) and boxes.json (see `read_boxes`). The pixels before encoding
    are a function of the arguments. A folder whose card says that it holds just this is left alone; one that was
    interrupted or made with other arguments is made anew.

    Raises ValueError for a folder that holds anything else.
    """
    root = Path(folder)
    clips = dict(zip(SPLITS, (train, val, test), strict=True))
    card = {
        "made_by": "vidstill.data.synthetic", "version": VERSION, "seed": seed, "frames": frames, "size": size,
        "fps": FPS, "clips_per_class": clips, "classes": list(CLASSES),
    }  # fmt: skip
    names = [f"{split}/{label}/{n:02d}.mp4" for split in SPLITS for label in CLASSES for n in range(clips[split])]
    if _claim(root, card) and all((root / name).is_file() for name in names):
        return root

    def make(name: str) -> list[list[int]]:
        split, label, file = name.split("/")
        pixels, boxes = draw_clip(label, int(Path(file).stem), split=split, frames=frames, size=size, seed=seed)
        with VideoWriter(root / name, FPS) as video:
            for frame in pixels:
                video.write(frame)
        return boxes.tolist()

    for parent in {(root / name).parent for name in names}:
        parent.mkdir(parents=True, exist_ok=True)
    boxes = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # encoding releases the interpreter
        for name, box in zip(names, threads.map(make, names), strict=True):
            boxes[name] = box
            progress(len(boxes), len(names))
    _write_json(root / "boxes.json", boxes)
    _write_json(root / "card.json", {**card, "complete": True})
    log.info("made %d clips of %d classes in %s", len(names), len(CLASSES), root)
    return root


def read_boxes(folder: str | Path) -> dict[str, np.ndarray]:
    """Where the moving shape is: path below `folder` → int64 (T,4) x1, y1, x2, y2 in pixels.

    A box may reach beyond the frame: the shape comes back on the other side. `box_mask` knows.
    """
    boxes = json.loads((Path(folder) / "boxes.json").read_text(encoding="utf-8"))
    return {name: np.asarray(rows, dtype=np.int64) for name, rows in boxes.items()}


def box_mask(boxes: np.ndarray, size: int) -> np.ndarray:
    """Boxes (T,4) of `read_boxes` → bool (T,size,size), true inside them, wrapped around the frame."""
    masks = np.zeros((len(boxes), size, size), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        mask[np.ix_(np.arange(y1, y2) % size, np.arange(x1, x2) % size)] = True
    return masks


def draw_clip(
    label: str, number: int, *, split: str = "train", frames: int = 24, size: int = 64, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Clip `number` of a class: uint8 (T,S,S,3) RGB and the boxes (T,4) of the moving shape."""
    rng = np.random.default_rng((seed, SPLITS.index(split), number, CLASSES.index(label)))
    scene = draw_scene(rng, frames, size)
    states = scene.start + displacements(label, frames, rng)
    clip = np.stack([_draw_frame(scene, states[t], t) for t in range(frames)])
    return clip, _boxes(states, size)


def displacements(label: str, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The class's motion: what it adds to the state (x, y, angle, size), in turns, (T,4); 0 in the first frame."""
    time = np.arange(frames, dtype=np.float64)
    path = _MOTIONS[label](time, rng)
    return path - path[0]


def draw_scene(rng: np.random.Generator, frames: int, size: int) -> Scene:
    """A scene of random looks; the start of the moving shape is uniform on the torus."""
    time = np.arange(frames)[:, None]
    camera = time * np.array([*rng.uniform(-DRIFT, DRIFT, 2), 0, 0])
    tremble = rng.normal(0, (0.01, 0.01, 0.015, 0.03), (frames, 4)) * (rng.random() < 0.5)
    dim = _draw_shape(rng, size) * np.array([0.4, 0.4, 0.4, 1], dtype=np.float32)
    return Scene(
        ground=_draw_ground(rng, size),
        camera=camera,
        shape=_draw_shape(rng, size),
        start=rng.random(4),
        other=(dim, rng.random(4) + camera + tremble),
        gain=np.exp(rng.normal(0, rng.uniform(0, 0.02), frames)),
    )


def _steady(axis: int, sign: int) -> Motion:
    """Constant speed along one circle."""

    def motion(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.outer(time, sign * rng.uniform(*SPEED[axis]) * np.eye(4)[axis])

    return motion


def _bounce(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up and down again like a ball: arcs that end in a sharp turn on the floor."""
    phase = time / rng.uniform(11, 16) + rng.random()
    height = rng.uniform(0.3, 0.45)
    return np.outer(-height * 4 * (phase % 1) * (1 - phase % 1), np.eye(4)[Y])


def _turn(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clockwise or anticlockwise, at a constant speed."""
    return _steady(ANGLE, rng.choice((-1, 1)))(time, rng)


# The picture's y axis points down, so a positive angle turns clockwise.
_MOTIONS: dict[str, Motion] = {
    "bounce": _bounce,
    "grow": _steady(SIZE, +1),
    "move_down": _steady(Y, +1),
    "move_left": _steady(X, -1),
    "move_right": _steady(X, +1),
    "move_up": _steady(Y, -1),
    "shrink": _steady(SIZE, -1),
    "turn": _turn,
}
CLASSES = tuple(_MOTIONS)  # in the order in which folders are read


def _radius(states: np.ndarray, size: int) -> np.ndarray:
    """Radius in pixels: the size circle is logarithmic, growth is a constant share per frame."""
    return size * RADIUS[0] * (RADIUS[1] / RADIUS[0]) ** (states[..., SIZE] % 1)


def _boxes(states: np.ndarray, size: int) -> np.ndarray:
    centre, radius = states[:, :2] % 1 * size, _radius(states, size)[:, None]
    return np.concatenate([np.floor(centre - radius), np.ceil(centre + radius)], axis=1).astype(np.int64)


def _draw_frame(scene: Scene, state: np.ndarray, t: int) -> np.ndarray:
    """Frame `t`, uint8 (S,S,3), with the moving shape in `state`."""
    size = len(scene.ground)
    dx, dy = scene.camera[t, :2] * size
    frame = cv2.warpAffine(scene.ground, np.array([[1, 0, dx], [0, 1, dy]]), (size, size), borderMode=cv2.BORDER_WRAP)
    other, states = scene.other
    _paste(frame, other, states[t])
    _paste(frame, scene.shape, state)
    return cv2.convertScaleAbs(frame, alpha=scene.gain[t])


def _paste(frame: np.ndarray, shape: np.ndarray, state: np.ndarray) -> None:
    """Draw `shape` in `state` onto `frame`, around its edges where need be."""
    size, radius = len(frame), float(_radius(state, len(frame)))
    corner = np.floor(state[:2] % 1 * size - radius).astype(int) - 1
    side = int(2 * radius) + 4
    middle, scale, angle = len(shape) / 2 - 0.5, 2 * radius / (len(shape) - 2), 2 * np.pi * state[ANGLE]
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = state[:2] % 1 * size - 0.5 - corner - turn @ (middle, middle)
    drawn = cv2.warpAffine(shape, np.column_stack([turn, offset]), (side, side))
    colour, clear = drawn[..., :3], cv2.cvtColor(1 - drawn[..., 3], cv2.COLOR_GRAY2RGB)
    for rows, from_rows in _wrapped(int(corner[1]), side, size):
        for columns, from_columns in _wrapped(int(corner[0]), side, size):
            frame[rows, columns] *= clear[from_rows, from_columns]
            frame[rows, columns] += colour[from_rows, from_columns]


def _wrapped(start: int, length: int, size: int) -> list[tuple[slice, slice]]:
    """Where [start, start + length) lies on a circle of `size`, and which part of it lies there."""
    pieces, done = [], 0
    while done < length:
        at = (start + done) % size
        piece = min(length - done, size - at)
        pieces.append((slice(at, at + piece), slice(done, done + piece)))
        done += piece
    return pieces


def _draw_ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """Soft clouds between two muted colours, periodic in both directions."""
    hue, value = rng.random(), rng.uniform(0.15, 0.4)
    dark = _rgb(hue, rng.uniform(0.1, 0.4), value * 0.85)
    light = _rgb(hue + rng.uniform(-0.15, 0.15), rng.uniform(0.1, 0.4), value * 1.1)
    return dark + _clouds(rng, size, rng.uniform(2, 6))[..., None] * (light - dark)


def _draw_shape(rng: np.random.Generator, size: int) -> np.ndarray:
    """A rimmed shape filled with a pattern of two colours, as large as it ever gets."""
    side = 2 * int(np.ceil(RADIUS[1] * size)) + 2  # one clear pixel around it
    fine = side * SUPERSAMPLE
    u, v = np.meshgrid(*2 * [(np.arange(fine) + 0.5 - fine / 2) / (fine / 2 - SUPERSAMPLE)])
    hue = rng.random()
    bright = _rgb(hue, rng.uniform(0.1, 0.5), rng.uniform(0.9, 1))
    second = _rgb(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.3, 0.7), rng.uniform(0.6, 0.75))
    pattern = _draw_pattern(rng, u, v)[..., None]
    colour = bright * pattern + second * (1 - pattern)
    depth = _outline(rng, np.arctan2(v, u)) - np.hypot(u, v)  # > 0 inside
    colour = np.where(depth[..., None] < 0.1, 0.6 * bright, colour)
    alpha = (depth > 0)[..., None]
    image = np.concatenate([colour * alpha, alpha], axis=-1).astype(np.float32)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _outline(rng: np.random.Generator, phi: np.ndarray) -> np.ndarray:
    """Distance of the edge from the centre in direction `phi`, at most 1: a bar (most often), a polygon or a pebble."""
    kind = rng.choice(("bar", "bar", "polygon", "pebble"))
    if kind == "bar":
        width = rng.uniform(0.35, 0.5)
        return width / np.hypot(width * np.cos(phi), np.sin(phi))
    if kind == "polygon":
        sector = 2 * np.pi / rng.integers(3, 7)
        return np.cos(sector / 2) / np.cos(phi % sector - sector / 2)
    wave = sum(
        a * np.cos(k * phi + p) for k, a, p in zip((1, 2, 3), (0.10, 0.12, 0.08), rng.uniform(0, 6.3, 3), strict=True)
    )
    return 0.7 + wave


def _draw_pattern(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """0 or 1 over the plane (u, v): two halves along a wavy line, so that only a whole turn looks the same."""
    return (v > rng.uniform(-0.3, 0.3) * np.sin(3 * u)).astype(float)


def _clouds(rng: np.random.Generator, size: int, waves: float) -> np.ndarray:
    """Smooth periodic noise, float32 (size,size) in 0..1, of up to about `waves` waves per side."""
    fy, fx = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * np.exp(-(fx**2 + fy**2) / waves**2)
    noise = np.fft.irfft2(spectrum, (size, size))
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, min(value, 1)), dtype=np.float32) * 255


def _claim(root: Path, card: dict[str, Any]) -> bool:
    """Whether `root` holds the clips of `card` already; if not, it is left with an unfinished card."""
    try:
        found = json.loads((root / "card.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        if root.is_dir() and any(root.iterdir()):
            raise ValueError(
                f"{root} is not empty and holds no embedded data set: name a folder that does not exist yet"
            ) from None
        found = {}
    if found == {**card, "complete": True}:
        return True
    if found != {**card, "complete": False}:
        for split in SPLITS:
            shutil.rmtree(root / split, ignore_errors=True)
        root.mkdir(parents=True, exist_ok=True)
        _write_json(root / "card.json", {**card, "complete": False})
    return False


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic(path) as file:
        file.write(json.dumps(content).encode())
