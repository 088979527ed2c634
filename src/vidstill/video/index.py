"""Opening videos, and what their packets tell without decoding them: frame count, rate, size, how to reach a frame."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import ArgumentError, ExitError, FFmpegError, InvalidDataError
from av.stream import Disposition

from vidstill.video.pixels import UPRIGHT, Orientation, orientation
from vidstill.video.plan import Plan, Trial
from vidstill.video.source import File, VideoError, VideoInfo, local

# Containers and raw streams of video that need no other file than themselves: so no playlists (hls, dash, concat), no
# descriptions of sessions (sdp), no patterns of picture files (image2), no formats of several files (vobsub, mlv) and
# no text drawn as a terminal would (tty).
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,kux,asf,asf_o,ogg,nut,mxf,gxf,lxf,wtv,"
    "ty,swf,rm,ivr,nsv,nuv,dv,dhav,ifv,pva,pmp,ivf,yuv4mpegpipe,gif,apng,mjpeg,mjpeg_2000,mpjpeg,smjpeg,ingenient,"
    "h261,h263,h264,hevc,vvc,evc,av1,obu,m4v,vc1,vc1test,dirac,dnxhd,cavsvideo,avs,avs2,avs3,apv,jpegxl_anim,"
    "jpeg_pipe,jpegls_pipe,j2k_pipe,jpegxl_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,gif_pipe,cine,ser,filmstrip,"
    "3dostr,4xm,anm,bethsoftvid,bfi,bink,bmv,c93,cdxl,dfa,dsicin,dxa,ea,ea_cdata,film_cpk,flic,frm,gdv,hnm,"
    "idcin,ipmovie,ipu,iv8,jv,lmlm4,mgsts,mm,moflex,msnwctcp,mtv,mv,mvi,mxg,nc,paf,pdv,psxstr,rl2,roq,rpl,sdr2,sga,siff,"
    "simbiosis_imx,smk,smush,thp,tiertexseq,tmv,usm,vividas,vivo,vmd,wc3movie,wsvqa,xmv,yop"
)

# A URL reaches other hosts, and what it names (a playlist, say) no local file
PROTOCOLS = (
    "http,https,httpproxy,tcp,udp,udplite,tls,dtls,rtp,srtp,rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,ffrtmpcrypt,"
    "ffrtmphttp,rtsp,srt,rist,mms,mmsh,mmst,ftp,sftp,crypto,data"
)

# Two 8K pictures, one above the other, as stereo video has; a damaged header may state anything
MOST_PIXELS = 8192 * 8192

# What `vidstill.video.intra` writes as comment of a file: the rate and ticks of the video that it was made of
_INTRA = re.compile(r"vidstill intra frames, fps ([\d.e+-]+), ticks (\d+)")

# Frames per second that a clock may have: a time lapse, a high-speed camera
_SLOWEST, _FASTEST = 1e-4, 1e5


def reason(error: Exception) -> str:
    """The cause in a few words: FFmpeg's text without its number, file and function."""
    if isinstance(error, ExitError):  # of PyAV where its time limit is over
        return "nothing came in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[0].lower() + text[1:]


@contextmanager
def open_video(source: File, **options: Any) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream (cover pictures left aside), with one decoder thread.

    `options` of PyAV open anything but a file. A file is read alone, whatever it names, and through FFmpeg's `file:`
    protocol, because a colon in its name would read as another protocol. Raises VideoError.
    """
    if options:
        url = str(source)
    else:
        check_file(source)
        url = f"file:{Path(local(source)).absolute()}"
        options = {"options": {"protocol_whitelist": "file", "format_whitelist": _FORMATS}}
    try:
        container = av.open(url, metadata_errors="replace", **options)
    except (OSError, ValueError, FFmpegError) as error:
        if isinstance(error, ArgumentError) and url.startswith("file:"):
            raise VideoError(f"{source}: holds no video: text, playlists and lists of pictures are not read") from None
        what = "not a video that FFmpeg reads" if isinstance(error, InvalidDataError) else "cannot be opened"
        raise VideoError(f"{source}: {what}: {reason(error)}") from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError(f"{source}: holds no video")
        if streams[0].codec_context is None:
            raise VideoError(f"{source}: FFmpeg has no decoder for its video")
        streams[0].thread_type, streams[0].thread_count = "NONE", 1
        streams[0].codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        yield container, streams[0]


def packets(container: Any, stream: Any) -> Iterator[av.Packet]:
    """The packets that hold data. Empty ones mark dropped frames, or the end, and would end the decoder early."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except IndexError:  # PyAV at the end, of a stream that came up on the way
        return


class Index(NamedTuple):
    """What the packets of a file tell. `frames` is what a sound file decodes to, whatever its container declares.

    `plan`: how to reach a frame with little work, where the headers are understood. `stamps` (frames,): the time stamps
    of the frames in their order, in units of `tick` seconds, where each frame has its own; `keys`: those at which a
    decoder can begin.
    """

    info: VideoInfo
    plan: Plan | None
    stamps: np.ndarray | None
    keys: np.ndarray
    tick: float

    @property
    def seconds(self) -> np.ndarray | None:
        """Time of each frame after the first."""
        return None if self.stamps is None else (self.stamps - self.stamps[0]) * self.tick


def read_index(path: File) -> Index:
    """The index of a file; a first picture is decoded at most. Raises VideoError.

    Kept for the life of the process, as long as the file's size and time stay the same.
    """
    stat = check_file(path)
    return _scan(os.fspath(path), stat.st_size, stat.st_mtime_ns)


def check_file(path: File) -> os.stat_result:
    """The size and times of a file; VideoError where there is none, or nothing in it."""
    file = local(path)
    try:
        stat = Path(file).stat()
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be opened: {reason(error)}") from None
    if S_ISDIR(stat.st_mode):
        raise VideoError(f"{path}: is a folder, and holds no numbered pictures (img_00001.jpg, 00001.jpg)")
    if not S_ISREG(stat.st_mode):  # opening a pipe may wait for ever
        raise VideoError(f"{path}: is a pipe, socket or device, not a file")
    if not stat.st_size:
        raise VideoError(f"{path}: is empty")
    return stat


@lru_cache(maxsize=8192)  # up to 7 kB for a 10 s clip
def _scan(path: str, size: int, mtime: int) -> Index:
    with open_video(path) as (container, stream):
        if stated := _stated(container, stream, size):
            return stated
        codec, trial = stream.codec_context, Trial(stream)
        turns = not {"mov", "matroska"}.isdisjoint(container.format.name.split(","))
        first: tuple[int, int, Orientation] | None = None
        shown, stamps, positions, hidden, keys = [], [], [], [], []
        try:
            for packet in packets(container, stream):
                shown.append(packet.pts)
                stamps.append(packet.pts if packet.dts is None else packet.dts)
                positions.append(packet.pos)
                keys.append(packet.is_keyframe)
                hidden.append(packet.is_discard or (codec.name == "vp8" and not _is_shown(packet)))
                trial.feed(packet)
                if turns and not trial.sound and first is None and packet.is_keyframe and not packet.is_discard:
                    first = trial.first or _first_picture(codec, packet)
            trial.end()
        except FFmpegError:
            trial.sound = False
        absent = np.array(hidden, bool)
        plan = trial.plan(absent, _int64(stamps), _int64(positions))
        counted = plan.packet if plan else trial.frames if trial.sound and not absent.any() else absent[~absent]
        frames = len(counted)
        if not frames:
            raise VideoError(f"{path}: holds no frames")
        height, width, turn = trial.first or first or (codec.height, codec.width, UPRIGHT)
        if not (height > 0 < width and height * width <= MOST_PIXELS):
            raise VideoError(f"{path}: has pictures of {width}x{height} pixels")
        height, width = turn.size(height, width)
        times = _int64(shown)
        rate, tick = frame_rate(stream, times), float(stream.time_base or 0)
        ticks = max(1, round(1 / (rate * tick))) if stream.duration and tick > 0 else 0
        info = VideoInfo(frames, rate, width, height, turn.rotation, codec.codec.canonical_name, ticks)
        of_frames = None if times is None else np.unique(times[~absent])
        if of_frames is not None and (len(of_frames) != frames or tick <= 0):
            of_frames = None
        beginnings = np.empty(0, np.int64) if of_frames is None or times is None else times[np.array(keys) & ~absent]
        return Index(info, plan, of_frames, np.sort(beginnings), tick)


def intra_mark(fps: float, ticks: int) -> str:
    return f"vidstill intra frames, fps {float(fps)!r}, ticks {ticks}"


def stated_seconds(path: File) -> float:
    """From the first frame to the end of the last one, of a file with `intra_mark`; 0 for any other."""
    with open_video(path) as (container, stream):
        stated = _stated(container, stream, check_file(path).st_size)
    return float(stated.seconds[-1] + 1 / stated.info.fps) if stated and stated.seconds is not None else 0.0


def _stated(container: Any, stream: Any, size: int) -> Index | None:
    """The index of a file of key frames that this package wrote and decoded once: its header states it, so that no
    packet is read. None for any other file."""
    mark = _INTRA.fullmatch(container.metadata.get("comment", ""))
    codec, tick = stream.codec_context, float(stream.time_base or 0)
    if not mark or codec.name != "mjpeg" or not tick:
        return None
    entries = [(e.pos, e.timestamp, e.size) for e in stream.index_entries if e.is_keyframe and not e.is_discard]
    if not entries or len(entries) != len(stream.index_entries):
        return None
    positions, stamps, sizes = np.array(entries, np.int64).T
    rising = (np.diff(positions) > 0).all() and (np.diff(stamps) > 0).all()
    if not rising or sizes.min() <= 0 or positions[-1] + sizes[-1] > size:
        return None
    every = np.arange(len(entries), dtype=np.int32)
    plan = Plan(every, every, np.zeros(len(entries), bool), stamps, positions)
    info = VideoInfo(len(entries), float(mark[1]), codec.width, codec.height, 0, "mjpeg", int(mark[2]))
    return Index(info, plan, stamps, stamps, tick)


def _int64(values: list[int | None]) -> np.ndarray | None:
    return None if None in values else np.array(values, np.int64)


def _is_shown(packet: av.Packet) -> bool:
    """show_frame of VP8 (RFC 6386 §9.1)."""
    return bool(bytes(packet)[0] & 16)


def _first_picture(codec: Any, packet: av.Packet) -> tuple[int, int, Orientation] | None:
    """Decoded height and width, and orientation, of a key frame; the decoder is not used afterwards."""
    try:
        frames = codec.decode(packet) or codec.decode(None)
    except FFmpegError:
        return None
    return (frames[0].height, frames[0].width, orientation(frames[0])) if frames else None


def frame_rate(stream: Any, shown: np.ndarray | None = None) -> float:
    """Frames per second: the average, or, where one absurd time stamp of those `shown` spoils that, the most usual.

    25 where none of these is a rate.
    """
    average = float(stream.average_rate or stream.guessed_rate or 0)
    if shown is not None and len(shown) > 2:
        step = float(np.median(np.diff(np.sort(shown)))) * float(stream.time_base or 0)
        if step > 0 and not 0.01 < average * step < 100:
            average = 1 / step
    return average if _SLOWEST <= average <= _FASTEST else 25.0
