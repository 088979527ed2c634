"""Damaged videos made from sound ones by chance, and the comparison of every way to read them with a plain decode."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha1
from pathlib import Path

import av
from av.error import FFmpegError

from vidstill.video import decode
from vidstill.video.decode import FramesMissing, VideoError, count_frames, iter_frames, probe, read_frames
from vidstill.video.index import open_video, packets
from vidstill.video.pixels import UPRIGHT, Draw, Orientation, orientation

Seen = tuple[tuple[int, ...], Orientation, bytes]  # size of a decoded frame, how it is to be turned, digest

Bytes = Callable[[bytearray, random.Random, bytes], None]


def _place(data: bytearray, rng: random.Random, most: int) -> tuple[int, int]:
    """A stretch of up to `most` bytes, every other time near the start or the end, where the containers' tables are."""
    size = rng.randint(1, max(1, min(most, len(data) // 2)))
    if rng.random() < 0.5:
        return rng.randrange(max(1, len(data) - size)), size
    start = rng.randrange(min(2000, len(data)))
    return (start if rng.random() < 0.5 else max(0, len(data) - start - size)), size


def flip(data: bytearray, rng: random.Random, other: bytes) -> None:
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        data[_place(data, rng, 1)[0]] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random, other: bytes) -> None:
    del data[rng.randrange(len(data) // 20, len(data)) :]


def zero(data: bytearray, rng: random.Random, other: bytes) -> None:
    start, size = _place(data, rng, 3000)
    data[start : start + size] = bytes(len(data[start : start + size]))


def noise(data: bytearray, rng: random.Random, other: bytes) -> None:
    start, size = _place(data, rng, 500)
    data[start : start + size] = rng.randbytes(len(data[start : start + size]))


def remove(data: bytearray, rng: random.Random, other: bytes) -> None:
    start, size = _place(data, rng, 3000)
    del data[start : start + size]


def swap(data: bytearray, rng: random.Random, other: bytes) -> None:
    size = rng.randint(1, len(data) // 4)
    first = rng.randrange(len(data) - 2 * size)
    second = rng.randrange(first + size, len(data) - size + 1)
    data[first : first + size], data[second : second + size] = data[second : second + size], data[first : first + size]


def repeat(data: bytearray, rng: random.Random, other: bytes) -> None:
    start, size = _place(data, rng, 5000)
    at = rng.randrange(len(data))
    data[at:at] = data[start : start + size]


def join(data: bytearray, rng: random.Random, other: bytes) -> None:
    data += bytes(data) if rng.random() < 0.5 else other


def graft(data: bytearray, rng: random.Random, other: bytes) -> None:
    at = rng.randrange(len(data))
    data[at:] = other[rng.randrange(len(other)) :]


def absurd(data: bytearray, rng: random.Random, other: bytes) -> None:
    """Numbers that no header should state."""
    for _ in range(rng.randint(1, 4)):
        at, size = _place(data, rng, 1)[0], rng.choice((1, 2, 4, 8))
        data[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\x80", b"\0\0\0\1")) * size
        del data[len(data) + 1 :]


DAMAGES: tuple[Bytes, ...] = (flip, flip, cut, zero, noise, remove, swap, repeat, join, graft, absurd)


def damage_packets(source: Path, path: Path, rng: random.Random) -> None:
    """A sound container with packets that are lost, doubled, swapped, or have damage in their headers or data."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        data = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in container.demux(stream)]
        data = [packet for packet in data if packet[0]]
        with av.open(str(path), "w") as target:
            copy = target.add_stream_from_template(stream)
            contents = [packet[0] for packet in data]
            for _ in range(rng.randint(1, 3)):
                one, two = rng.randrange(len(contents)), rng.randrange(len(contents))
                kind = rng.choice(("lose", "double", "swap", "head", "data", "shorten", "glue"))
                if kind == "lose":
                    contents[one] = b""
                elif kind == "double":
                    contents[two] = contents[one]
                elif kind == "swap":
                    contents[one], contents[two] = contents[two], contents[one]
                elif kind == "shorten":
                    contents[one] = contents[one][: rng.randint(1, len(contents[one]) or 1)]
                elif kind == "glue":
                    contents[one] += contents[two]
                elif contents[one]:
                    changed = bytearray(contents[one])
                    for _ in range(rng.choice((1, 2, 8))):
                        reach = len(changed) if kind == "data" else min(len(changed), 24)
                        changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
                    contents[one] = bytes(changed)
            for content, (_, pts, dts, key) in zip(contents, data, strict=True):
                if content:
                    packet = av.Packet(content)
                    packet.stream, packet.pts, packet.dts, packet.is_keyframe = copy, pts, dts, key
                    packet.time_base = stream.time_base
                    target.mux(packet)


def mutant(sources: Sequence[Path], folder: Path, seed: int) -> Path:
    """A damaged file made of one or two of the sources."""
    rng = random.Random(seed)
    source, other = rng.choice(sources), rng.choice(sources)
    path = folder / f"mutant{source.suffix}"
    if rng.random() < 0.25 and source.suffix in (".mp4", ".mkv", ".avi", ".mov", ".webm"):
        try:
            damage_packets(source, path, rng)
            return path
        except (FFmpegError, ValueError):  # a packet that the container does not take
            pass
    data = bytearray(source.read_bytes())
    for damage in rng.sample(DAMAGES, rng.choice((1, 1, 1, 2, 3))):
        if len(data) > 100:
            damage(data, rng, other.read_bytes())
    path.write_bytes(data or b"\0")
    return path


def plain_frames(path: Path) -> tuple[list[Seen], bool]:
    """Every frame that a plain decode gives, and whether an error ends it."""
    frames: list[Seen] = []
    sound = failed = False

    def take(decoded: list[av.VideoFrame]) -> None:
        for frame in decoded:
            pixels = frame.to_ndarray(format="rgb24")
            frames.append((pixels.shape, orientation(frame), sha1(pixels.tobytes()).digest()))

    with open_video(path) as (container, stream):
        try:
            for packet in packets(container, stream):
                try:
                    decoded = stream.decode(packet)
                except FFmpegError:
                    failed = True
                    if sound:
                        break
                    continue
                if not sound:
                    sound, failed = True, False
                take(decoded)
        except FFmpegError:
            failed = True
        try:
            take(stream.decode(None))
        except FFmpegError:
            failed = True
    return frames, failed


def difference(path: Path, rng: random.Random) -> str:
    """What reading a file by chosen frames gives other than a plain decode; empty where they agree.

    Any exception but a VideoError passes through.
    """
    try:
        truth, failed = plain_frames(path)
    except VideoError:
        truth, failed = [], True
    try:
        counted, ended = count_frames(path), False
    except FramesMissing as missing:
        counted, ended = missing.available, True
    except VideoError:
        counted, ended = 0, True
    if counted != len(truth) or (truth and ended != failed):
        return f"counts {counted} frames (damaged: {ended}), not {len(truth)} (damaged: {failed})"
    try:
        info = probe(path)
    except VideoError as error:
        if truth and truth[0][0][0] * truth[0][0][1] < 1 << 20:
            return f"refuses {len(truth)} frames: {error}"
        return ""
    assert 0 < info.fps < 1e6 and info.frames > 0 < info.width and info.height > 0 and info.ticks >= 0
    assert 0 < info.seconds < 1e9
    given = sum(1 for _ in _frames(path, 16))
    if given != counted:
        return f"iter_frames gives {given} frames, not {counted}"
    for _ in range(3):
        top = max(info.frames, len(truth)) + (rng.random() < 0.2)
        wanted = [rng.randrange(top) for _ in range(rng.choice((1, 2, 5, 12)))]
        if found := _differs(path, wanted, truth):
            return f"frames {wanted} {found}"
    box = (0, 0, info.width, max(1, info.height // 2))
    for options in ({"short_side": 16}, {"box": box, "size": (16, 16)}):
        try:
            read_frames(path, wanted, **options)
        except VideoError:
            if max(wanted) < len(truth) and not failed and truth[0][0][:2] == (info.height, info.width):
                return f"frames {wanted} are refused with {options}"
    return ""


def _frames(path: Path, short_side: int) -> Iterator[object]:
    with suppress(VideoError):
        yield from iter_frames(path, short_side=short_side)


def _differs(path: Path, wanted: list[int], truth: list[Seen]) -> str:
    try:
        got = read_frames(path, wanted)
    except FramesMissing as missing:
        if max(wanted) < len(truth) or missing.available != len(truth):
            return f"are missing, {missing.available} of {len(truth)}"
        return ""
    except VideoError as error:
        return f"are refused: {error}" if truth and max(wanted) < len(truth) else ""
    if max(wanted) >= len(truth):
        return f"come, of {len(truth)}"
    if all(
        truth[number] == (frame.shape, UPRIGHT, sha1(frame.tobytes()).digest())
        for number, frame in zip(wanted, got, strict=True)
    ):
        return ""
    slots: dict[int, list[int]] = {}
    for slot, number in enumerate(wanted):
        slots.setdefault(number, []).append(slot)
    plain = decode._collect(path, slots, Draw(), None)
    if got.shape != plain.shape or (got != plain).any():
        return "differ from those of a plain reading"
    upright = all(size == got.shape[1:] and turn == UPRIGHT for size, turn, _ in truth[: max(wanted) + 1])
    # of several sizes, or turned, they are what a plain reading gives; that it is right is for other tests to say
    return "differ from those of a plain decode" if upright else ""
