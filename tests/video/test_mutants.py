"""Damaged files: whatever a plain decode gives of them is read, or a VideoError says why not."""

import csv
import random
from pathlib import Path

import pytest
from making import encode, pack, scene
from mutants import difference, mutant

from vidstill.video import decode
from vidstill.video.decode import FramesMissing, VideoError, count_frames, probe
from vidstill.video.index import read_index

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
    try_mutants(sources, tmp_path, range(40))


def test_mutants_are_many_kinds(sources: list[Path], tmp_path: Path) -> None:
    """Sound enough for a plan, damaged midway, not readable at all: no way of reading is left out."""
    plans = damaged = refused = 0
    for seed in range(40):
        path = mutant(sources, tmp_path, seed)
        try:
            plans += read_index(path).plan is not None
            count_frames(path)
        except FramesMissing:
            damaged += 1
        except VideoError:
            refused += 1
    assert min(plans, damaged, refused) >= 1


def test_the_comparison_notices(sources: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that mixes up two frames, one that reads on behind damage."""
    path = sources[0]
    assert not difference(path, random.Random(0))
    monkeypatch.setattr(decode, "_planned", lambda *args: ((k, f) for (k, _), (_, f) in pairs(*args)))

    def pairs(plan: object, container: object, stream: object, numbers: list[int]) -> object:
        frames = [(n, frame) for n, frame in enumerate(decode._plain(container, stream)) if n in numbers]
        return zip(frames, frames[1:] + frames[:1], strict=True)

    assert "differ" in difference(path, random.Random(0))


SAMPLES = ["cat2.avi", "f93.mkv", "f237.avi", "f1284.mkv", "f3582.mov", "f3955.avi", "f4234.mp4", "f4606.avi"]


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_samples(name: str, shared_data: Path) -> None:
    path = shared_data / "damaged" / name
    assert not difference(path, random.Random(0))
    if name in ("f93.mkv", "f4234.mp4"):
        with pytest.raises(VideoError, match="has pictures of 0x0 pixels"):
            probe(path)


@pytest.mark.slow
def test_many_mutants(sources: list[Path], tmp_path: Path) -> None:
    try_mutants(sources, tmp_path, range(1000, 4000))


@pytest.mark.slow
def test_mutants_of_real_clips(shared_data: Path, tmp_path: Path) -> None:
    with (shared_data / "clips/manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["bytes"]) < 400_000]
    kinds: dict[tuple[str, str], list[Path]] = {}
    for row in rows:
        kinds.setdefault((row["dataset"], row["codec"]), []).append(shared_data / "clips" / row["path"])
    try_mutants([path for paths in kinds.values() for path in paths[:4]], tmp_path, range(1500))
