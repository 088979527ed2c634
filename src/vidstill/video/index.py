"""What the packets of a video file tell without decoding it: frame count, rate, size, and which packets a frame needs."""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition

from vidstill.video.pictures import H264, Mpeg4, Picture
from vidstill.video.pixels import UPRIGHT, Orientation, orientation

Source = str | os.PathLike[str]
Entry = tuple[int | None, int | None, bool]  # of a packet: time stamp, byte position, decoded but not displayed
Unpack = Callable[[av.Packet], list[av.Packet]]


class VideoError(ValueError):
    """A video that cannot be read or written: the message names it and what is wrong."""


class FramesMissing(VideoError):  # noqa: N818 - the name says what it is
    """A video with fewer frames than were asked for; `available` is how many decode."""

    def __init__(self, message: str, available: int) -> None:
        super().__init__(message)
        self.available = available

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.available)


@dataclass(frozen=True)
class VideoInfo:
    """A video as displayed: width and height are those after `rotation` (degrees clockwise)."""

    frames: int
    fps: float
    width: int
    height: int
    rotation: int
    codec: str

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


@dataclass(frozen=True)
class Plan:
    """Which packets a frame needs, packets being counted in file order, after unpacking.

    `packet` (frames,): the one that holds each frame. For each packet: `origin`, where to start decoding for it; `reference`,
    whether other pictures need it, so that it is decoded on the way; `stamp` and `position`, for seeking (None: never worth it).
    """

    packet: np.ndarray
    origin: np.ndarray
    reference: np.ndarray
    stamp: np.ndarray | None = None
    position: np.ndarray | None = None


def reason(error: Exception) -> str:
    """The cause in a few words: FFmpeg's text without its number, file and function."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[0].lower() + text[1:]


@contextmanager
def open_video(source: Source, **options: Any) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream (cover pictures left aside), with one decoder thread.

    A path goes through FFmpeg's `file:` protocol, because a colon in its name would read as another protocol.
    """
    url = str(source) if options else f"file:{Path(source).absolute()}"
    try:
        container = av.open(url, **options)
    except (OSError, ValueError, FFmpegError) as error:
        what = "not a video that FFmpeg reads" if isinstance(error, InvalidDataError) else "cannot be opened"
        raise VideoError(f"{source}: {what}: {reason(error)}") from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams or container.format.name == "tty":  # FFmpeg draws text files as a terminal would
            raise VideoError(f"{source}: holds no video")
        if streams[0].codec_context is None:
            raise VideoError(f"{source}: FFmpeg has no decoder for its video")
        streams[0].thread_type, streams[0].thread_count = "NONE", 1
        yield container, streams[0]


def packets(container: Any, stream: Any) -> Iterator[av.Packet]:
    """The packets that hold data. Empty ones mark dropped frames, or the end, and would end the decoder early."""
    return (packet for packet in container.demux(stream) if packet.size)


def unpacker(stream: Any) -> Unpack:
    """Splits packed MPEG-4 packets (two pictures in one), so that each picture can be left out by itself."""
    if stream.codec_context.name == "mpeg4":
        return BitStreamFilterContext("mpeg4_unpack_bframes", stream).filter
    return lambda packet: [packet]


def probe(path: Source) -> VideoInfo:
    """Frames, rate and displayed size of a file, from its packets; only a first picture is decoded, for its rotation.

    `frames` is what a sound file decodes to, whatever its container declares. Raises VideoError.
    """
    return read_index(path)[0]


def read_index(path: Source) -> tuple[VideoInfo, Plan | None]:
    """What a file holds and, where its headers are understood, how to reach a frame of it with little work.

    Kept for the life of the process, as long as the file's size and time stay the same.
    """
    try:
        stat = Path(path).stat()
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be opened: {reason(error)}") from None
    if Path(path).is_dir():
        raise VideoError(f"{path}: is a folder, not a video")
    if not stat.st_size:
        raise VideoError(f"{path}: is empty")
    return _scan(os.fspath(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8192)  # up to 7 kB for a 10 s clip
def _scan(path: str, size: int, mtime: int) -> tuple[VideoInfo, Plan | None]:
    with open_video(path) as (container, stream):
        codec = stream.codec_context
        name, depth = codec.name, codec.reorder_depth
        turns = not {"mov", "matroska"}.isdisjoint(container.format.name.split(","))
        first: tuple[int, int, Orientation] | None = None
        read, unpack = _header_reader(name, codec.extradata), unpacker(stream)
        headers: list[Any] = []
        entries: list[Entry] = []
        sound = True
        try:
            for packet in packets(container, stream):
                entries.append((packet.pts, packet.pos, packet.is_discard))
                sound &= not packet.is_corrupt
                if turns and first is None and packet.is_keyframe and not packet.is_discard:
                    first = _first_picture(codec, packet)
                if read is not None:
                    try:
                        headers += [read(bytes(part)) for part in unpack(packet)]
                    except (ValueError, IndexError):  # not understood, or damaged
                        read = None
        except FFmpegError:
            sound = False
        frames, plan = sum(not discard for _, _, discard in entries), None
        if read is not None and name == "vp8":
            frames = sum(headers)
        elif read is not None and name == "mpeg4":
            plan = _plan_mpeg4(headers)
            sound &= "N" not in headers  # a placeholder that is left over after unpacking
        elif read is not None and name == "h264":
            plan = _plan_h264(headers, entries, depth)
        elif codec.codec.intra_only:
            plan = _plan_intra(entries)
        height, width, turn = first or (codec.height, codec.width, UPRIGHT)
        height, width = turn.size(height, width)
        info = VideoInfo(
            frames=len(plan.packet) if plan else frames,
            fps=_rate(stream, entries),
            width=width,
            height=height,
            rotation=turn.rotation,
            codec=name,
        )
        return info, plan if sound else None


def _header_reader(codec: str, extradata: bytes | None) -> Callable[[bytes], Any] | None:
    try:
        if codec == "h264":
            return H264(extradata).read
        if codec == "mpeg4":
            return Mpeg4(extradata).read
    except (ValueError, IndexError):
        return None
    if codec == "vp8":
        return lambda data: bool(data[0] & 16)  # show_frame (RFC 6386 §9.1): the others are never displayed
    return None


def _first_picture(codec: Any, packet: av.Packet) -> tuple[int, int, Orientation] | None:
    """Decoded height and width, and orientation, of a key frame; the decoder is not used afterwards."""
    try:
        frames = codec.decode(packet) or codec.decode(None)
    except FFmpegError:
        return None
    return (frames[0].height, frames[0].width, orientation(frames[0])) if frames else None


def _rate(stream: Any, entries: list[Entry]) -> float:
    """Frames per second: the average, or, where one absurd time stamp spoils that, the most usual."""
    average = float(stream.average_rate or stream.guessed_rate or 0)
    stamps = sorted({pts for pts, _, _ in entries if pts is not None})
    step = float(np.median(np.diff(stamps)) * Fraction(stream.time_base)) if len(stamps) > 2 else 0.0
    if step > 0 and not 0.01 < average * step < 100:
        average = 1 / step
    return average or 25.0


def _plan_mpeg4(kinds: list[str]) -> Plan:
    """From VOP types: a B-VOP is displayed at once, any other when the next reference has come.

    The decoder drops a B-VOP that lacks one of its two references. The one after a lone I-VOP needs the group before.
    """
    packet: list[int] = []
    origin = np.zeros(len(kinds), np.int32)
    references: list[int] = []
    start = before = 0
    for n, kind in enumerate(kinds):
        if kind == "I":
            before, start = start, n
        origin[n] = start
        if kind == "B" and len(references) > 1:
            packet.append(n)
            origin[n] = start if references[-2] >= start else before
        elif kind and kind in "IPS":
            packet += references[-1:]
            references.append(n)
    packet += references[-1:]
    return Plan(np.array(packet, np.int32), origin, np.array([kind != "B" for kind in kinds]))


def _plan_h264(pictures: list[Picture], entries: list[Entry], depth: int) -> Plan | None:
    """From picture order counts. None where time stamps tell another order, or where the decoder's delay is too short."""
    stamps = [pts for pts, _, _ in entries]
    order = sorted(range(len(pictures)), key=lambda n: pictures[n].order)
    displayed = [stamps[n] for n in order]
    if None in stamps or any(a >= b for a, b in pairwise(displayed)):
        return None
    decoded: list[int] = []
    for stamp in stamps:
        at = bisect(decoded, stamp)
        if len(decoded) - at > depth:  # so many pictures wait for this one; the decoder would show one of them too early
            return None
        decoded.insert(at, stamp)
    restart = np.array([picture.restart for picture in pictures])
    origin = np.maximum.accumulate(np.where(restart, np.arange(len(restart)), 0)).astype(np.int32)
    shown = np.array([n for n in order if not entries[n][2]], np.int32)
    reference = np.array([picture.reference for picture in pictures])
    return Plan(shown, origin, reference, *(_landings(entries) if restart.sum() > 1 else ()))


def _plan_intra(entries: list[Entry]) -> Plan:
    every = np.arange(len(entries), dtype=np.int32)
    shown = np.array([not discard for _, _, discard in entries], bool)
    return Plan(every[shown], every, np.zeros(len(entries), bool), *_landings(entries))


def _landings(entries: list[Entry]) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
    """Time stamps and byte positions; nothing where they do not tell packets apart."""
    stamps, positions = [pts for pts, _, _ in entries], [pos for _, pos, _ in entries]
    if None in stamps or None in positions or sorted(set(positions)) != positions:
        return ()
    return np.array(stamps, np.int64), np.array(positions, np.int64)
