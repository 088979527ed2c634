"""Made videos for the benchmarks: textures before a hand-held camera, moving sprites, film grain; real bitrates."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np


@dataclass(frozen=True)
class Made:
    """A kind of video; `options` are the encoder's."""

    name: str
    file: str
    codec: str
    width: int
    height: int
    frames: int
    fps: int
    bit_rate: int
    options: dict[str, str] = field(default_factory=dict)


UCF = Made(
    name="UCF-like MPEG-4 ASP 320x240, 175 frames, one key frame",
    file="ucf.avi",
    codec="mpeg4",
    width=320,
    height=240,
    frames=175,
    fps=25,
    bit_rate=1_000_000,
    options={"g": "600", "bf": "2", "sc_threshold": "1000000000"},
)
K340 = Made(
    name="H.264 340x256, 300 frames, GOP 250",
    file="k340.mp4",
    codec="libx264",
    width=340,
    height=256,
    frames=300,
    fps=30,
    bit_rate=1_080_000,
    options={"g": "250", "sc_threshold": "0", "bf": "3"},
)
K720 = Made(
    name="H.264 1280x720, 300 frames, GOP 250",
    file="k720.mp4",
    codec="libx264",
    width=1280,
    height=720,
    frames=300,
    fps=30,
    bit_rate=2_000_000,
    options={"g": "250", "sc_threshold": "0", "bf": "3"},
)


def make(kind: Made, folder: Path) -> Path:
    """Writes a video of `kind` to `folder`."""
    path = folder / kind.file
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=kind.fps, options=kind.options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = kind.width, kind.height, "yuv420p", kind.bit_rate
        for picture in moving_pictures(kind.frames, kind.height, kind.width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def moving_pictures(frames: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    """A background seen by a hand-held camera, six sprites that move over it, and grain: uint8 (H,W,3) each."""
    rng = np.random.RandomState(seed)
    side = int(1.6 * max(height, width))
    background = _texture(side, rng)
    sprites = [_texture(max(16, height // 4), rng) for _ in range(6)]
    starts, speeds = rng.uniform(0, 2 * np.pi, (6, 2)), rng.uniform(0.3, 1.5, (6, 2))
    shake = np.cumsum(rng.normal(0, 0.15, (frames, 2)), axis=0)
    pictures = []
    for t in range(frames):
        now = 2 * np.pi * t / 120
        view = cv2.getRotationMatrix2D((side / 2, side / 2), 0.5 * np.sin(now), 1 + 0.02 * np.sin(0.7 * now))
        view[:, 2] += [(width - side) / 2, (height - side) / 2] + shake[t] + [0.02 * width * np.sin(now), 0]
        picture = cv2.warpAffine(background, view, (width, height))
        for sprite, start, speed in zip(sprites, starts, speeds, strict=True):
            h, w = sprite.shape[:2]
            x, y = ((0.5 + 0.5 * np.sin(start + speed * now)) * [width - w, height - h]).astype(int)
            picture[y : y + h, x : x + w] = sprite
        grain = cv2.randn(np.empty((height, width), np.float32), 0, 1.5)
        pictures.append(np.clip(picture + grain[..., None], 0, 255).astype(np.uint8))
    return pictures


def machine() -> str:
    """The processor and the versions that a figure depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{names[0]} x{len(names)}" if names else platform.processor() or platform.machine()
    return f"{processor}, Python {platform.python_version()}, PyAV {av.__version__}, OpenCV {cv2.__version__}"


def _texture(side: int, rng: np.random.RandomState) -> np.ndarray:
    """float32 (side,side,3): amplitudes that fall as 1/f^1.2, about as in photographs, and more light than colour."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    planes = [
        np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency**1.2, (side, side)) for _ in range(4)
    ]
    light, *colour = (plane / plane.std() for plane in planes)
    return np.stack([rng.uniform(110, 140) + 40 * light + 12 * plane for plane in colour], axis=2).astype(np.float32)
