"""Which packets a frame needs, found by letting the decoder run over the headers of all packets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError

from vidstill.video.pictures import H264, HeaderError, Jpeg, Mpeg4, Picture
from vidstill.video.pixels import Orientation, orientation


@dataclass(frozen=True)
class Plan:
    """Which packets a frame needs. Packets are counted in file order, after unpacking.

    `packet` (frames,): the one that holds each frame. For each packet: `origin`, where to start decoding for it;
    `reference`, whether other pictures need it; decoding time `stamp` and byte `position`, to seek it (None: no need).
    The references among the first `always` packets go before all else.
    """

    packet: np.ndarray
    origin: np.ndarray
    reference: np.ndarray
    stamp: np.ndarray | None = None
    position: np.ndarray | None = None
    always: int = 0

    def find(self, position: int | None) -> int:
        """Number of the packet at a byte position; one beyond the last where there is none."""
        if self.position is None or position is None:
            return len(self.origin)
        number = int(np.searchsorted(self.position, position))
        return number if number < len(self.position) and self.position[number] == position else len(self.origin)


def unpacker(stream: Any) -> Callable[[av.Packet], list[av.Packet]]:
    """Splits packed MPEG-4 packets (two pictures in one), so that each picture can be left out by itself."""
    if stream.codec_context.name == "mpeg4":
        return BitStreamFilterContext("mpeg4_unpack_bframes", stream).filter
    return lambda packet: [packet]


def _lasts(packet: av.Packet) -> bool:
    """Whether a packet brings, beside its data, what the decoder keeps for those that follow."""
    return any(data.data_type in ("new_extradata", "param_change", "palette") for data in packet.iter_sidedata())


def _whole(data: bytes) -> Picture:
    """A picture that is its packet."""
    return Picture(True, False, data)


class Trial:
    """A decode of all packets, each cut down to its headers, that shows what a plain decode of them gives.

    Nothing is foretold that the decoder then does otherwise: it tells in which order frames come, and where a packet
    gives none. `sound` as long as headers are understood and decode; else there is no plan. `first` is the size of the
    first frame and how it is turned.
    """

    def __init__(self, stream: Any) -> None:
        self.codec = stream.codec_context
        self.unpack = unpacker(stream)
        self.pictures: list[Picture] = []
        self.frames: list[int] = []  # numbers of their pictures, in the decoder's order
        self.first: tuple[int, int, Orientation] | None = None
        self.form: tuple[Any, ...] | None = None
        self.sound = True
        # pictures without data are neither filtered nor concealed, which would take longer than all else
        options = {"ec": "0", "skip_loop_filter": "all"}
        try:
            if self.codec.name == "h264":
                self.read = H264(self.codec.extradata).read
            elif self.codec.name == "mpeg4":
                self.mpeg4 = Mpeg4(self.codec.extradata)
                self.read = self.mpeg4.read
            elif self.codec.name == "mjpeg":
                self.read = Jpeg().read
            elif self.codec.name == "rawvideo":
                self.read = _whole
            else:  # other codecs of key frames alone may leave what they miss of a picture as it was in an earlier one
                self.sound = False
        except (ValueError, IndexError):
            self.sound = False
        if self.sound:
            self.codec.options |= options

    def feed(self, packet: av.Packet) -> None:
        if not self.sound:
            return
        try:
            if packet.is_corrupt or _lasts(packet):
                raise HeaderError("a packet that is damaged, or changes the decoder")
            data = bytes(packet)
            if self.codec.name == "mpeg4":
                self.mpeg4.check(data)
                # a copy, as the filter takes what it is given
                parts = [bytes(part) for part in self.unpack(av.Packet(data))]
            else:
                parts = [data]
            for part in parts:
                picture = self.read(part)
                headers = av.Packet(picture.short)
                headers.pts = len(self.pictures)
                self.pictures.append(picture)
                self._take(self.codec.decode(headers))
        except (ValueError, IndexError, FFmpegError):
            self.sound = False

    def end(self) -> None:
        """After the last packet."""
        if self.sound:
            try:
                self._take(self.codec.decode(None))
            except (ValueError, FFmpegError):
                self.sound = False

    def _take(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            turn = orientation(frame)
            form = frame.format.name, frame.height, frame.width, turn
            if self.first is None:
                self.first, self.form = (frame.height, frame.width, turn), form
            if form != self.form:
                raise HeaderError("pictures of several sizes")
            if frame.pts is None:
                raise HeaderError("a frame of no packet")
            self.frames.append(frame.pts)

    def plan(self, hidden: np.ndarray, stamp: np.ndarray | None, position: np.ndarray | None) -> Plan | None:
        """Of the whole file, once it is at its end, with the decoding time stamps and byte positions of its packets.

        `hidden` packets are decoded but not shown. None unless each picture became one frame.
        """
        pictures = [number for number, picture in enumerate(self.pictures) if not picture.dropped]
        if not self.sound or sorted(self.frames) != pictures or (hidden.any() and len(self.pictures) != len(hidden)):
            return None
        order = np.array(self.frames, np.int32)
        if hidden.any():
            order = order[~hidden[order]]
        origin = np.zeros(len(self.pictures), np.int32)
        start = before = 0
        for number, picture in enumerate(self.pictures):
            if picture.restart:
                before, start = start, number
            origin[number] = before if picture.leading else start
        reference = np.array([picture.reference for picture in self.pictures], bool)
        landings: tuple[Any, ...] = ()
        # to seek, positions must tell packets apart, and pictures be packets
        if self.codec.name != "mpeg4" and stamp is not None and position is not None and (np.diff(position) > 0).all():
            landings = stamp, position
        plan = Plan(order, origin, reference, *landings)
        if self.codec.name == "mpeg4":
            # how the first pictures end tells FFmpeg whether their encoder pads them, and so what is damage later on
            plan = replace(plan, always=int(np.flatnonzero(reference)[:3].max(initial=-1)) + 1)
        return plan
