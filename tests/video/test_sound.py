"""Sound beside new pictures: what is heard of the written file, and when, against what is heard of the source."""

import logging
from pathlib import Path

import av
import numpy as np
import pytest
from making import decode_sound, encode, encode_with_sound, scene

from vidstill.video.decode import iter_frames, probe
from vidstill.video.encode import VideoWriter
from vidstill.video.source import Video

RATE = 44100


def beep(at: float = 1.0, seconds: float = 2.0, rate: int = RATE, channels: int = 2) -> np.ndarray:
    """Silence, but for 0.2 s of 1 kHz at that time."""
    times = np.arange(round(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * 1000 * times) * ((times >= at) & (times < at + 0.2))
    return np.repeat(tone[None], channels, 0)


def heard_at(path: Path) -> tuple[str, float, float, float]:
    """Codec, begin and end of the beep, and the seconds of sound after the first picture."""
    codec, rate, sound = decode_sound(path)
    loud = np.flatnonzero(abs(sound) > 0.1)
    return codec, loud[0] / rate, loud[-1] / rate, len(sound) / rate


def rewritten(source: Path, path: Path, end: float | None = None) -> Path:
    with VideoWriter(path, probe(source).fps, sound=source, sound_end=end) as writer:
        for frame in iter_frames(source):
            if end is None or frame.seconds < end:
                writer.write(frame.pixels)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.mp4", "aac", "aac"), ("b.mp4", "libmp3lame", "mp3"), ("c.mkv", "flac", "flac"), ("d.mkv", "ac3", "ac3"),
        ("e.ts", "aac", "aac"), ("f.avi", "mp2", "aac"), ("g.avi", "pcm_s16le", "aac"), ("h.mkv", "libopus", "opus"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2])
def test_the_sound_is_heard_when_it_was(name: str, codec: str, expected: str, channels: int, tmp_path: Path) -> None:
    rate = 48000 if codec == "libopus" else RATE
    source = encode_with_sound(tmp_path / name, beep(rate=rate, channels=channels), codec, rate=rate)
    _, begin, end, seconds = heard_at(source)
    assert begin == pytest.approx(1, abs=0.04), "of the source as it was made"
    out = rewritten(source, tmp_path / "out.mp4")
    found, *times = heard_at(out)
    assert found == expected
    assert times == pytest.approx([begin, end, seconds], abs=0.03)
    assert probe(out).frames == 50
    with av.open(str(out)) as container:
        assert container.streams.audio[0].channels == channels


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize(("late", "pictures_late"), [(0.5, 0), (0.0, 10)])
def test_sound_that_begins_at_another_time_keeps_its_distance(
    codec: str, late: float, pictures_late: int, tmp_path: Path
) -> None:
    source = encode_with_sound(tmp_path / "s.mkv", beep(), codec, late=late, pictures_late=pictures_late)
    expected = 1 + late - pictures_late / 25
    assert heard_at(source)[1] == pytest.approx(expected, abs=0.04)
    out = rewritten(source, tmp_path / "out.mp4")
    assert heard_at(out)[1:] == pytest.approx(heard_at(source)[1:], abs=0.03)
    assert [frame.seconds for frame in iter_frames(out)][:2] == pytest.approx([0, 1 / 25])


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_is_cut_with_its_pictures(codec: str, tmp_path: Path) -> None:
    source = encode_with_sound(tmp_path / "s.mkv", beep(at=0.5, seconds=4), codec, frames=100)
    out = rewritten(source, tmp_path / "out.mp4", end=1.5)
    _, begin, _, seconds = heard_at(out)
    assert (begin, seconds) == pytest.approx((0.5, 1.5), abs=0.04)
    assert probe(out).seconds == pytest.approx(1.5, abs=0.04)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_of_a_stretch_its_own_sound_is_taken(codec: str, tmp_path: Path) -> None:
    source = encode_with_sound(tmp_path / "s.mkv", beep(at=1.5, seconds=4), codec, frames=100)
    with VideoWriter(tmp_path / "out.mp4", 25, sound=Video(source, 1.0, 3.0)) as writer:
        for _ in range(50):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    assert heard_at(tmp_path / "out.mp4")[1:] == pytest.approx((0.5, 0.7, 2), abs=0.04)


def test_pictures_in_a_folder_have_no_sound(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    with VideoWriter(tmp_path / "out.mp4", 25, sound=tmp_path / "frames") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_sound_can_be_ended_on_the_way(tmp_path: Path) -> None:
    source = encode_with_sound(tmp_path / "s.mkv", beep(at=0.2, seconds=4), "aac", frames=100)
    with VideoWriter(tmp_path / "out.mp4", 25, sound=source) as writer:
        for frame in iter_frames(source):
            writer.write(frame.pixels)
            if frame.index == 24:
                writer.end_sound(1.0)
    assert 1.0 <= heard_at(tmp_path / "out.mp4")[3] <= 1.6


def test_pictures_and_sound_take_turns_in_the_file(tmp_path: Path) -> None:
    """So that it plays while it loads."""
    source = encode_with_sound(tmp_path / "s.mkv", beep(seconds=8), "aac", frames=200)
    with av.open(str(rewritten(source, tmp_path / "out.mp4"))) as container:
        found = sorted((p.pos, p.stream.type, float(p.dts * p.time_base)) for p in container.demux() if p.size)
    newest = {"video": 0.0, "audio": 0.0}
    for _, kind, seconds in found:
        newest[kind] = seconds
        assert abs(newest["video"] - newest["audio"]) < 1.5


@pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
def test_a_silent_source_and_a_gif_stay_silent(name: str, tmp_path: Path) -> None:
    silent = encode(tmp_path / "s.mp4", scene(10), "mpeg4")
    loud = encode_with_sound(tmp_path / "l.mp4", beep(), "aac", frames=10)
    source = silent if name.endswith("mp4") else loud
    with av.open(str(rewritten(source, tmp_path / name))) as container:
        assert not container.streams.audio and container.streams.video


@pytest.mark.parametrize(("name", "codec"), [("s.mp4", "aac"), ("s.avi", "mp2")])
def test_damaged_sound_does_not_stop_the_pictures(name: str, codec: str, tmp_path: Path) -> None:
    source = encode_with_sound(tmp_path / name, beep(at=0.2, seconds=4), codec, frames=100)
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data, place = bytearray(source.read_bytes()), 0
    for number, packet in enumerate(packets):
        place = data.index(packet, place)
        if 60 <= number < 80:
            data[place : place + len(packet)] = bytes(len(packet))
        place += len(packet)
    source.write_bytes(data)
    out = rewritten(source, tmp_path / "out.mp4")
    assert probe(out).frames == 100
    if codec == "mp2":  # aac is copied as it is
        assert heard_at(out)[1:] == pytest.approx((0.2, 0.4, 4), abs=0.05)


def test_a_packet_that_is_lost_is_silence(shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The third packet of this file has no header."""
    source = shared_data / "clips" / "hockey_fights" / "fight" / "fi110.avi"
    with caplog.at_level(logging.WARNING):
        codec, rate, sound = decode_sound(rewritten(source, tmp_path / "out.mp4"))
    assert [record.message.count("its sound is damaged, and not all of it is kept") for record in caplog.records] == [1]
    assert (codec, rate) == ("aac", 44100)
    assert len(sound) / rate == pytest.approx(48100 / 28000 + 1152 / 44100, abs=0.03)


def test_real_sound_is_copied_bit_for_bit(shared_data: Path, tmp_path: Path) -> None:
    for source in sorted((shared_data / "clips" / "surveillance_fights").rglob("*.mp4"))[:2]:
        codec, rate, sound = decode_sound(source)
        copied = decode_sound(rewritten(source, tmp_path / "out.mp4"))
        assert copied[:2] == (codec, rate)
        shift = len(copied[2]) - len(sound)  # an mp4 counts the beginning in whole milliseconds
        assert -rate / 1000 <= shift <= 0
        np.testing.assert_array_equal(copied[2][: len(copied[2])], sound[-shift:])


def test_real_vorbis_becomes_aac(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "clips" / "ucf101" / "WallPushups" / "video2.webm"
    _, rate, before = decode_sound(source)
    codec, after_rate, after = decode_sound(rewritten(source, tmp_path / "out.mp4"))
    assert (codec, after_rate) == ("aac", rate)
    assert len(after) == pytest.approx(len(before), abs=0.05 * rate)
    size = 2 * max(len(before), len(after))
    alike = np.fft.irfft(np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size)))
    assert min(alike.argmax(), size - alike.argmax()) < 0.01 * rate, "the shift at which they are most alike"
    assert alike.max() > 0.9 * np.linalg.norm(before) * np.linalg.norm(after)
