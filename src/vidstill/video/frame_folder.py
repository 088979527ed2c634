"""Folders of numbered pictures, one for each frame, that are read as videos."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from vidstill.video.pixels import Box, Draw
from vidstill.video.source import ASSUMED_FPS, FramesMissing, VideoError, VideoInfo

# img_00001.jpg, image_00001.jpg, frame_000001.jpg, 00001.jpg, 0.png; optical flow may lie beside them
_FRAME = re.compile(r"(?!flow_|[xy]_)([A-Za-z]*[_-]?)(\d+)\.(jpe?g|png|bmp|webp)", re.IGNORECASE)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_LOOKED_AT = 16  # entries of a folder after which it is none of frames

# Decoding a JPEG at 1/2, 1/4 or 1/8 leaves out the high frequencies that resizing would throw away
_REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))
_END = b"\xff\xd9"  # of a JPEG


def is_frame_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds numbered pictures, and pictures alone; looks at its first entries only."""
    try:
        with os.scandir(path) as entries:
            names = [entry.name for _, entry in zip(range(_LOOKED_AT), entries, strict=False)]
        files = [name for name in names if "." in name[1:]]
        return any(map(_FRAME.fullmatch, files)) and all(name.lower().endswith(_SUFFIXES) for name in files)
    except (OSError, ValueError):
        return False


class _Pictures(NamedTuple):
    names: list[str]
    height: int
    width: int
    codec: str


def probe_folder(path: Path, fps: float | None = None) -> VideoInfo:
    """Frames and size from the names and the first picture. Raises VideoError for a gap in the numbers."""
    pictures = _scan(os.fspath(path), path.stat().st_mtime_ns)
    rate = fps or ASSUMED_FPS
    return VideoInfo(len(pictures.names), rate, pictures.width, pictures.height, 0, pictures.codec)


def read_folder(path: Path, slots: dict[int, list[int]], draw: Draw) -> np.ndarray:
    """The clip, from frame number → its places in the clip; only the pictures that are wanted are opened."""
    pictures = _scan(os.fspath(path), path.stat().st_mtime_ns)
    if max(slots) >= len(pictures.names):
        raise FramesMissing(f"{path}: holds {len(pictures.names)} frames; frame {max(slots)} was asked for",
                            len(pictures.names))  # fmt: skip
    draw.begin(pictures.height, pictures.width)
    clip = np.empty((sum(map(len, slots.values())), *draw.size, 3), np.uint8)
    for number, places in slots.items():
        file = path / pictures.names[number]
        reduced = _reduction(draw.box, draw.size) if file.suffix.lower() in (".jpg", ".jpeg") else 1
        pixels = _checked(_decode(file, reduced), file, pictures, reduced)
        draw.draw(pixels, clip[places[0]], reduced)
        clip[places[1:]] = clip[places[0]]
    return clip


def iter_folder(path: Path) -> Iterator[np.ndarray]:
    """Every frame (H,W,3) uint8 RGB in its order. Raises VideoError for one that is damaged or of another size."""
    pictures = _scan(os.fspath(path), path.stat().st_mtime_ns)
    for name in pictures.names:
        yield _checked(_decode(path / name), path / name, pictures)


def pictures_of(path: Path) -> list[Path]:
    """The pictures of a frame folder in their order. Raises VideoError."""
    return [path / name for name in _scan(os.fspath(path), path.stat().st_mtime_ns).names]


@lru_cache(maxsize=8192)
def _scan(path: str, mtime: int) -> _Pictures:
    series: dict[tuple[str, str], dict[int, str]] = {}
    with os.scandir(path) as entries:
        for entry in entries:
            if named := _FRAME.fullmatch(entry.name):
                numbers = series.setdefault((named[1], named[3].lower()), {})
                if (other := numbers.setdefault(int(named[2]), entry.name)) != entry.name:
                    raise VideoError(f"{path}: {other} and {entry.name} are one frame: keep one of them")
    if not series:
        raise VideoError(f"{path}: a folder without numbered pictures (img_00001.jpg, image_00001.jpg, 00001.jpg)")
    if len(series) > 1:
        names = " and ".join(sorted(next(iter(numbers.values())) for numbers in series.values())[:2])
        raise VideoError(f"{path}: holds several series of pictures, {names}: give each its own folder")
    (numbers,) = series.values()
    first, last = min(numbers), max(numbers)
    if first > 1:
        raise VideoError(f"{path}: the first frame is {numbers[first]}: frames are counted from 0 or 1")
    if len(numbers) < last - first + 1:
        gap = next(number for number in range(first, last) if number not in numbers)
        raise VideoError(
            f"{path}: {last - first + 1 - len(numbers)} of the frames up to {numbers[last]} are missing, the first is "
            f"number {gap}: extract the frames again"
        )
    file = Path(path) / numbers[first]
    try:
        with Image.open(file) as picture:
            width, height, codec = *picture.size, (picture.format or "").lower()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"{file}: not a picture: {' '.join(str(error).split())[:100]}") from None
    return _Pictures([numbers[number] for number in sorted(numbers)], height, width, codec)


def _decode(file: Path, reduced: int = 1) -> np.ndarray:
    """(H,W,3) uint8 RGB, of 1/`reduced` of its sides, rounded up."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise VideoError(f"{file}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    jpeg = data[:2] == b"\xff\xd8"
    if not jpeg or _END in data[-1024:]:  # OpenCV fills up what a JPEG lacks without a word
        flag = dict(_REDUCED)[reduced] if reduced > 1 else cv2.IMREAD_COLOR
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
        if pixels is not None:
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{file}: a damaged picture: {' '.join(str(error).split())[:100]}") from None
    return pixels[::reduced, ::reduced] if reduced > 1 else pixels


def _checked(pixels: np.ndarray, file: Path, pictures: _Pictures, reduced: int = 1) -> np.ndarray:
    height, width = -(-pictures.height // reduced), -(-pictures.width // reduced)
    if pixels.shape[:2] != (height, width):
        raise VideoError(
            f"{file}: is {pixels.shape[1] * reduced}x{pixels.shape[0] * reduced}, the first frame is "
            f"{pictures.width}x{pictures.height}: bring all frames of a folder to one size"
        )
    return pixels


def _reduction(box: Box | None, size: Sequence[int]) -> int:
    """By how much a picture can be decoded smaller and its crop still has the pixels that are wanted."""
    if box is None:
        return 1
    height, width = box[3] - box[1], box[2] - box[0]
    return next((by for by, _ in _REDUCED if height >= by * size[0] and width >= by * size[1]), 1)
