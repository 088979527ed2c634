"""Reading: frames equal a plain decode however little is decoded, and bad files end in one clear line."""

import gc
import logging
import os
import pickle
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import combed, encode, pack, plain_decode, scene
from mutants import difference

from vidstill.video import decode, index
from vidstill.video.decode import FramesMissing, VideoError, count_frames, iter_frames, probe, read_frames
from vidstill.video.index import frame_rate, open_video

LENGTH = 75


@pytest.fixture(scope="session")
def made(videos: Path) -> dict[str, Path]:
    """One scene in the forms that the reader tells apart."""
    clip = scene(LENGTH)
    xvid = encode(videos / "xvid.avi", clip, "mpeg4", bf=2, g=250, b_strategy=0)
    pyramid = {"bf": 3, "b-pyramid": "normal", "x264-params": "b-adapt=0"}
    return {
        "h264": encode(videos / "pyramid.mp4", clip, g=250, **pyramid),
        "h264-groups": encode(videos / "groups.mkv", clip, g=12, **pyramid),
        "h264-open": encode(videos / "open.mp4", clip, g=12, **(pyramid | {"x264-params": "b-adapt=0:open-gop=1"})),
        "h264-10bit": encode(videos / "deep.mp4", clip, pix_fmt="yuv420p10le", g=20),
        "h264-flv": encode(videos / "h264.flv", clip, g=25, bf=2),
        "h264-ts": encode(videos / "h264.ts", clip, g=25, bf=2),
        "hevc": encode(videos / "hevc.mp4", clip, "libx265", **{"x265-params": "log-level=none:bframes=3"}),
        "xvid": xvid,
        "xvid-packed": pack(xvid, videos / "packed.avi"),
        "xvid-groups": encode(videos / "xvid12.avi", clip, "mpeg4", bf=2, g=12, b_strategy=0),
        "xvid-plain": encode(videos / "xvid0.avi", clip, "mpeg4", g=12),
        "xvid-fields": encode(
            videos / "fields.avi", combed(clip), "mpeg4", bf=2, g=12, b_strategy=0, flags="+ildct+ilme"
        ),
        "raw": encode(videos / "raw.avi", clip[:, ::2, ::2], "rawvideo"),
        "mjpeg": encode(videos / "mjpeg.avi", clip, "mjpeg", "yuvj420p"),
        "vp8": encode(
            videos / "vp8.webm", clip, "libvpx", **{"auto-alt-ref": 1, "lag-in-frames": 16, "deadline": "realtime"}
        ),
        "mpeg1": encode(videos / "mpeg1.mpg", clip, "mpeg1video", bf=2),
        "gif": encode(videos / "scene.gif", clip[:20], "gif", "rgb8"),
    }


@pytest.fixture(scope="session")
def plain(made: dict[str, Path]) -> dict[str, list[np.ndarray]]:
    return {name: plain_decode(path) for name, path in made.items()}


PLANNED = [
    "h264",
    "h264-groups",
    "h264-open",
    "h264-10bit",
    "h264-flv",
    "xvid",
    "xvid-packed",
    "xvid-groups",
    "xvid-plain",
    "raw",
    "mjpeg",
]
UNPLANNED = ["xvid-fields", "h264-ts", "hevc", "vp8", "mpeg1", "gif"]


@pytest.mark.parametrize("name", PLANNED + UNPLANNED)
def test_every_frame_equals_the_plain_decode(
    name: str, made: dict[str, Path], plain: dict[str, list[np.ndarray]]
) -> None:
    truth = np.stack(plain[name])
    assert probe(made[name]).frames == count_frames(made[name]) == len(truth)
    assert (probe(made[name]).height, probe(made[name]).width) == truth.shape[1:3]
    assert (read_frames(made[name], range(len(truth))) == truth).all()
    assert (np.stack([frame.pixels for frame in iter_frames(made[name])]) == truth).all()


def test_packing_changes_no_frame(plain: dict[str, list[np.ndarray]], made: dict[str, Path]) -> None:
    assert all((a == b).all() for a, b in zip(plain["xvid"], plain["xvid-packed"], strict=True))
    with av.open(str(made["xvid-packed"])) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps != sorted(stamps)  # so that this file is the trap it is meant to be


@pytest.mark.parametrize("name", PLANNED)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.integers(0, LENGTH - 1), min_size=1, max_size=12))
def test_any_selection_equals_the_plain_decode(
    name: str,
    wanted: list[int],
    made: dict[str, Path],
    plain: dict[str, list[np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "_plain", None)  # the short way must do
    assert (read_frames(made[name], wanted) == np.stack([plain[name][i] for i in wanted])).all()


@pytest.mark.parametrize(
    ("name", "wanted", "most"),
    [
        ("h264", [70], 40),  # a pyramid of 3 B-frames: half of the pictures are references
        ("h264-groups", [70], 12),
        ("h264-groups", [2, 40], 14),
        ("xvid-packed", range(0, 75, 3), 40),
        ("xvid-groups", [73], 12),
        ("raw", [1, 70], 2),
        ("mjpeg", [1, 70], 2),
    ],
)
def test_only_needed_packets_are_decoded(
    name: str, wanted: list[int], most: int, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = []
    original = decode._fed
    monkeypatch.setattr(decode, "_fed", lambda *args: (fed.append(packet) or packet for packet in original(*args)))
    read_frames(made[name], wanted)
    assert 0 < len([packet for packet in fed if packet is not None]) <= most


def test_order_and_repeats_of_indices_are_kept(made: dict[str, Path], plain: dict[str, list[np.ndarray]]) -> None:
    wanted = np.array([30, 3, 30, 74, 0])
    assert (read_frames(made["h264"], wanted) == np.stack([plain["h264"][i] for i in wanted])).all()


def test_a_seek_far_into_a_long_file_is_exact(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(videos / "long.mp4", scene(300, 48, 64), g=20, bf=2)
    truth = plain_decode(path)
    monkeypatch.setattr(decode, "_plain", None)
    read: list[int] = []
    original = decode.packets
    monkeypatch.setattr(decode, "packets", lambda *args: (read.append(p.size) or p for p in original(*args)))
    for wanted in ([299], [5, 290], [150, 151, 250], list(range(0, 300, 50))):
        read.clear()
        assert (read_frames(path, wanted) == np.stack([truth[i] for i in wanted])).all()
        assert len(read) < 200


def test_time_stamps_that_contradict_the_pictures_are_not_trusted(videos: Path) -> None:
    """The decoder shows pictures in their own order, whatever the container says."""
    path = videos / "swapped.mp4"
    with av.open(str(encode(videos / "swap.mp4", scene(20), bf=2, g=250))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        packets[7].pts, packets[8].pts = packets[8].pts, packets[7].pts
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
    truth = plain_decode(path)
    for i in range(len(truth)):
        assert (read_frames(path, [i])[0] == truth[i]).all()


@pytest.mark.parametrize("name", ["h264", "xvid-packed", "hevc"])
def test_frames_beyond_the_end_are_missing(name: str, made: dict[str, Path]) -> None:
    with pytest.raises(FramesMissing, match=f"ends before frame {LENGTH}; frame {LENGTH + 5} was asked for") as caught:
        read_frames(made[name], [3, LENGTH + 5])
    assert caught.value.available == LENGTH


def test_short_side_is_opencv_on_rgb(made: dict[str, Path], plain: dict[str, list[np.ndarray]]) -> None:
    got = read_frames(made["h264"], [10, 20], short_side=56)
    expected = [cv2.resize(plain["h264"][i], (75, 56), interpolation=cv2.INTER_LINEAR) for i in (10, 20)]
    assert (got == np.stack(expected)).all()
    assert read_frames(made["h264"], [10], short_side=96).tobytes() == plain["h264"][10].tobytes()


FORMS = {
    "limited": ("libx264", "yuv420p", "mp4", {"crf": 4}),
    "bt709": ("libx264", "yuv420p", "mp4", {"crf": 4, "colorspace": 1}),
    "full": ("libvpx-vp9", "yuv420p", "mp4", {"color_range": 2, "deadline": "realtime", "cpu-used": 8, "b": 3000000}),
    "j420": ("mjpeg", "yuvj420p", "avi", {"qmin": 2, "qmax": 2}),
    "j422": ("mjpeg", "yuvj422p", "avi", {"qmin": 2, "qmax": 2}),
    "444": ("libx264", "yuv444p", "mp4", {"crf": 4}),
    "10-bit": ("libx264", "yuv420p10le", "mp4", {"crf": 4}),
}


@pytest.mark.parametrize("form", FORMS)
def test_crop_on_the_planes_is_close_to_the_crop_on_rgb(form: str, videos: Path) -> None:
    """On smooth content, where half a pixel of chroma is worth little; range and matrix errors are worth 5 and more."""
    y, x = np.mgrid[:120, :160]
    smooth = [np.stack([x + 40, y + 2 * t + 60, 200 - x], -1).astype(np.uint8) for t in range(8)]
    codec, pix_fmt, suffix, options = FORMS[form]
    path = encode(videos / f"smooth-{form}.{suffix}", smooth, codec, pix_fmt, **options)
    truth = plain_decode(path)
    assert np.abs(truth[3].astype(int) - smooth[3]).mean() < 3
    for x1, y1, x2, y2 in ((0, 0, 160, 120), (33, 17, 94, 101), (40, 20, 60, 40), (10, 11, 159, 119)):
        for size in ((64, 64), (90, 75), (112, 112)):
            got = read_frames(path, [3], box=(x1, y1, x2, y2), size=size)[0]
            expected = cv2.resize(truth[3][y1:y2, x1:x2], size[::-1], interpolation=cv2.INTER_LINEAR)
            assert np.abs(got.astype(int) - expected).mean() < 1.5, (x1, y1, x2, y2, size)


def test_crop_of_a_rotated_video_is_the_crop_as_displayed(videos: Path) -> None:
    path = encode(videos / "turned-crop.mp4", scene(5), rotation=(90, False))
    upright = read_frames(path, [2])[0]
    expected = cv2.resize(upright[20:100, 10:70], (48, 40), interpolation=cv2.INTER_LINEAR)
    assert (read_frames(path, [2], box=(10, 20, 70, 100), size=(40, 48))[0] == expected).all()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_and_sizes_are_as_displayed(degrees: int, mirrored: bool, videos: Path) -> None:
    path = encode(videos / f"turn{degrees}{mirrored}.mp4", scene(4), rotation=(degrees, mirrored))
    expected = [np.rot90(frame, degrees // 90) for frame in plain_decode(path)]
    expected = [frame[:, ::-1] if mirrored else frame for frame in expected]
    info = probe(path)
    assert (read_frames(path, range(4)) == np.stack(expected)).all()
    assert (info.height, info.width) == expected[0].shape[:2]
    assert mirrored or info.rotation == -degrees % 360


def test_variable_frame_rate(videos: Path) -> None:
    stamps = [0, 33, 50, 51, 200, 210, 400, 1000, 1001, 1500]
    path = encode(videos / "vfr.mp4", scene(10), pts=stamps, time_base=Fraction(1, 1000), bf=2)
    truth = plain_decode(path)
    assert (read_frames(path, range(10)) == np.stack(truth)).all()
    assert [round(frame.seconds * 1000) for frame in iter_frames(path)] == stamps


def test_an_absurd_time_stamp_spoils_neither_count_nor_rate(videos: Path) -> None:
    stamps = [*range(0, 29 * 40, 40), 2**31]
    path = encode(videos / "absurd.mkv", scene(30), pts=stamps, time_base=Fraction(1, 1000), g=10)
    info = probe(path)
    assert info.frames == 30 and info.fps == pytest.approx(25)
    assert (read_frames(path, [0, 13, 29]) == np.stack(plain_decode(path))[[0, 13, 29]]).all()


@pytest.mark.parametrize(("codec", "pix_fmt", "suffix"), [("mjpeg", "yuvj420p", "avi"), ("libvpx", "yuv420p", "webm")])
def test_odd_sizes(codec: str, pix_fmt: str, suffix: str, videos: Path) -> None:
    path = encode(videos / f"odd.{suffix}", scene(4, 65, 49), codec, pix_fmt)
    truth = np.stack(plain_decode(path))
    assert truth.shape == (4, 65, 49, 3)
    assert (read_frames(path, range(4)) == truth).all()
    expected = cv2.resize(truth[1][3:64, 5:48], (33, 31), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(read_frames(path, [1], box=(5, 3, 48, 64), size=(31, 33))[0] - expected).mean() < 4


def test_a_size_that_changes_midway_is_brought_to_the_first(videos: Path) -> None:
    path = videos / "two-sizes.mjpeg"
    parts = [encode(videos / f"{side}.mjpeg", scene(3, side, side), "mjpeg", "yuvj420p") for side in (64, 32)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    truth = [cv2.resize(frame, (64, 64), interpolation=cv2.INTER_LINEAR) for frame in plain_decode(path)]
    assert (read_frames(path, range(6)) == np.stack(truth)).all()
    assert read_frames(path, range(6), box=(3, 3, 60, 60), size=(20, 20)).shape == (6, 20, 20, 3)


@pytest.mark.parametrize("name", ["with space.mp4", "видео-動画.mp4", "a:b.mp4", "100%d.mp4", "-i.mp4", "http:x.mp4"])
def test_any_file_name(name: str, videos: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (videos / name).write_bytes(made["h264"].read_bytes())
    monkeypatch.chdir(videos)
    assert probe(name).frames == len(list(iter_frames(name))) == LENGTH


def test_a_changed_file_is_scanned_anew(videos: Path, made: dict[str, Path]) -> None:
    path = videos / "changing.avi"
    path.write_bytes(made["xvid"].read_bytes())
    assert probe(path).frames == LENGTH
    encode(path, scene(9), "mpeg4")
    assert probe(path).frames == 9


BAD_ARGUMENTS = [
    ({"indices": []}, "at least one frame number"),
    ({"indices": [-1]}, "each 0 or more"),
    ({"box": (0, 0, 9, 9)}, "box together with size"),
    ({"box": (0, 0, 9, 9), "size": (9, 9), "short_side": 9}, "box together with size"),
    ({"box": (5, 0, 5, 9), "size": (9, 9)}, "is empty or leaves the frame of 128x96"),
    ({"box": (0, 0, 200, 9), "size": (9, 9)}, "is empty or leaves the frame of 128x96"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str, made: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=message):
        read_frames(made["h264"], **({"indices": [0]} | arguments))


def _text(path: Path) -> None:
    path.write_text("not a video\n" * 100)


def _sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


UNREADABLE = [
    ("none.mp4", lambda path: None, "cannot be opened: no such file"),
    ("text.mp4", _text, "not a video that FFmpeg reads"),
    ("readme.txt", _text, "holds no video"),
    ("empty.mp4", lambda path: path.write_bytes(b""), "is empty"),
    ("folder.mp4", lambda path: path.mkdir(), "is a folder"),
    ("sound.wav", _sound, "holds no video"),
    ("zeros.avi", lambda path: path.write_bytes(bytes(5000)), "not a video that FFmpeg reads"),
]


@pytest.mark.parametrize(("name", "write", "message"), UNREADABLE)
def test_what_is_no_video_says_so_in_one_line(name: str, write: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path)
    for read in (probe, count_frames, lambda path: read_frames(path, [0]), lambda path: list(iter_frames(path))):
        with pytest.raises(VideoError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_path_that_cannot_be_a_path() -> None:
    with pytest.raises(VideoError, match="null"):
        probe("a\0b.mp4")


def test_no_permission(tmp_path: Path, made: dict[str, Path]) -> None:
    path = tmp_path / "private.mp4"
    path.write_bytes(made["h264"].read_bytes())
    path.chmod(0)
    if os.geteuid():
        with pytest.raises(VideoError, match="permission denied"):
            probe(path)
        return
    reading, writing = os.pipe()  # root reads everything, so a child gives root up
    if not (child := os.fork()):
        message = "read it"
        try:
            for folder in (tmp_path, *tmp_path.parents[:3]):
                folder.chmod(0o755)
            os.setuid(65534)
            probe(path)
        except BaseException as error:
            message = repr(error)
        os.write(writing, message.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "VideoError" in (said := os.read(reading, 4096).decode()) and "permission denied" in said


@pytest.mark.parametrize(("name", "keep"), [("h264-flv", 0.5), ("xvid-packed", 0.6), ("mjpeg", 0.3), ("vp8", 0.7)])
def test_a_truncated_file(
    name: str, keep: float, videos: Path, made: dict[str, Path], plain: dict[str, list[np.ndarray]]
) -> None:
    """What is left is read as before; the rest is missing, and by how much is told."""
    data = made[name].read_bytes()
    path = videos / f"cut-{made[name].name}"
    path.write_bytes(data[: int(len(data) * keep)])
    try:
        available = count_frames(path)
    except FramesMissing as error:
        available = error.available
    assert 0.2 * LENGTH < available < LENGTH
    whole = available - 5  # the last picture, and those that lean on it, may be damaged
    assert (read_frames(path, range(whole)) == np.stack(plain[name][:whole])).all()
    assert len(list(iter_frames(path))) == available
    with pytest.raises(FramesMissing, match=f"frame {LENGTH - 1} was asked for") as caught:
        read_frames(path, [0, LENGTH - 1])
    assert caught.value.available == available


@pytest.fixture(scope="session")
def damaged(videos: Path, made: dict[str, Path]) -> Path:
    """The packets of the H.264 file from the 40th on are noise."""
    path = videos / "damaged.mp4"
    with av.open(str(made["h264"])) as container:
        positions = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(made["h264"].read_bytes())
    rng = np.random.default_rng(0)
    for position, size in positions[40:]:
        data[position : position + size] = rng.bytes(size)
    path.write_bytes(data)
    return path


def test_damage_midway_ends_the_video(
    damaged: Path, plain: dict[str, list[np.ndarray]], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(FramesMissing, match=r"damaged at frame \d+: invalid data") as caught:
        count_frames(damaged)
    available = caught.value.available
    assert 30 < available <= 40
    with caplog.at_level(logging.WARNING):
        frames = list(iter_frames(damaged))
    assert len(frames) == available and "damaged at frame" in caplog.text
    assert (read_frames(damaged, range(30)) == np.stack(plain["h264"][:30])).all()
    with pytest.raises(FramesMissing) as caught:
        read_frames(damaged, [0, 70])
    assert caught.value.available == available
    assert capfd.readouterr().err == ""  # FFmpeg keeps quiet


def test_damage_from_the_start_is_an_error(videos: Path, made: dict[str, Path]) -> None:
    path = videos / "noise.mp4"
    data = bytearray(made["h264"].read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = data[start:].replace(data[start + 8 : start + 4000], bytes(3992))
    with av.open(str(made["h264"])) as container:
        for packet in container.demux(video=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    for read in (count_frames, lambda path: read_frames(path, [0]), lambda path: list(iter_frames(path))):
        with pytest.raises(VideoError, match="not one frame decodes: invalid data"):
            read(path)


def test_a_recording_that_starts_amid_a_stream(videos: Path, made: dict[str, Path]) -> None:
    """Its first packets lack their references: frames begin at the next key frame."""
    data = made["h264-ts"].read_bytes()
    path = videos / "joined.ts"
    path.write_bytes(data[: 3 * 188] + data[len(data) // 4 // 188 * 188 :])
    count = count_frames(path)
    assert 25 <= count < LENGTH
    assert len(read_frames(path, range(count))) == len(list(iter_frames(path))) == count


def test_nothing_stays_open(made: dict[str, Path], damaged: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc on this system")
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        read_frames(made["h264"], [1])
        next(iter_frames(made["h264"]))
        with pytest.raises(FramesMissing):
            read_frames(damaged, [70])
    assert len(list(descriptors.iterdir())) == before


def test_no_decoded_picture_outlives_the_reading(made: dict[str, Path]) -> None:
    """Without the help of the garbage collector: in a cycle they would pile up by the megabyte."""
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
        read_frames(made["h264"], [1, 50], box=(3, 3, 90, 90), size=(32, 32))
        read_frames(made["xvid-packed"], [1, 50], short_side=32)
        assert sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()) == before
    finally:
        gc.enable()


def test_missing_frames_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(FramesMissing("a.mp4: ends before frame 3", 3)))
    assert (type(error), str(error), error.available) == (FramesMissing, "a.mp4: ends before frame 3", 3)


def test_interlaced_b_pictures(made: dict[str, Path], plain: dict[str, list[np.ndarray]]) -> None:
    """How FFmpeg reads one depends on the first one that it has read."""
    for i in range(LENGTH):
        assert (read_frames(made["xvid-fields"], [i])[0] == plain["xvid-fields"][i]).all()


@pytest.mark.parametrize("name", ["xvid", "xvid-packed", "xvid-groups", "h264-groups", "mjpeg"])
@pytest.mark.parametrize("other", ["xvid-groups", "h264", "mjpeg", "same"])
def test_two_videos_in_one_file(name: str, other: str, videos: Path, made: dict[str, Path]) -> None:
    """Byte by byte; FFmpeg reads some containers on behind their end."""
    first, second = made[name], made[name if other == "same" else other]
    path = videos / f"joined{first.suffix}"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert not difference(path, random.Random(0))


@pytest.mark.parametrize("sizes", [((96, 128), (96, 128)), ((96, 128), (64, 96))])
@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_two_videos_in_one_stream(codec: str, sizes: tuple[tuple[int, int], ...], videos: Path) -> None:
    """One goes on where another ends: times begin anew, or the size changes."""
    path, number = videos / "stream.avi", 0
    pix_fmt, options = ("yuvj420p", {}) if codec == "mjpeg" else ("yuv420p", {"bf": 2, "g": 8, "b_strategy": 0})
    parts = [encode(videos / f"{side}.avi", scene(20, *size), codec, pix_fmt, **options)
             for side, size in enumerate(sizes)]  # fmt: skip
    with av.open(str(path), "w") as target:
        for part in parts:
            with av.open(str(part)) as source:
                if not number:
                    stream = target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream, packet.pts, packet.dts, packet.time_base = (
                            stream,
                            number,
                            number,
                            Fraction(1, 25),
                        )
                        target.mux(packet)
                        number += 1
    assert not difference(path, random.Random(0))


def test_a_damaged_picture_that_is_not_wanted_still_counts(videos: Path) -> None:
    """A plain decode ends at it, so no later frame may come, though decoding could begin behind it."""
    for codec, suffix, pix_fmt in (("mjpeg", "avi", "yuvj420p"), ("libx264", "mp4", "yuv420p")):
        path = encode(videos / f"hole.{suffix}", scene(30), codec, pix_fmt, g=5)
        data = bytearray(path.read_bytes())
        with av.open(str(path)) as container:
            packet = [packet for packet in container.demux(video=0) if packet.size][12]
        start = packet.pos + (8 if codec == "mjpeg" else 0)
        data[start : start + packet.size - 8] = bytes(packet.size - 8)
        path.write_bytes(data)
        with pytest.raises(FramesMissing) as counted:
            count_frames(path)
        assert 9 <= counted.value.available <= 12
        with pytest.raises(FramesMissing) as caught:
            read_frames(path, [28])
        assert caught.value.available == counted.value.available


def test_damage_that_only_a_decoder_with_a_past_notices(videos: Path) -> None:
    """FFmpeg overlooks an MPEG-4 picture that ends early until it has seen that the encoder pads its pictures."""
    path = encode(videos / "padded.avi", scene(26, 64, 96), "mpeg4", g=10)
    data, rng = path.read_bytes(), random.Random(0)
    with av.open(str(path)) as container:
        start = [packet for packet in container.demux(video=0) if packet.size and packet.is_keyframe][1]
    planned = 0
    for _ in range(30):
        damaged = bytearray(data)
        damaged[start.pos + 8 + rng.randrange(60, start.size)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        index._scan.cache_clear()
        planned += decode.read_index(path).plan is not None
        truth = plain_decode(path)
        for number in (10, 11, 12, 14):
            assert (read_frames(path, [number])[0] == truth[number]).all()
    assert planned > 15


def test_a_frame_without_extent(videos: Path, tmp_path: Path) -> None:
    path = encode(videos / "ffv1.mkv", scene(3), "ffv1")
    data = path.read_bytes()
    path = tmp_path / "flat.mkv"
    # PixelWidth and PixelHeight (Matroska elements B0 and BA), of one byte each here
    assert data.count(b"\xb0\x81\x80") == data.count(b"\xba\x81\x60") == 1
    path.write_bytes(data.replace(b"\xb0\x81\x80", b"\xb0\x81\x00").replace(b"\xba\x81\x60", b"\xba\x81\x00"))
    for read in (probe, count_frames, lambda path: read_frames(path, [0]), lambda path: list(iter_frames(path))):
        with pytest.raises(VideoError):
            read(path)


@pytest.mark.parametrize("average", [None, 0, Fraction(-25), Fraction(10**9), Fraction(1, 10**9)])
@pytest.mark.parametrize("time_base", [None, Fraction(0), Fraction(1, 25)])
def test_absurd_rates(average: Fraction | None, time_base: Fraction | None) -> None:
    stream = SimpleNamespace(average_rate=average, guessed_rate=None, time_base=time_base)
    assert frame_rate(stream) == 25
    assert frame_rate(stream, np.arange(5)) == 25


def test_pictures_of_another_size_than_stated(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A box that fits what the file states is no mistake of the caller."""
    told = decode.read_index(made["vp8"])
    monkeypatch.setattr(decode, "read_index", lambda path: told._replace(info=replace(told.info, width=1000)))
    with pytest.raises(VideoError, match=r"vp8\.webm: has pictures of 128x96 pixels: box"):
        read_frames(made["vp8"], [0], box=(0, 0, 900, 90), size=(32, 32))
    with pytest.raises(ValueError, match="leaves the frame") as caught:
        read_frames(made["vp8"], [0], box=(0, 0, 1001, 90), size=(32, 32))
    assert not isinstance(caught.value, VideoError)


def test_more_than_memory_holds(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MOST_PIXELS", 1000)
    for read in (lambda path: read_frames(path, [0]), lambda path: list(iter_frames(path))):
        with pytest.raises(VideoError, match=r"pyramid\.mp4: has pictures of 128x96 pixels"):
            read(made["h264"])


READERS = [probe, count_frames, lambda path: read_frames(path, [0]), lambda path: list(iter_frames(path))]

OTHER_FILES = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{0}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile {0}\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "manifest.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT3S"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="0" bandwidth="1" codecs="avc1.42c00d"><BaseURL>{0}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "subtitles.idx": "# VobSub index file, v7 (do not modify this line!)\nsize: 720x576\n",
    "text.txt": "not a video\n" * 200,
}


@pytest.mark.parametrize("name", OTHER_FILES)
@pytest.mark.parametrize("renamed", [False, True])
def test_a_file_that_names_others_is_not_followed(
    name: str, renamed: bool, made: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "other.ts").write_bytes(made["h264-ts"].read_bytes())
    path = tmp_path / (f"{name}.mp4" if renamed else name)
    path.write_text(OTHER_FILES[name].format("other.ts"))
    for read in READERS:
        with pytest.raises(VideoError) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["concat:{0}|{0}", "subfile,,start,0,end,0,,:{0}", "cache:{0}", "picture%d.png"])
def test_names_that_ffmpeg_would_take_apart(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"picture{number}.png"), np.zeros((32, 32, 3), np.uint8))
    path = name.format(made["h264"])
    for read in READERS:
        with pytest.raises(VideoError):
            read(path if ":" in name else tmp_path / name)


def test_only_files_are_opened(tmp_path: Path, made: dict[str, Path]) -> None:
    pipe, socket_path = tmp_path / "pipe.mp4", tmp_path / "socket.mp4"
    os.mkfifo(pipe)
    (tmp_path / "link.mp4").symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        for path in (pipe, socket_path, tmp_path / "link.mp4", "/dev/zero", pipe.as_uri()):
            for read in READERS:
                with pytest.raises(VideoError, match="is a pipe, socket or device, not a file"):
                    read(path)
            with pytest.raises(VideoError, match="not a file"), open_video(path):
                pass
    (tmp_path / "sound.mp4").symlink_to(made["h264"])
    assert probe(tmp_path / "sound.mp4").frames == LENGTH


@pytest.mark.parametrize("name", ["a b.mp4", "50%.mp4", "ü#?.mp4"])
def test_file_urls_are_files(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(made["h264"].read_bytes())
    url = path.as_uri()
    assert url.startswith("file:///") and url.isascii()
    for source in (url, url.replace("file://", "file://localhost")):
        assert probe(source).frames == count_frames(source) == len(list(iter_frames(source))) == LENGTH
        assert (read_frames(source, [7]) == read_frames(path, [7])).all()
    with pytest.raises(VideoError, match="on another machine"):
        probe("file://elsewhere/a.mp4")
    with pytest.raises(VideoError, match="no such file"):
        next(iter_frames(f"{url}x"))


@pytest.fixture(scope="session")
def server(videos: Path, made: dict[str, Path]) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(videos))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_source_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyAV raises where its time limit is over."""

    def silent(*arguments: object, **options: object) -> None:
        raise av.error.ExitError(1, "Immediate exit requested")

    monkeypatch.setattr(av, "open", silent)
    with pytest.raises(VideoError, match="rtsp://door: cannot be opened: nothing came in time"):
        next(iter_frames("rtsp://door"))


def test_a_url(server: str, plain: dict[str, list[np.ndarray]]) -> None:
    frames = list(iter_frames(f"{server}/pyramid.mp4", short_side=48))
    assert len(frames) == LENGTH and frames[0].pixels.shape == (48, 64, 3)
    assert [frame.index for frame in frames] == list(range(LENGTH))
    assert frames[50].seconds == pytest.approx(2.0)
    with pytest.raises(VideoError, match=r"none\.mp4: cannot be opened"):
        next(iter_frames(f"{server}/none.mp4"))


def test_a_url_reaches_no_local_file(server: str, videos: Path, made: dict[str, Path]) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{0}\n#EXT-X-ENDLIST\n"
    (videos / "remote.m3u8").write_text(playlist.format(f"{server}/h264.ts"))
    assert len(list(iter_frames(f"{server}/remote.m3u8"))) == LENGTH
    for number, target in enumerate((made["h264-ts"].as_uri(), f"file:{made['h264-ts']}", str(made["h264-ts"]))):
        (videos / f"local{number}.m3u8").write_text(playlist.format(target))
        with pytest.raises(VideoError):
            next(iter_frames(f"{server}/local{number}.m3u8"))
    for url in (f"cache://file:{made['h264']}", f"subfile://,,start,0,end,0,,:{made['h264']}", "pipe://0", "fd://0"):
        with pytest.raises(VideoError, match="cannot be opened"):
            next(iter_frames(url))


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(VideoError, match="cannot be opened"):
        next(iter_frames("camera:97"))


@pytest.mark.parametrize("name", ["h264", "xvid-packed", "xvid", "mpeg1", "gif"])
def test_seconds_rise_evenly(name: str, made: dict[str, Path]) -> None:
    fps = probe(made[name]).fps
    assert fps == pytest.approx(25)
    seconds = [frame.seconds for frame in iter_frames(made[name])]
    assert np.allclose(np.diff([0.0, *seconds[1:]]), 1 / fps, atol=1e-3)
