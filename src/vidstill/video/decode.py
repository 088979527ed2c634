"""Frames of a video file, URL or camera as uint8 RGB."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError

from vidstill.video.index import (
    MOST_PIXELS,
    PROTOCOLS,
    FramesMissing,
    Source,
    VideoError,
    VideoInfo,
    frame_rate,
    open_video,
    packets,
    probe,
    read_index,
    reason,
)
from vidstill.video.pixels import Box, Draw, Resize, crop_of, short_side_size
from vidstill.video.plan import Plan, unpacker

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

# a seek costs about as much as reading this many packets without decoding them
_SEEK = 24


class _PlanError(Exception):
    """The file or its decoder did not do what the plan foretold."""


@dataclass(frozen=True)
class Frame:
    """One displayed frame: its number, seconds since the first one, and pixels (H,W,3) uint8 RGB."""

    index: int
    seconds: float
    pixels: np.ndarray

    def resized(self, short_side: int) -> Frame:
        """As `iter_frames` gives it for that short side."""
        height, width = short_side_size(self.pixels.shape[0], self.pixels.shape[1], short_side)
        return replace(self, pixels=cv2.resize(self.pixels, (width, height), interpolation=cv2.INTER_LINEAR))


def read_frames(
    path: Source,
    indices: Sequence[int] | np.ndarray,
    *,
    short_side: int | None = None,
    box: Box | None = None,
    size: tuple[int, int] | None = None,
    resize: Resize | None = None,
) -> np.ndarray:
    """The frames at `indices` (any order, repeats allowed) as displayed: uint8 (T,H,W,3) RGB.

    Frame i is the i-th that a plain decode of the file gives, bit for bit, however few are really decoded.

    `short_side` resizes to it, keeping the aspect: OpenCV's INTER_LINEAR on RGB, sides rounded half up. `box` (x1, y1,
    x2, y2 in displayed source pixels, rounded) with `size` (height, width) crops and resizes in one go. Upright 8-bit
    planar YUV is cropped and resized plane by plane before it becomes RGB: faster, and within a few grey levels of the
    same on RGB, as chroma is cropped to its own samples. `resize` makes something else of each frame (H,W,3) as it
    comes, uint8 and all of one size.

    A stream that changes its size midway is brought to its first size. Raises FramesMissing for an index beyond the
    frames that decode, VideoError for a file that cannot be read.
    """
    wanted = np.asarray(indices, np.int64)
    if wanted.ndim != 1 or not len(wanted) or wanted.min() < 0:
        raise ValueError(f"indices {indices!r}: give at least one frame number, each 0 or more")
    if (box is None) != (size is None) or (box is not None and short_side is not None):
        raise ValueError("give short_side, or box together with size, or none of them")
    slots: dict[int, list[int]] = {}
    for slot, number in enumerate(wanted.tolist()):
        slots.setdefault(number, []).append(slot)
    info, plan = read_index(path)
    if box is not None:
        crop_of(box, info.height, info.width)
    if plan is not None and wanted.max() < len(plan.packet):
        try:
            return _collect(path, slots, Draw(short_side, box, size, resize), plan)
        except (_PlanError, FFmpegError) as error:
            log.debug("%s: plain decode: %s", path, error)
    return _collect(path, slots, Draw(short_side, box, size, resize), None)


def count_frames(path: Source) -> int:
    """How many frames really decode, by decoding all of them.

    Raises FramesMissing (with their number) where damage ends the decode, VideoError where not one frame decodes.
    """
    count = 0
    with open_video(path) as (container, stream):
        try:
            for _ in _plain(container, stream):
                count += 1
        except FFmpegError as error:
            raise _ended(path, count, error) from None
    if not count:
        raise _ended(path, count)
    return count


def iter_frames(source: Source, *, short_side: int | None = None) -> Iterator[Frame]:
    """Every frame of a file, URL (http, rtsp, …) or camera (`camera:0`, `/dev/video0`) as it comes.

    Seconds come from the time stamps, or from the frame rate where these are missing or run backwards. Damage ends a
    file with a logged warning, while a live source goes on after it. Raises VideoError where not one frame comes.
    """
    name, options = _locate(str(source))
    with open_video(name, **options) as (container, stream):
        draw = Draw(short_side)
        rate = frame_rate(stream)
        # AVI numbers its frames, and FFmpeg misorders these numbers where B-frames are packed
        tick = 0.0 if container.format.name == "avi" else float(stream.time_base or 0)
        count, seconds, begin = 0, 0.0, None
        try:
            for frame in _plain(container, stream, live=bool(options)):
                if not count:
                    _start(source, draw, frame, 1)
                    begin = frame.pts
                else:
                    stamped = (frame.pts - begin) * tick if frame.pts is not None and begin is not None else 0.0
                    seconds = stamped if stamped > seconds else seconds + 1 / rate
                pixels = np.empty((*draw.size, 3), np.uint8)
                draw(frame, pixels)
                yield Frame(count, seconds, pixels)
                count += 1
        except FFmpegError as error:
            if not count:
                raise _ended(source, count, error) from None
            log.warning("%s", _ended(source, count, error))
    if not count:
        raise _ended(source, count)


def _locate(source: str) -> tuple[str, dict[str, Any]]:
    """What to open and with which options; a file has none."""
    camera = re.fullmatch(r"camera:(\d+)|(/dev/video\d+)", source)
    if camera and sys.platform == "darwin":
        return camera[1] or "0", {"format": "avfoundation", "options": {"framerate": "30"}}
    if camera:
        return camera[2] or f"/dev/video{camera[1]}", {"format": "v4l2"}
    if re.match(r"[a-z][a-z0-9+.-]+://", source) and not source.startswith("file:"):
        # seconds to open and to read
        return source, {"timeout": (10.0, 10.0), "options": {"protocol_whitelist": PROTOCOLS}}
    return source, {}


def _plain(container: Any, stream: Any, live: bool = False) -> Iterator[av.VideoFrame]:
    """Every frame in the decoder's order.

    Damaged packets before the first sound one are passed over: a recording cut out of a stream begins with such. At a
    later one the frames still in the decoder come, then its error is raised; a live source goes on after it.
    """
    sound, problem = False, None
    try:
        for packet in packets(container, stream):
            try:
                frames = stream.decode(packet)
            except FFmpegError as error:
                problem = error
                if sound and not live:
                    break
                continue
            if not sound or live:
                sound, problem = True, None
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

    Every packet is tagged with its number, and the decoder must give back, in the foretold order, all that it was fed.
    """
    # concealment of damage may draw on pictures that are left out here, so damage must surface
    stream.codec_context.options |= {"err_detect": "explode"}
    wanted = {int(plan.packet[number]): number for number in numbers}
    feed = np.zeros(len(plan.origin), bool)
    feed[: plan.always] = plan.reference[: plan.always]
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
    """The packets `targets`, tagged; None where the decoder is to be drained: before a seek and at the end."""
    unpack = unpacker(stream)
    source = (part for packet in packets(container, stream) for part in unpack(packet))
    number, packet = -1, None
    for target in targets:
        if target - number > _SEEK and plan.stamp is not None and plan.origin[target] == target:
            if number >= 0:
                yield None
            container.seek(int(plan.stamp[target]), stream=stream)
            source = (packet for packet in packets(container, stream))
            packet = next(source, None)
            number = plan.find(packet.pos if packet else None)
        while number < target:
            packet = next(source, None)
            number += 1
        moved = plan.position is not None and packet is not None and packet.pos != plan.position[target]
        if packet is None or number != target or moved:
            raise _PlanError(f"packet {target} is not where it was")
        packet.pts = target
        yield packet
    yield None


def _collect(path: Source, slots: dict[int, list[int]], draw: Draw, plan: Plan | None) -> np.ndarray:
    """The clip, from frame number → its places in the clip."""
    left, count, problem = dict(slots), 0, None
    clip = np.empty(0, np.uint8)
    with open_video(path) as (container, stream):
        frames = _planned(container, stream, plan, sorted(slots)) if plan else enumerate(_plain(container, stream))
        try:
            for number, frame in frames:
                if not count:
                    clip = _start(path, draw, frame, sum(map(len, slots.values())))
                count += 1
                places = left.pop(number, None)
                if places is None:
                    continue
                draw(frame, clip[places[0]])
                clip[places[1:]] = clip[places[0]]
                if not left:
                    return clip
        except FFmpegError as error:
            if plan:
                raise
            problem = error
    raise _ended(path, count, problem, f"; frame {max(left)} was asked for")


def _start(source: Source, draw: Draw, frame: av.VideoFrame, count: int) -> np.ndarray:
    """An empty clip of `count` frames as drawn, of which this is the first that was decoded."""
    try:
        draw.start(frame)
        if draw.size[0] * draw.size[1] > MOST_PIXELS:
            raise ValueError(f"{draw.size[1]}x{draw.size[0]} as drawn")
        return np.empty((count, *draw.size, 3), np.uint8)
    except (ValueError, MemoryError) as error:  # the file states another size, or an absurd one
        raise VideoError(f"{source}: has pictures of {frame.width}x{frame.height} pixels: {reason(error)}") from None


def _ended(source: Source, count: int, error: Exception | None = None, asked: str = "") -> VideoError:
    cause = f": {reason(error)}" if error else ""
    if not count:
        return VideoError(f"{source}: not one frame decodes{cause}")
    return FramesMissing(f"{source}: {'damaged at' if error else 'ends before'} frame {count}{cause}{asked}", count)
