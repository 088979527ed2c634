"""Headers of coded pictures: H.264, MPEG-4 part 2 and JPEG.

They tell which pictures others refer to and where decoding can start. Each reader also cuts a packet down to its
headers: fed with these, the decoder runs through a file in little time and shows which frames come, in which order.
Only a few leading bits are read (ITU-T H.264 §7.3, ISO/IEC 14496-2 §6.2, ITU-T T.81 §B). Whatever is not understood, or
lets a picture depend on more than is followed here, raises HeaderError, and the caller decodes without this knowledge.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# profiles whose sequence parameter set carries the chroma format (H.264 §7.3.2.1.1)
_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}

# Bytes kept of coded data: slice headers with weights for many references take some 40. A picture with a longer header
# does not decode from them, and its file gets no plan.
_KEPT = 48

_VOP = b"\0\0\1\xb6"
_VOPS = re.compile(re.escape(_VOP))
# a group of VOPs: its time differs in each
_GROUP = re.compile(rb"\x00\x00\x01\xb3.*?(?=\x00\x00\x01|\Z)", re.DOTALL)
_PACKED = re.compile(rb"DivX\d+(?:b|Build)\d+p")
_PLACEHOLDER = 19  # most bytes of a VOP that FFmpeg takes for the placeholder of a packed one
_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7]")  # one that does not belong to the entropy-coded data of a JPEG


class HeaderError(ValueError):
    """Headers outside of what is understood here."""


class Picture(NamedTuple):
    """One packet's picture.

    `restart`: it and what is decoded after it need nothing that precedes it, `leading` pictures aside, which need the
    pictures before that restart too. `reference`: others may need it. `dropped`: the packet stands for a frame that is
    not there. `short`: the packet without most of its coded data, with which the decoder's order is the same.
    """

    restart: bool
    reference: bool
    short: bytes
    leading: bool = False
    dropped: bool = False


class _Bits:
    """Big-endian bit reader; reading past the end raises ValueError (a negative shift)."""

    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "big")
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        self.left -= count
        return (self.value >> self.left) & ((1 << count) - 1)

    def golomb(self) -> int:
        """Unsigned Exp-Golomb code, H.264 §9.1."""
        zeros = self.left - (self.value & ((1 << self.left) - 1)).bit_length()
        self.left -= zeros
        return self.take(zeros + 1) - 1


class H264:
    """Reader of length-prefixed (MP4, Matroska) H.264 packets, in decoding order."""

    def __init__(self, extradata: bytes | None) -> None:
        if not extradata or len(extradata) < 7 or extradata[0] != 1:
            raise HeaderError("no avcC record")
        self.prefix = (extradata[4] & 3) + 1
        self.known: set[bytes] = set()
        at = 5
        for mask in (31, 255):  # count of sequence, then of picture parameter sets
            count = extradata[at] & mask
            at += 1
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2], "big")
                self.known.add(extradata[at + 2 : at + 2 + size])
                at += 2 + size
        sequences = [nal for nal in self.known if nal and nal[0] & 31 == 7]
        if len(sequences) != 1:
            raise HeaderError(f"{len(sequences)} sequence parameter sets")
        self._read_sequence(sequences[0])
        self.expected = -1

    def _read_sequence(self, nal: bytes) -> None:
        bits = _Bits(nal[1:].replace(b"\0\0\3", b"\0\0"))
        profile = bits.take(8)
        bits.take(16)
        bits.golomb()
        if profile in _HIGH_PROFILES:
            if bits.golomb() == 3 and bits.take(1):
                raise HeaderError("separate colour planes")
            bits.golomb()
            bits.golomb()
            if bits.take(2) & 1:
                raise HeaderError("scaling matrices")
        self.frame_num_bits = bits.golomb() + 4
        order_type = bits.golomb()
        if order_type == 1:
            raise HeaderError("picture order count type 1")
        if order_type == 0:
            bits.golomb()
        bits.golomb()
        bits.take(1)
        bits.golomb()
        bits.golomb()
        self.frames_only = bits.take(1)

    def read(self, data: bytes) -> Picture:
        at, pictures, header = 0, 0, b""
        short: list[bytes] = []
        while at < len(data):
            size = int.from_bytes(data[at : at + self.prefix], "big")
            at += self.prefix
            nal = data[at : at + size]
            # only an end of sequence or stream has no more than its type, and FFmpeg may take one that stands first for
            # the start code of another framing
            if size < 1 + (at == self.prefix) or at + size > len(data) or nal[0] & 0x80:
                raise HeaderError("damaged NAL unit")
            kind = nal[0] & 31
            if kind in (1, 5):
                if nal[1] & 0x80:  # first_mb_in_slice 0: a picture starts
                    pictures += 1
                    header = nal[:20]
                if header[:1] != nal[:1]:
                    raise HeaderError("slices of different kinds in a picture")
                nal = nal[:_KEPT]
            elif kind in (2, 3, 4) or (kind in (7, 8) and nal not in self.known):
                raise HeaderError(f"NAL unit type {kind}")
            short += [len(nal).to_bytes(self.prefix, "big"), nal]
            at += size
        if pictures != 1:
            raise HeaderError(f"{pictures} pictures in a packet")
        return self._read_slice(header, b"".join(short))

    def _read_slice(self, nal: bytes, short: bytes) -> Picture:
        restart, reference = nal[0] & 31 == 5, bool(nal[0] & 0x60)
        bits = _Bits(nal[1:].replace(b"\0\0\3", b"\0\0"))
        for _ in range(3):
            bits.golomb()
        number = bits.take(self.frame_num_bits)
        if not self.frames_only and bits.take(1):
            raise HeaderError("field pictures")
        # for a number that is left out the decoder makes up references
        if number != (0 if restart else self.expected):
            raise HeaderError(f"frame number {number}, not {self.expected}")
        if reference:
            self.expected = (number + 1) % (1 << self.frame_num_bits)
        return Picture(restart, reference, short)


class Mpeg4:
    """Reader of MPEG-4 part 2 packets, in decoding order: `check` each as it is, then `read` it unpacked."""

    def __init__(self, extradata: bytes | None) -> None:
        self.time_bits = self.kept = 0
        self.interlaced = False
        self.packed = bool(_PACKED.search(extradata or b""))
        self.pending = False  # whether the decoder holds a B-VOP that came in the packet of another VOP
        self.lead: tuple[bytes, int] | None = None  # headers before the first VOP, its group's taken out and counted
        self.references = 0  # since the last restart
        self._read_layer(extradata or b"")

    def _read_layer(self, data: bytes) -> None:
        at = data.find(b"\0\0\1\x20")
        if at < 0:
            return
        bits = _Bits(data[at + 4 : at + 44])
        bits.take(9)
        if bits.take(1):
            bits.take(7)
        if bits.take(4) == 15:
            bits.take(16)
        if bits.take(1):
            bits.take(3)
            if bits.take(1):
                bits.take(79)
        if bits.take(2):
            raise HeaderError("pictures of another shape than a rectangle")
        bits.take(1)
        self.time_bits = max((bits.take(16) - 1).bit_length(), 1)
        bits.take(1)
        if bits.take(1):
            bits.take(self.time_bits)
        bits.take(1)
        width, _, height, _ = bits.take(13), bits.take(1), bits.take(13), bits.take(1)
        # FFmpeg refuses a picture with less than about half a bit for each macroblock
        self.kept = _KEPT + -(-width // 16) * -(-height // 16) // 8
        self.interlaced = bool(bits.take(1))

    def check(self, data: bytes) -> None:
        """Raises HeaderError where the decoder may take a packet for other VOPs than the unpacker makes of it.

        A packet has one VOP. In a packed file it may have a reference and a B-VOP; then come single B-VOPs, at each of
        which the decoder gives the one before, and a placeholder, at which it gives the last.
        """
        starts = [match.end() for match in _VOPS.finditer(data)]
        kinds = [data[start] >> 6 for start in starts]
        if self.lead is None and starts:
            self.packed |= bool(_PACKED.search(data, 0, starts[0]))
        if self.pending:
            self.pending = len(data) > _PLACEHOLDER
            if starts != [4] or (kinds[0] != 2 if self.pending else kinds[0] in (0, 2)):
                raise HeaderError("neither a B-VOP nor a placeholder after a packed one")
        elif len(starts) > 1:
            self.pending = True
            if not self.packed or len(starts) > 2 or kinds[0] == 2 or kinds[1] != 2:
                raise HeaderError("several pictures in a packet")

    def read(self, data: bytes) -> Picture:
        at = data.find(_VOP)
        if at < 0:
            if len(data) > 1:  # one byte stands for a dropped frame
                raise HeaderError("no picture in a packet")
            return Picture(False, False, data, dropped=True)
        lead = _GROUP.subn(b"", data[:at])
        if self.lead is None:
            self._read_layer(lead[0])
            self.lead = lead
        if not self.time_bits:
            raise HeaderError("no video object layer header")
        bits = _Bits(data[at + 4 : at + 20])
        kind = bits.take(2)
        while bits.take(1):
            pass
        bits.take(self.time_bits + 2)
        if not bits.take(1):  # a placeholder without the packed picture for which it stands: no frame
            return Picture(False, False, data)
        if lead[0] and (kind or lead[0] != self.lead[0]):
            raise HeaderError("headers that change")
        # What a header says of time and encoder holds until the next one, so all starts must have the same.
        restart = not kind and lead == self.lead
        if kind != 2:
            self.references = 1 if restart else self.references + 1
        if kind == 2 and self.interlaced:  # the first one sets the unit of time for those that follow
            raise HeaderError("B-VOPs of interlaced pictures")
        return Picture(restart, kind != 2, data[: at + self.kept], leading=kind == 2 and self.references < 2)


class Jpeg:
    """Reader of packets with one baseline JPEG picture each, which bring all the tables that the first one brought."""

    def __init__(self) -> None:
        self.first: list[tuple[int, bytes]] = []

    def read(self, data: bytes) -> Picture:
        if data[:2] != b"\xff\xd8":
            raise HeaderError("no JPEG picture")
        at, marker = 2, 0
        segments: list[tuple[int, bytes]] = []
        while marker != 0xDA:  # start of scan
            marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if data[at] != 0xFF or end < at + 4 or end > len(data) or (0xC2 <= marker < 0xDA and marker != 0xC4):
                raise HeaderError(f"JPEG segment {marker:02x}")
            segments.append((marker, _table_names(marker, data[at + 4 : end])))
            at = end
        self.first = self.first or segments
        if segments != self.first:
            raise HeaderError("JPEG headers that change")
        end_of_data = _MARKER.search(data, at)
        if not end_of_data or end_of_data[0] != b"\xff\xd9" or b"\xff\xd8" in data[end_of_data.end() :]:
            raise HeaderError("more in a packet than one JPEG picture")
        # of full length, because FFmpeg refuses a picture with too little data for its size
        return Picture(True, False, (data[:at] + b"\xff\xd9").ljust(len(data), b"\0"))


def _table_names(marker: int, body: bytes) -> bytes:
    """The class and number of each table in a segment with tables, whose values may change; any other as it is."""
    if marker not in (0xC4, 0xDB):
        return body
    names, at = bytearray(), 0
    while at < len(body):
        names.append(body[at])
        at += 17 + sum(body[at + 1 : at + 17]) if marker == 0xC4 else 129 if body[at] >> 4 else 65
    if at != len(body):
        raise HeaderError("damaged JPEG table")
    return bytes(names)
