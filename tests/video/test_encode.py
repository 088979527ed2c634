"""Writing: what is read back, sizes, time, and that no half-written file is ever seen."""

import resource
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from making import scene

from vidstill.video.decode import VideoError, iter_frames, probe, read_frames
from vidstill.video.encode import VideoWriter, write_video


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("suffix", ["mp4", "gif", "MP4"])
@pytest.mark.parametrize(("height", "width"), [(96, 128), (65, 49), (64, 49)])
def test_what_is_written_is_read_back(suffix: str, height: int, width: int, tmp_path: Path) -> None:
    path, clip = tmp_path / f"clip.{suffix}", scene(12, height, width)
    write_video(path, clip, 12.5)
    info = probe(path)
    even = suffix != "gif"
    assert (info.frames, info.fps) == (12, 12.5)
    assert (info.height, info.width) == ((height + height % 2, width + width % 2) if even else (height, width))
    back = read_frames(path, range(12))
    assert psnr(back[:, :height, :width], clip) > 30
    assert np.abs(back[:, :height, :width].mean((0, 1, 2)) - clip.mean((0, 1, 2))).max() < 2  # no shift of colour
    assert [frame.seconds for frame in iter_frames(path)] == pytest.approx([i / 12.5 for i in range(12)])
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_an_odd_edge_is_repeated(tmp_path: Path) -> None:
    clip = np.full((3, 33, 33, 3), (30, 90, 200), np.uint8)
    write_video(tmp_path / "odd.mp4", clip, 5)
    assert np.abs(read_frames(tmp_path / "odd.mp4", [1])[0].astype(int) - (30, 90, 200)).max() < 6


def test_an_mp4_plays_while_it_loads_and_names_its_colours(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", scene(5), 25)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.colorspace, codec.color_range) == ("h264", "yuv420p", 5, 1)


def test_options_reach_the_encoder(tmp_path: Path) -> None:
    sizes = {}
    for crf, gop in ((10, 4), (40, 30)):
        with VideoWriter(tmp_path / "clip.mp4", 25, crf=crf, gop=gop, preset="ultrafast") as writer:
            for frame in scene(30):
                writer.write(frame)
        with av.open(str(tmp_path / "clip.mp4")) as container:
            keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
        assert np.flatnonzero(keys).tolist() == list(range(0, 30, gop))
        sizes[crf] = (tmp_path / "clip.mp4").stat().st_size
    assert sizes[40] < sizes[10] / 3


@pytest.mark.parametrize("fps", [29.97, 30000 / 1001, 23.976, 0.5, 240])
def test_rates(fps: float, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", scene(6), fps)
    assert probe(tmp_path / "clip.mp4").fps == pytest.approx(fps, rel=1e-5)


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_an_error_leaves_the_old_file_and_nothing_else(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="midway"), VideoWriter(path, 25) as writer:
        writer.write(scene(1)[0])
        raise RuntimeError("midway")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk(tmp_path: Path) -> None:
    """As far as a process can pretend: its files may not grow beyond 20 kB."""
    noise = np.random.default_rng(0).integers(0, 255, (10, 128, 128, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(VideoError, match=r"clip\.mp4: cannot be written: file too large"):
            write_video(tmp_path / "clip.mp4", noise, 25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


WRONG: list[tuple[Callable[[Path], None], str]] = [
    (lambda folder: write_video(folder / "clip.mkv", [], 25), "as .mp4 or .gif, not .mkv"),
    (lambda folder: write_video(folder / "clip", [], 25), "not without a suffix"),
    (lambda folder: write_video(folder / "clip.mp4", [], 0), "fps 0: give a number above 0"),
    (lambda folder: write_video(folder / "clip.mp4", [], 25), "no frame was given"),
    (lambda folder: write_video(folder / "none/clip.mp4", scene(1), 25), "no such file or directory"),
    (lambda folder: write_video(folder / "clip.mp4", scene(1).astype(float), 25), "give uint8"),
    (lambda folder: write_video(folder / "clip.gif", scene(1)[..., 0], 25), "give uint8"),
    (lambda folder: write_video(folder / "clip.mp4", [scene(1)[0], scene(1, 48)[0]], 25), "give one size"),
]


@pytest.mark.parametrize(("write", "message"), WRONG)
def test_wrong_input_is_refused_and_leaves_nothing(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path)
    assert not list(tmp_path.iterdir())
