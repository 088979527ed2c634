"""Picture headers of H.264 and MPEG-4 part 2: which pictures others refer to, where decoding can start, display order.

Only a few leading bits of each packet are read (ITU-T H.264 §7.3, ISO/IEC 14496-2 §6.2). Whatever is not understood
raises HeaderError, and the caller decodes without this knowledge.
"""

from __future__ import annotations

from typing import NamedTuple

# profiles whose sequence parameter set carries the chroma format (H.264 §7.3.2.1.1)
_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}


class HeaderError(ValueError):
    """Headers outside of what is understood here."""


class Picture(NamedTuple):
    """One packet's picture. `restart`: it and all that follows it decode without what precedes it."""

    restart: bool
    reference: bool
    order: tuple[int, int]


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
        self.period = -1
        self.msb = self.lsb = 0

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
        self.order_type = bits.golomb()
        if self.order_type == 1:
            raise HeaderError("picture order count type 1")
        self.lsb_bits = bits.golomb() + 4 if self.order_type == 0 else 0
        bits.golomb()
        bits.take(1)
        bits.golomb()
        bits.golomb()
        self.frames_only = bits.take(1)

    def read(self, data: bytes) -> Picture:
        at, slices, header = 0, 0, b""
        while at < len(data):
            size = int.from_bytes(data[at : at + self.prefix], "big")
            at += self.prefix
            if size == 0 or at + size > len(data):
                raise HeaderError("truncated NAL unit")
            kind = data[at] & 31
            if kind in (1, 5):
                if data[at + 1] & 0x80:  # first_mb_in_slice 0: a picture starts
                    slices += 1
                    header = data[at : at + min(size, 20)]
            elif kind in (2, 3, 4) or (kind in (7, 8) and data[at : at + size] not in self.known):
                raise HeaderError(f"NAL unit type {kind}")
            at += size
        if slices != 1:
            raise HeaderError(f"{slices} pictures in a packet")
        return self._read_slice(header)

    def _read_slice(self, nal: bytes) -> Picture:
        idr, reference = nal[0] & 31 == 5, bool(nal[0] & 0x60)
        bits = _Bits(nal[1:].replace(b"\0\0\3", b"\0\0"))
        for _ in range(3):
            bits.golomb()
        bits.take(self.frame_num_bits)
        if not self.frames_only and bits.take(1):
            raise HeaderError("field pictures")
        if idr:
            bits.golomb()
            self.period, self.msb, self.lsb = self.period + 1, 0, 0
        if self.period < 0:
            raise HeaderError("does not start at an IDR picture")
        if self.order_type == 2:
            self.lsb += 1
            return Picture(idr, reference, (self.period, self.lsb))
        lsb, half, msb = bits.take(self.lsb_bits), 1 << (self.lsb_bits - 1), self.msb
        if self.lsb - lsb >= half:
            msb += 2 * half
        elif lsb - self.lsb > half:
            msb -= 2 * half
        if reference:
            self.msb, self.lsb = msb, lsb
        return Picture(idr, reference, (self.period, msb + lsb))


class Mpeg4:
    """Reader of MPEG-4 part 2 packets that hold at most one VOP each (packed ones unpacked before)."""

    def __init__(self, extradata: bytes | None) -> None:
        self.time_bits = 0
        self._read_layer(extradata or b"")

    def _read_layer(self, data: bytes) -> None:
        at = data.find(b"\0\0\1\x20")
        if at < 0:
            return
        bits = _Bits(data[at + 4 : at + 36])
        bits.take(9)
        version = 1
        if bits.take(1):
            version = bits.take(4)
            bits.take(3)
        if bits.take(4) == 15:
            bits.take(16)
        if bits.take(1):
            bits.take(3)
            if bits.take(1):
                bits.take(79)
        if bits.take(2) == 3 and version != 1:
            bits.take(4)
        bits.take(1)
        self.time_bits = max((bits.take(16) - 1).bit_length(), 1)

    def read(self, data: bytes) -> str:
        """`I`, `P`, `B` or `S`; `N` for a picture that is marked as not coded; empty for a dropped frame."""
        self._read_layer(data[:256])
        at = data.find(b"\0\0\1\xb6")
        if at < 0:
            if len(data) > 1:  # one byte stands for a dropped frame
                raise HeaderError("no picture in a packet")
            return ""
        if data.find(b"\0\0\1\xb6", at + 4) >= 0:
            raise HeaderError("several pictures in a packet")
        if not self.time_bits:
            raise HeaderError("no video object layer header")
        bits = _Bits(data[at + 4 : at + 20])
        kind = "IPBS"[bits.take(2)]
        while bits.take(1):
            pass
        bits.take(self.time_bits + 2)
        return kind if bits.take(1) else "N"
