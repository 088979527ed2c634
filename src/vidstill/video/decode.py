"""Frames of a video file, URL or camera as uint8 RGB."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from vidstill.video.index import (
    FramesMissing,
    Plan,
    Source,
    VideoError,
    VideoInfo,
    open_video,
    packets,
    probe,
    read_index,
    reason,
    unpacker,
)
from vidstill.video.pixels import Box, Draw

__all__ = [
    "Frame",
    "FramesMissing",
    "VideoError",
    "VideoInfo",
    "count_frames",
    "iter_frames",
    "probe",
    "read_frames",
]

log = logging.getLogger(__name__)

# a seek pays where it passes over more packets than this: it costs as much as reading 30 to 60 packets
_SEEK = 64


class _PlanError(Exception):
    """The decoder did not do what the plan foretold."""


@dataclass(frozen=True)
class Frame:
    """One displayed frame: its number, seconds since the first one, and pixels (H,W,3) uint8 RGB."""

    index: int
    seconds: float
    pixels: np.ndarray


def read_frames(
    path: Source,
    indices: Sequence[int] | np.ndarray,
    *,
    short_side: int | None = None,
    box: Box | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """The frames at `indices` (any order, repeats allowed) as displayed: uint8 (T,H,W,3) RGB.

    Frame i is the i-th one that a plain decode of the whole file gives, bit for bit, however few are really decoded.

    `short_side` resizes to it, keeping the aspect: OpenCV's INTER_LINEAR on the RGB frame, sides rounded half up.
    `box` (x1, y1, x2, y2 in displayed source pixels, rounded) with `size` (height, width) crops and resizes in one go. For
    8-bit planar YUV without rotation that happens on the planes before the conversion to RGB: 2 to 4 times faster, and within a
    few grey levels of cropping and resizing the RGB frame, because chroma is cropped to its own pixels.

    A stream whose size changes midway is brought to its first size. Raises FramesMissing where an index is beyond the frames
    that decode, VideoError where the file cannot be read.
    """
    wanted = np.asarray(indices, np.int64)
    if wanted.ndim != 1 or not len(wanted) or wanted.min() < 0:
        raise ValueError(f"indices {indices!r}: give at least one frame number, each 0 or more")
    if (box is None) != (size is None) or (box is not None and short_side is not None):
        raise ValueError("give short_side, or box together with size, or none of them")
    _, plan = read_index(path)
    draw = Draw(short_side, box, size)
    slots: dict[int, list[int]] = {}
    for slot, number in enumerate(wanted.tolist()):
        slots.setdefault(number, []).append(slot)
    if plan is not None and wanted.max() < len(plan.packet):
        try:
            return _collect(path, slots, draw, plan)
        except (_PlanError, FFmpegError) as error:
            log.debug("%s: plain decode, because %s", path, error)
    return _collect(path, slots, draw, None)


def count_frames(path: Source) -> int:
    """How many frames really decode, by decoding all of them.

    Raises FramesMissing (with their number) where a damaged packet ends the decode, VideoError where not one frame decodes.
    """
    read_index(path)
    count = 0
    with open_video(path) as (container, stream):
        try:
            for _ in _plain(container, stream):
                count += 1
        except FFmpegError as error:
            raise _ended(path, count, error) from None
    if not count:
        raise VideoError(f"{path}: not one frame decodes")
    return count


def iter_frames(source: Source, *, short_side: int | None = None) -> Iterator[Frame]:
    """Every frame of a file, URL (http, rtsp, …) or camera (`camera:0`, `/dev/video0`) as it comes.

    Seconds come from the time stamps, or from the frame rate where these are missing or run backwards. Damage ends a file with a
    logged warning; a live source goes on after it. Raises VideoError where nothing opens or not one frame comes.
    """
    name, options, live = _locate(str(source))
    if not live:
        read_index(source)
    with open_video(name, **options) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        # AVI numbers its frames, and FFmpeg misorders these numbers where B-frames are packed
        base = None if container.format.name == "avi" else stream.time_base
        draw = Draw(short_side)
        index, seconds, origin = 0, 0.0, None
        try:
            for frame in _plain(container, stream, source if live else None):
                if index:
                    stamped = None if None in (base, origin, frame.pts) else float((frame.pts - origin) * base)
                    seconds = stamped if stamped is not None and stamped > seconds else seconds + 1 / rate
                else:
                    origin = frame.pts
                    draw.start(frame)
                pixels = np.empty((*draw.size, 3), np.uint8)
                draw(frame, pixels)
                yield Frame(index, seconds, pixels)
                index += 1
        except FFmpegError as error:
            if not index:
                raise _ended(source, 0, error) from None
            log.warning("%s", _ended(source, index, error))
    if not index:
        raise VideoError(f"{source}: not one frame decodes")


def _locate(source: str) -> tuple[str, dict[str, Any], bool]:
    """What to open, with which options, and whether it is live (a URL or a camera)."""
    device = re.fullmatch(r"camera:(\d+)|(/dev/video\d+)", source)
    if device and sys.platform == "darwin":
        return device[1] or "0", {"format": "avfoundation", "options": {"framerate": "30"}}, True
    if device:
        return device[2] or f"/dev/video{device[1]}", {"format": "v4l2"}, True
    if re.match(r"[a-z][a-z0-9+.-]+://", source):
        return source, {"timeout": (10.0, 10.0)}, True  # seconds to open and to read
    return source, {}, False


def _plain(container: Any, stream: Any, live: Source | None = None) -> Iterator[av.VideoFrame]:
    """Every frame in the decoder's order.

    Damaged packets before the first sound one are passed over: a recording cut out of a stream begins with such. At a later
    one the frames still in the decoder come, then its error is raised; in a live source it is only logged.
    """
    started, problem = False, None
    try:
        for packet in packets(container, stream):
            try:
                frames = stream.decode(packet)
            except FFmpegError as error:
                problem = error
                if live is not None:
                    log.warning("%s: damaged packet: %s", live, reason(error))
                elif started:
                    break
                continue
            if not started or live is not None:
                started, problem = True, None
            yield from frames
    except FFmpegError as error:
        problem = error
    try:
        yield from stream.decode(None)
    except FFmpegError as error:
        problem = problem or error
    if problem is not None:
        raise problem


def _planned(container: Any, stream: Any, plan: Plan, numbers: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames `numbers` (rising) with their numbers, decoding only what they need.

    Every packet is tagged with its own number and the decoder must give back, in the foretold order, all that it was fed.
    """
    # concealment of damage may draw on pictures that are left out here, so damage must surface
    stream.codec_context.options = {"err_detect": "explode"}
    wanted = {int(plan.packet[number]): number for number in numbers}
    feed = np.zeros(len(plan.origin), bool)
    for packet in wanted:
        start = plan.origin[packet]
        feed[start:packet] |= plan.reference[start:packet]
        feed[packet] = True
    expected = iter(plan.packet[feed[plan.packet]].tolist())
    for fed in _fed(container, stream, plan, np.flatnonzero(feed).tolist()):
        for frame in stream.decode(fed):
            tag = next(expected, None)
            if frame.pts != tag or frame.is_corrupt:
                raise _PlanError(f"packet {frame.pts} came instead of {tag}")
            if tag in wanted:
                yield wanted[tag], frame
    tag = next(expected, None)
    if tag is not None:
        raise _PlanError(f"packet {tag} did not come out")


def _fed(container: Any, stream: Any, plan: Plan, targets: list[int]) -> Iterator[av.Packet | None]:
    """The packets `targets`, tagged; None where the decoder is to be drained, at the end and before a seek."""
    unpack = unpacker(stream)
    source = (part for packet in packets(container, stream) for part in unpack(packet))
    number = 0
    for target in targets:
        if plan.stamp is not None and target - number > _SEEK and plan.origin[target] == target:
            if number:
                yield None
            container.seek(int(plan.stamp[target]), stream=stream)
            source, number = packets(container, stream), -1
        for packet in source:
            if number < 0:
                number = int(np.searchsorted(plan.position, packet.pos))
                if number > target or plan.position[number] != packet.pos:
                    raise _PlanError(f"a seek to packet {target} went elsewhere")
            number += 1
            if number > target:
                packet.pts = target
                yield packet
                break
    yield None


def _collect(path: Source, slots: dict[int, list[int]], draw: Draw, plan: Plan | None) -> np.ndarray:
    """The clip: frame numbers → their places in it."""
    left, count, problem = dict(slots), 0, None
    total = sum(map(len, slots.values()))
    clip: np.ndarray | None = None
    with open_video(path) as (container, stream):
        frames = _planned(container, stream, plan, sorted(slots)) if plan else enumerate(_plain(container, stream))
        try:
            for number, frame in frames:
                count += 1
                places = left.pop(number, None)
                if places is None:
                    continue
                if clip is None:
                    draw.start(frame)
                    clip = np.empty((total, *draw.size, 3), np.uint8)
                draw(frame, clip[places[0]])
                clip[places[1:]] = clip[places[0]]
                if not left:
                    return clip
        except FFmpegError as error:
            if plan:
                raise
            problem = error
    raise _ended(path, count, problem, max(left))


def _ended(source: Source, count: int, error: Exception | None, wanted: int | None = None) -> VideoError:
    cause = f": {reason(error)}" if error else ""
    if not count:
        return VideoError(f"{source}: not one frame decodes{cause}")
    asked = "" if wanted is None else f", frame {wanted} was asked for"
    return FramesMissing(f"{source}: {'damaged at' if error else 'ends before'} frame {count}{cause}{asked}", count)
