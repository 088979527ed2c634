"""Videos made by the tests, and the plain decode that every reading is compared with."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def scene(frames: int, height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """(T,H,W,3) uint8: a smooth background that drifts, behind a textured square that moves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    square = rng.integers(60, 200, (24, 24, 1))
    clip = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        waves = [np.sin(x / 23 + t / 9 + c) + np.cos(y / 17 - t / 13 + 2 * c) for c in range(3)]
        clip[t] = 120 + 45 * np.stack(waves, -1) + 10 * (t % 3)
        top, left = (5 * t) % (height - 24), (7 * t) % (width - 24)
        clip[t, top : top + 24, left : left + 24] = square
    return clip


def combed(clip: np.ndarray) -> np.ndarray:
    """Every other line as at another time, as in interlaced video."""
    fields = clip.copy()
    fields[:, 1::2] = np.roll(clip[:, 1::2], 9, 2)
    return fields


def encode(
    path: Path,
    clip: Iterable[np.ndarray],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    *,
    rate: int = 25,
    pts: list[int] | None = None,
    time_base: Fraction | None = None,
    colorspace: int | None = None,
    color_range: int | None = None,
    rotation: tuple[float, bool] | None = None,
    **options: object,
) -> Path:
    """`options` are the encoder's; `rotation` is (degrees counter-clockwise, mirrored)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={key: str(value) for key, value in options.items()})
        stream.pix_fmt = pix_fmt
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for index, pixels in enumerate(clip):
            if index == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=colorspace, dst_color_range=color_range)
            frame.pts, frame.time_base = (pts[index] if pts else index), time_base or Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def encode_with_sound(
    path: Path, sound: np.ndarray, codec: str, *, frames: int = 50, rate: int = 44100, late: float = 0.0,
    pictures_late: int = 0,
) -> Path:  # fmt: skip
    """`frames` pictures, 25 a second, with `sound` (channels,N) between -1 and 1, which begins `late` seconds after
    second 0; pictures begin `pictures_late` frames after it."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout="mono" if len(sound) == 1 else "stereo")
        kind = audio.codec_context.format.name
        resampler = av.AudioResampler(format=kind, layout=audio.layout.name, rate=rate)
        waiting = []
        for number, pixels in enumerate(scene(frames, 48, 64)):
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number + pictures_late, Fraction(1, 25)
            waiting += video.encode(picture)
        waiting += video.encode(None)
        size = audio.codec_context.frame_size or 1024
        for start in range(0, sound.shape[1], size):
            part = np.ascontiguousarray(sound[:, start : start + size], np.float32)
            frame = av.AudioFrame.from_ndarray(part, "fltp", audio.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = rate, start + round(late * rate), Fraction(1, rate)
            for each in resampler.resample(frame):
                waiting += audio.encode(each)
        waiting += audio.encode(None)
        for packet in sorted(waiting, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def decode_sound(path: Path) -> tuple[str, int, np.ndarray]:
    """Codec, rate and what is heard (N,) from the first picture on, channels averaged; nothing where it is silent."""
    with av.open(str(path)) as container:
        stream, video = container.streams.audio[0], container.streams.video[0]
        begin = float((video.start_time or 0) * video.time_base)
        heard = np.zeros(0, np.float32)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
        for frame in container.decode(stream):
            at = round((float(frame.pts * frame.time_base) - begin) * stream.rate)
            part = np.concatenate([each.to_ndarray().reshape(-1) for each in resampler.resample(frame)])
            part, at = part[max(0, -at) :], max(0, at)
            if abs(at - len(heard)) < 0.005 * stream.rate:  # time stamps are rounded, to milliseconds in mkv
                at = len(heard)
            heard = np.concatenate([heard, np.zeros(max(0, at + len(part) - len(heard)), np.float32)])
            heard[at : at + len(part)] = part
        return stream.codec_context.codec.canonical_name, stream.rate, heard


def plain_decode(path: Path) -> list[np.ndarray]:
    """Every frame by PyAV alone, in the decoder's order, not rotated."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def pack(source: Path, path: Path) -> Path:
    """An MPEG-4 AVI with B-frames as DivX and XviD pack it.

    A P-VOP takes the next B-VOP into its packet; a VOP that is not coded stands where the last B-VOP of the group was.
    """
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        vops = [bytes(packet) for packet in container.demux(stream) if packet.size]
        size, header = (stream.width, stream.height), stream.codec_context.extradata
    mark = b"\0\0\1\xb2DivX503b1393p"
    head, _, _ = header.partition(b"\0\0\1\xb2")
    vops[0] = head + mark + vops[0][vops[0].index(b"\0\0\1\xb6") :]
    packed = [vops[0]]
    groups: list[list[bytes]] = []
    for vop in vops[1:]:
        kind = vop[vop.index(b"\0\0\1\xb6") + 4] >> 6
        if kind == 2:
            groups[-1].append(vop)
        else:
            groups.append([vop])
    for reference, *others in groups:
        if not others:
            packed.append(reference)
            continue
        packed += [reference + others[0], *others[1:], _not_coded(reference)]
    assert len(packed) == len(vops)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.extradata = head + mark
        for index, data in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, index, index
            packet.time_base = Fraction(1, 25)
            packet.is_keyframe = index == 0
            container.mux(packet)
    return path


def _not_coded(vop: bytes) -> bytes:
    """The header of a VOP up to its time, then vop_coded 0 (here 25 ticks a second: 5 bits)."""
    bits = "".join(f"{byte:08b}" for byte in vop[4:12])
    at = bits.index("0", 2) + 1 + 1 + 5 + 1
    bits = (bits[:at] + "0").ljust(-(-(at + 1) // 8) * 8, "1")
    return vop[:4] + int(bits, 2).to_bytes(len(bits) // 8, "big")
