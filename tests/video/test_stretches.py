"""Stretches of videos: the frames whose time stamps lie in them, found without decoding from the beginning."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import encode, plain_decode, scene

from vidstill.video import decode
from vidstill.video.decode import FramesMissing, Video, VideoError, iter_frames, probe, read_frames

CLIP = scene(90)


def times(path: Path) -> np.ndarray:
    """Seconds of every frame after the first, by PyAV's decoder."""
    with av.open(str(path)) as container:
        stamps = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]  # type: ignore[operator]
    return np.array(stamps) - stamps[0]


@pytest.fixture(scope="session")
def made(videos: Path) -> dict[str, Path]:
    folder = videos / "stretches"
    folder.mkdir()
    uneven = np.cumsum(np.random.default_rng(0).integers(1, 9, len(CLIP))).tolist()
    return {
        "h264": encode(folder / "h264.mp4", CLIP, g=12, bf=2),
        "one group": encode(folder / "group.mp4", CLIP, g=250),
        "mpeg4": encode(folder / "mpeg4.avi", CLIP, "mpeg4", g=12),
        "vp9": encode(folder / "vp9.webm", CLIP, "libvpx-vp9", g=12, **{"cpu-used": 8, "deadline": "realtime"}),
        "vp8": encode(folder / "vp8.webm", CLIP, "libvpx", g=12, **{"cpu-used": 8, "deadline": "realtime"}),
        "hevc": encode(folder / "hevc.mp4", CLIP, "libx265", **{"x265-params": "keyint=12:log-level=none"}),
        "mpeg2": encode(folder / "mpeg2.mpg", CLIP, "mpeg2video", g=12, bf=2),
        "uneven": encode(folder / "uneven.mp4", CLIP, g=12, bf=2, pts=uneven, time_base=Fraction(1, 100)),
    }


CODECS = ("h264", "one group", "mpeg4", "vp9", "vp8", "hevc", "mpeg2", "uneven")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("start", "end"), [(0, 0.5), (1.3, 2.2), (2.96, None), (0.02, 0.03), (3.1, 99)])
def test_frames_are_those_of_the_time_stamps(
    made: dict[str, Path], codec: str, start: float, end: float | None
) -> None:
    path = made[codec]
    seconds, expected = times(path), plain_decode(path)
    inside = [n for n, at in enumerate(seconds) if start - 1e-6 <= at < (np.inf if end is None else end) - 1e-6]
    inside = inside or [int(np.searchsorted(seconds, start))]  # at least one
    video = Video(path, start, end)
    assert probe(video).frames == len(inside)
    read = read_frames(video, range(len(inside)))
    assert np.array_equal(read, np.stack([expected[n] for n in inside]))
    assert np.array_equal(np.stack([frame.pixels for frame in iter_frames(video)]), read)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec not in ("one group", "mpeg2")])
def test_the_file_is_sought(made: dict[str, Path], codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out of the decoder for two frames late in the file is a small part of it.

    But for program streams (MPEG-2 here), in which FFmpeg does not find a frame again.
    """
    decoded = 0

    def counted(frames: Any) -> Any:
        def counting(*args: Any) -> Iterator[Any]:
            nonlocal decoded
            for frame in frames(*args):
                decoded += 1
                yield frame

        return counting

    monkeypatch.setattr(decode, "_plain", counted(decode._plain))
    video = Video(made[codec], 3.0)
    read_frames(video, [0, 4])
    assert decoded <= 20


@given(start=st.floats(0, 3.5), length=st.floats(0.001, 2))
def test_stretches_that_follow_each_other_are_the_whole(made: dict[str, Path], start: float, length: float) -> None:
    path = made["uneven"]
    parts = [
        Video(path, 0, start) if start > 0 else None,
        Video(path, start, start + length),
        Video(path, start + length),
    ]
    seconds = decode.read_index(path).seconds
    assert seconds is not None
    counts = []
    for part in filter(None, parts):
        try:
            counts.append(probe(part).frames)
        except VideoError:
            assert part.start >= seconds[-1]
    inside = ((seconds >= start) & (seconds < start + length)).sum()
    assert sum(counts) >= len(CLIP)  # one more where a part shows none and gets one
    assert sum(counts) <= len(CLIP) + 2
    assert inside in (counts[1 if start > 0 else 0], 0) or abs(inside - counts[1 if start > 0 else 0]) <= 1


def test_more_frames_than_it_has(made: dict[str, Path]) -> None:
    with pytest.raises(FramesMissing, match="frame 25 was asked for") as missing:
        read_frames(Video(made["h264"], 1, 2), [25])
    assert missing.value.available == 25


def test_beyond_the_end(made: dict[str, Path]) -> None:
    with pytest.raises(VideoError, match=r"begins at 9\.5 s, but the video ends after 3\.60 s"):
        probe(Video(made["h264"], 9.5, 12))


def test_damage_before_and_in_the_stretch(made: dict[str, Path], tmp_path: Path) -> None:
    """A file that was cut: frames that are missing are counted from the beginning of the stretch."""
    cut = tmp_path / "cut.avi"
    cut.write_bytes(made["mpeg4"].read_bytes()[: made["mpeg4"].stat().st_size * 2 // 3])
    there = len(plain_decode(cut))
    with pytest.raises((FramesMissing, VideoError)) as missing:
        read_frames(Video(cut, 1.0, 3.5), [0, 62])
    if isinstance(missing.value, FramesMissing):
        assert missing.value.available == there - 25


def test_the_name_of_a_stretch_is_read_as_one(tmp_path: Path) -> None:
    """As predictions.csv has it: it may be given wherever a video is; a file of that very name is itself."""
    path = encode(tmp_path / "a.mp4", scene(30))
    named = f"{path}#t=0.4,0.8"
    whole, part = [f.pixels for f in iter_frames(path)], [f.pixels for f in iter_frames(named)]
    assert np.array_equal(part, whole[10:20]) and probe(named).frames == 10
    assert np.array_equal(read_frames(named, [0, 9]), [whole[10], whole[19]])
    Path(named).write_bytes(path.read_bytes())
    assert probe(named).frames == 30


@pytest.mark.parametrize(
    "text", ["a.mp4", "a b#c.mp4", "a.mp4#t=3.2,7.5", "x/a.mp4#t=3,", "a#t=1,2.mp4", "a#t=0.5,0.75"]
)
def test_as_text_and_back(text: str) -> None:
    assert str(Video.parse(text)) == text


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="it ends after its start"):
        Video(Path("a.mp4"), 3, 2)


def test_real_clips_of_every_codec(shared_data: Path) -> None:
    for name in ("kinetics400", "decode_edge", "ucf101", "ucf11", "activitynet"):
        for path in sorted((shared_data / "clips" / name).rglob("*.*")):
            try:
                info = probe(path)
                if info.frames < 40 or path.suffix == ".csv":
                    continue
                seconds = decode.read_index(path).seconds
                start = info.seconds * 0.6
                shown = probe(Video(path, start)).frames
                read = read_frames(Video(path, start), [0, 3], short_side=32)
                plain = read_frames(path, [info.frames - shown, info.frames - shown + 3], short_side=32)
            except VideoError:
                continue
            assert np.array_equal(read, plain), path
            if seconds is not None:
                assert seconds[info.frames - shown] >= start - 1e-6 > seconds[info.frames - shown - 1], path
