"""Damaged files: whatever a plain decode gives of them is read, or a VideoError says why not."""

import random
from pathlib import Path

import pytest
from making import encode, pack, scene
from mutants import difference, mutant

PYRAMID = {"bf": 3, "b-pyramid": "normal", "x264-params": "b-adapt=0:scenecut=0"}


@pytest.fixture(scope="session")
def sources(videos: Path) -> list[Path]:
    """Small clips in the forms that the reader tells apart."""
    clip, folder = scene(40, 64, 96), videos / "sources"
    folder.mkdir()
    xvid = encode(folder / "xvid.avi", clip, "mpeg4", bf=2, g=12, b_strategy=0)
    return [
        encode(folder / "h264.mp4", clip, g=12, **PYRAMID),
        encode(folder / "h264.mkv", clip, g=250, **PYRAMID),
        encode(folder / "h264.mov", clip, g=10, bf=0),
        encode(folder / "h264.flv", clip, g=12, bf=2),
        encode(folder / "h264.ts", clip, g=12, bf=2),
        xvid,
        pack(encode(folder / "one.avi", clip, "mpeg4", bf=2, g=250, b_strategy=0), folder / "packed.avi"),
        encode(folder / "mpeg4.mp4", clip, "mpeg4", bf=2, g=10, b_strategy=0),
        encode(folder / "mpeg4.mkv", clip, "mpeg4", g=10),
        encode(folder / "mjpeg.avi", clip, "mjpeg", "yuvj420p"),
        encode(folder / "mjpeg.mov", clip, "mjpeg", "yuvj422p"),
        encode(folder / "vp8.webm", clip, "libvpx", deadline="realtime"),
        encode(folder / "hevc.mkv", clip, "libx265", **{"x265-params": "log-level=none"}),
        encode(folder / "mpeg1.mpg", clip, "mpeg1video", bf=2),
        encode(folder / "ffv1.mkv", clip, "ffv1"),
        encode(folder / "huffyuv.avi", clip, "huffyuv", "yuv422p"),
        encode(folder / "raw.avi", clip[:20], "rawvideo"),
        encode(folder / "scene.gif", clip[:20], "gif", "rgb8"),
    ]


def try_mutants(sources: list[Path], folder: Path, seeds: range) -> None:
    for seed in seeds:
        path = mutant(sources, folder, seed)
        assert not difference(path, random.Random(seed)), f"mutant {seed}, {path}"


def test_mutants(sources: list[Path], tmp_path: Path) -> None:
    try_mutants(sources, tmp_path, range(150))
