"""What the packets of a video tell without decoding them: frame count, rate, size, and which packets a frame needs."""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import ExitError, FFmpegError, InvalidDataError
from av.stream import Disposition

from vidstill.video.pictures import H264, Mpeg4, Picture
from vidstill.video.pixels import UPRIGHT, Orientation, orientation

Source = str | os.PathLike[str]
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
    ticks: int = 0  # units of the time stamps from frame to frame; 0 where the stream does not state its duration

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


@dataclass(frozen=True)
class Plan:
    """Which packets a frame needs. Packets are counted in file order, after unpacking.

    `packet` (frames,): the one that holds each frame. For each packet: `origin`, where to start decoding for it;
    `reference`, whether other pictures need it; decoding time `stamp` and byte `position`, to seek it (None: no need).
    """

    packet: np.ndarray
    origin: np.ndarray
    reference: np.ndarray
    stamp: np.ndarray | None = None
    position: np.ndarray | None = None

    def find(self, position: int | None) -> int:
        """Number of the packet at a byte position; one beyond the last where there is none."""
        if self.position is None or position is None:
            return len(self.origin)
        number = int(np.searchsorted(self.position, position))
        return number if number < len(self.position) and self.position[number] == position else len(self.origin)


def reason(error: Exception) -> str:
    """The cause in a few words: FFmpeg's text without its number, file and function."""
    if isinstance(error, ExitError):  # of PyAV where its time limit is over
        return "nothing came in time"
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
    stat = check_file(path)
    return _scan(os.fspath(path), stat.st_size, stat.st_mtime_ns)


def check_file(path: Source) -> os.stat_result:
    """The size and times of a file; VideoError where there is none, or nothing in it."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be opened: {reason(error)}") from None
    if S_ISDIR(stat.st_mode):
        raise VideoError(f"{path}: is a folder, not a video")
    if not stat.st_size:
        raise VideoError(f"{path}: is empty")
    return stat


@dataclass(frozen=True)
class _Packets:
    """Of every packet: display and decoding time stamp and byte position, and whether it is decoded but hidden.

    None where not all packets have one.
    """

    shown: np.ndarray | None
    stamp: np.ndarray | None
    position: np.ndarray | None
    hidden: np.ndarray


@lru_cache(maxsize=8192)  # up to 7 kB for a 10 s clip
def _scan(path: str, size: int, mtime: int) -> tuple[VideoInfo, Plan | None]:
    with open_video(path) as (container, stream):
        codec = stream.codec_context
        name, delay = codec.name, codec.reorder_depth
        turns = not {"mov", "matroska"}.isdisjoint(container.format.name.split(","))
        first: tuple[int, int, Orientation] | None = None
        read, unpack = _header_reader(name, codec.extradata), unpacker(stream)
        headers: list[Any] = []
        shown, stamps, positions, hidden = [], [], [], []
        sound = True
        try:
            for packet in packets(container, stream):
                shown.append(packet.pts)
                stamps.append(packet.pts if packet.dts is None else packet.dts)
                positions.append(packet.pos)
                hidden.append(packet.is_discard)
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
        found = _Packets(_int64(shown), _int64(stamps), _int64(positions), np.array(hidden, bool))
        frames, plan = int((~found.hidden).sum()), None
        if read is not None and name == "vp8":
            frames = sum(headers)
        elif read is not None and name == "mpeg4":
            plan = _plan_mpeg4(headers)
            sound &= "N" not in headers  # a placeholder that is left over after unpacking
        elif read is not None and name == "h264":
            plan = _plan_h264(headers, found, delay)
        elif codec.codec.intra_only:
            plan = _plan_intra(found)
        if plan is not None:
            frames = len(plan.packet)
        if not frames:
            raise VideoError(f"{path}: holds no frames")
        height, width, turn = first or (codec.height, codec.width, UPRIGHT)
        height, width = turn.size(height, width)
        rate = _rate(stream, found)
        ticks = max(1, round(1 / (rate * float(stream.time_base)))) if stream.duration else 0
        info = VideoInfo(frames, rate, width, height, turn.rotation, codec.codec.canonical_name, ticks)
        return info, plan if sound else None


def _int64(values: list[int | None]) -> np.ndarray | None:
    return None if None in values else np.array(values, np.int64)


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


def _rate(stream: Any, found: _Packets) -> float:
    """Frames per second: the average, or, where one absurd time stamp spoils that, the most usual."""
    average = float(stream.average_rate or stream.guessed_rate or 0)
    if found.shown is not None and len(found.shown) > 2:
        step = float(np.median(np.diff(np.sort(found.shown)))) * float(stream.time_base)
        if step > 0 and not 0.01 < average * step < 100:
            average = 1 / step
    return average or 25.0


def _plan_mpeg4(kinds: list[str]) -> Plan:
    """From VOP types: a B-VOP is shown at once, any other when the next reference has come.

    The decoder drops a B-VOP that lacks one of its two references. One right after an I-VOP needs the group before.
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
        elif kind in ("I", "P", "S"):
            packet += references[-1:]
            references.append(n)
    packet += references[-1:]
    return Plan(np.array(packet, np.int32), origin, np.array([kind != "B" for kind in kinds], bool))


def _plan_h264(pictures: list[Picture], found: _Packets, delay: int) -> Plan | None:
    """From picture order counts; None where time stamps tell another order, or the decoder's delay is too short."""
    order = np.array(sorted(range(len(pictures)), key=lambda n: pictures[n].order), np.int32)
    if found.shown is None or (np.diff(found.shown[order]) <= 0).any():
        return None
    decoded: list[int] = []
    for stamp in found.shown.tolist():
        at = bisect(decoded, stamp)
        if len(decoded) - at > delay:  # pictures that wait for this one to be shown before them
            return None
        decoded.insert(at, stamp)
    restart = np.array([picture.restart for picture in pictures], bool)
    origin = np.maximum.accumulate(np.where(restart, np.arange(len(restart)), 0)).astype(np.int32)
    reference = np.array([picture.reference for picture in pictures], bool)
    return Plan(order[~found.hidden[order]], origin, reference, *(_landings(found) if restart.sum() > 1 else ()))


def _plan_intra(found: _Packets) -> Plan:
    every = np.arange(len(found.hidden), dtype=np.int32)
    return Plan(every[~found.hidden], every, np.zeros(len(every), bool), *_landings(found))


def _landings(found: _Packets) -> tuple[np.ndarray, np.ndarray] | tuple[()]:
    """Decoding time stamps and byte positions; nothing where positions do not tell packets apart."""
    if found.stamp is None or found.position is None or (np.diff(found.position) <= 0).any():
        return ()
    return found.stamp, found.position
