"""Frames of a video file, frame folder, URL or camera as uint8 RGB."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError

from vidstill.video.frame_folder import is_frame_folder, iter_folder, probe_folder, read_folder
from vidstill.video.index import MOST_PIXELS, PROTOCOLS, Index, frame_rate, open_video, packets, read_index, reason
from vidstill.video.pixels import Box, Draw, Resize, crop_of, short_side_size
from vidstill.video.plan import Plan, unpacker
from vidstill.video.source import FramesMissing, Source, Video, VideoError, VideoInfo, as_video, frames_of

__all__ = [
    "Frame",
    "FramesMissing",
    "Source",
    "Video",
    "VideoError",
    "VideoInfo",
    "count_frames",
    "iter_frames",
    "probe",
    "read_frames",
]

log = logging.getLogger(__name__)

Numbered = Iterator[tuple[int, av.VideoFrame]]
Reach = Callable[[Any, Any, list[int]], Numbered]  # (container, stream, rising numbers of frames)

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


def probe(source: Source) -> VideoInfo:
    """Frames, rate and displayed size of a file, from its packets, of a frame folder, from its names and first picture,
    or of a stretch of either: `frames` and `seconds` are then those of the stretch.

    `frames` is what a sound file decodes to, whatever its container declares. Raises VideoError.
    """
    video = as_video(source)
    info, frames, _ = _look_up(video)
    return replace(info, frames=len(frames)) if video.is_stretch else info


def read_frames(
    source: Source,
    indices: Sequence[int] | np.ndarray,
    *,
    short_side: int | None = None,
    box: Box | None = None,
    size: tuple[int, int] | None = None,
    resize: Resize | None = None,
) -> np.ndarray:
    """The frames at `indices` (any order, repeats allowed) as displayed: uint8 (T,H,W,3) RGB.

    Frame i is the i-th that a plain decode of the file gives, bit for bit, however few are really decoded; of a stretch
    (see `Video`) the i-th of it, for which the file is sought and not decoded from its beginning.

    `short_side` resizes to it, keeping the aspect: OpenCV's INTER_LINEAR on RGB, sides rounded half up. `box` (x1, y1,
    x2, y2 in displayed source pixels, rounded) with `size` (height, width) crops and resizes in one go. Upright 8-bit
    planar YUV is cropped and resized plane by plane before it becomes RGB: faster, and within a few grey levels of the
    same on RGB, as chroma is cropped to its own samples; the pictures of a frame folder are decoded at 1/2, 1/4 or 1/8
    where that has the pixels. `resize` makes something else of each frame (H,W,3) as it comes, uint8 and all of one
    size.

    A stream that changes its size midway is brought to its first size. Raises FramesMissing for an index beyond the
    frames that decode, VideoError for a file that cannot be read.
    """
    wanted = np.asarray(indices, np.int64)
    if wanted.ndim != 1 or not len(wanted) or wanted.min() < 0:
        raise ValueError(f"indices {indices!r}: give at least one frame number, each 0 or more")
    if (box is None) != (size is None) or (box is not None and short_side is not None):
        raise ValueError("give short_side, or box together with size, or none of them")
    video = as_video(source)
    info, frames, index = _look_up(video)
    if video.is_stretch and wanted.max() >= len(frames):
        raise _ended(source, len(frames), asked=f"; frame {wanted.max()} was asked for")
    if box is not None:
        crop_of(box, info.height, info.width)
    slots: dict[int, list[int]] = {}
    for slot, number in enumerate((wanted + frames.start).tolist()):
        slots.setdefault(number, []).append(slot)
    draw = Draw(short_side, box, size, resize)
    if index is None:
        return read_folder(video.path, slots, draw)
    try:
        return _read_file(video, slots, draw, index)
    except FramesMissing as missing:
        if not frames.start:
            raise
        raise FramesMissing(str(missing), max(0, missing.available - frames.start)) from None


def count_frames(source: Source) -> int:
    """How many frames really decode, by decoding all of them, of a stretch those of the whole file.

    Raises FramesMissing (with their number) where damage ends the decode, VideoError where not one frame decodes.
    """
    path, count = as_video(source).path, 0
    if is_frame_folder(path):
        try:
            for _ in iter_folder(path):
                count += 1
        except VideoError as error:
            raise FramesMissing(str(error), count) if count else error from None
        return count
    with open_video(path) as (container, stream):
        try:
            for _ in _plain(container, stream):
                count += 1
        except FFmpegError as error:
            raise _ended(source, count, error) from None
    if not count:
        raise _ended(source, count)
    return count


def iter_frames(source: Source, *, short_side: int | None = None) -> Iterator[Frame]:
    """Every frame of a file, frame folder, stretch of either, URL (http, rtsp, …) or camera (`camera:0`, `/dev/video0`)
    as it comes.

    Seconds come from the time stamps, or from the frame rate where these are missing or run backwards. Damage ends a
    file with a logged warning, while a live source goes on after it. Raises VideoError where not one frame comes.
    """
    if isinstance(source, Video) or is_frame_folder(source) or ("#t=" in str(source) and as_video(source).is_stretch):
        yield from _iter_video(as_video(source), short_side)
        return
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


def _iter_video(video: Video, short_side: int | None) -> Iterator[Frame]:
    """Of a frame folder or a stretch; seconds count from the first frame that is shown."""
    info, frames, index = _look_up(video)
    if index is None:
        pictures = (Frame(n, n / info.fps, pixels) for n, pixels in enumerate(iter_folder(video.path)))
        shown: Iterator[Frame] = (frame if short_side is None else frame.resized(short_side) for frame in pictures)
    else:
        shown = iter_frames(video.path, short_side=short_side)
    begin = None
    for frame in shown:
        if frame.index in frames:
            begin = frame.seconds if begin is None else begin
            yield Frame(frame.index - frames.start, frame.seconds - begin, frame.pixels)
        elif begin is not None:
            break


def _look_up(video: Video) -> tuple[VideoInfo, range, Index | None]:
    """Of the whole file or frame folder, which has no index; and the frames that are meant."""
    index = None if is_frame_folder(video.path) else read_index(video.path)
    info = index.info if index else probe_folder(video.path, video.fps)
    if not video.is_stretch:
        return info, range(info.frames), index
    return info, frames_of(video, info, index.seconds if index else None), index


def _read_file(video: Video, slots: dict[int, list[int]], draw: Draw, index: Index) -> np.ndarray:
    """The clip, in the quickest way that gives the right frames."""
    if index.plan is not None and max(slots) < len(index.plan.packet):
        try:
            return _collect(video.path, slots, draw, partial(_planned, index.plan))
        except (_PlanError, FFmpegError) as error:
            log.debug("%s: plain decode: %s", video, error)
    elif video.is_stretch and index.stamps is not None and min(slots) > _SEEK:
        try:
            return _collect(video.path, slots, draw, partial(_sought, index.stamps, index.keys))
        except (_PlanError, FFmpegError) as error:
            log.debug("%s: decode from the beginning: %s", video, error)
    return _collect(video.path, slots, draw, None)


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


def _planned(plan: Plan, container: Any, stream: Any, numbers: list[int]) -> Numbered:
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


def _sought(stamps: np.ndarray, keys: np.ndarray, container: Any, stream: Any, numbers: list[int]) -> Numbered:
    """All frames from the last key frame before the first of `numbers` on, told by their time stamps."""
    begin = keys[max(0, int(np.searchsorted(keys, stamps[numbers[0]], side="right")) - 1)] if len(keys) else stamps[0]
    container.seek(int(begin), stream=stream)
    for frame in _plain(container, stream):
        if frame.pts is None:
            raise _PlanError("a frame without time stamp")
        if frame.pts < begin:  # leads the key frame, and lacks what it refers to
            continue
        number = int(np.searchsorted(stamps, frame.pts))
        if number == len(stamps) or stamps[number] != frame.pts:
            raise _PlanError(f"a frame at {frame.pts}, where none is expected")
        yield number, frame


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


def _collect(path: Path, slots: dict[int, list[int]], draw: Draw, reach: Reach | None) -> np.ndarray:
    """The clip, from frame number → its places in the clip. `reach` gives the frames; None: a plain decode does."""
    left, count, problem = dict(slots), 0, None
    clip = np.empty(0, np.uint8)
    with open_video(path) as (container, stream):
        frames = reach(container, stream, sorted(slots)) if reach else enumerate(_plain(container, stream))
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
            if reach:
                raise
            problem = error
    if reach:
        raise _PlanError(f"frame {max(left)} did not come")
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
