"""Picture headers against what the decoder says of the same pictures."""

from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import encode, pack, scene

from vidstill.video.pictures import H264, HeaderError, Jpeg, Mpeg4, _Bits


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=20), st.integers(0, 7))
def test_exp_golomb(values: list[int], lead: int) -> None:
    bits = "1" * lead + "".join("0" * (len(f"{v + 1:b}") - 1) + f"{v + 1:b}" for v in values)
    reader = _Bits(int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big"))
    reader.take(lead)
    assert [reader.golomb() for _ in values] == values


def test_reading_past_the_end_is_an_error() -> None:
    for read in (lambda: _Bits(b"\0").golomb(), lambda: _Bits(b"ab").take(17)):
        with pytest.raises(ValueError, match="negative"):
            read()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("options", [{"bf": 3, "g": 12}, {"bf": 0, "g": 10}, {"bf": 2, "g": 250, "b-pyramid": "none"}])
def test_h264_restarts_and_references(pix_fmt: str, options: dict[str, object], videos: Path) -> None:
    path = encode(videos / "headers.mp4", scene(40), pix_fmt=pix_fmt, **options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        reader = H264(stream.codec_context.extradata)
        packets = [packet for packet in container.demux(stream) if packet.size]
        pictures = [reader.read(bytes(packet)) for packet in packets]
    assert [picture.restart for picture in pictures] == [packet.is_keyframe for packet in packets]
    with av.open(str(path)) as container:  # without its non-reference pictures, as the decoder sees them
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        kept = {frame.pts for frame in container.decode(video=0)}
    assert kept == {packet.pts for packet, picture in zip(packets, pictures, strict=True) if picture.reference}


def test_a_lost_h264_reference_is_noticed(videos: Path) -> None:
    path = encode(videos / "gap.mp4", scene(20), bf=0, g=250)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
        reader = H264(stream.codec_context.extradata)
    for data in packets[:9]:
        reader.read(data)
    with pytest.raises(HeaderError, match="frame number 10, not 9"):
        reader.read(packets[10])


@pytest.mark.parametrize("frames", [0, 2])
def test_mpeg4_restarts_and_references(frames: int, videos: Path) -> None:
    path = encode(videos / "types.avi", scene(30), "mpeg4", bf=frames, g=12, b_strategy=0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        reader = Mpeg4(stream.codec_context.extradata)
        pictures = [reader.read(bytes(packet)) for packet in container.demux(stream) if packet.size]
    with av.open(str(path)) as container:
        kinds = [" IPBS"[frame.pict_type] for frame in container.decode(video=0)]
    assert sum(picture.restart for picture in pictures) == kinds.count("I") > 1
    assert sum(not picture.reference for picture in pictures) == kinds.count("B") == (19 if frames else 0)
    at = [number for number, picture in enumerate(pictures) if picture.restart]
    leading = [number for number, picture in enumerate(pictures) if picture.leading]
    assert leading == ([number + k for number in at[1:] for k in (1, 2)] if frames else [])


def test_mpeg4_packing(videos: Path) -> None:
    path = pack(encode(videos / "unpacked.avi", scene(12), "mpeg4", bf=2, g=250, b_strategy=0), videos / "pack.avi")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
        header = stream.codec_context.extradata
    reader = Mpeg4(header)
    for data in packets:
        reader.check(data)
    both = next(number for number, data in enumerate(packets) if data.count(b"\0\0\1\xb6") == 2)
    for wrong in (
        [*packets[: both + 1], packets[both]],  # a reference where the B-VOP that is held back should come out
        [*packets[: both + 1], b"\0\0\1\xb0\1" + packets[both + 1]],  # at which the decoder forgets it
        [*packets[:both], 2 * packets[both]],
    ):
        reader = Mpeg4(header)
        with pytest.raises(HeaderError):
            for data in wrong:
                reader.check(data)
    with pytest.raises(HeaderError, match="several pictures"):
        Mpeg4(header.replace(b"1393p", b"1393n")).check(packets[both])


def test_mpeg4_headers_that_change(videos: Path) -> None:
    parts = []
    for rate in (25, 30):
        with av.open(str(encode(videos / f"{rate}.avi", scene(3), "mpeg4", rate=rate))) as container:
            parts.append(bytes(next(container.demux(video=0))))
    reader = Mpeg4(b"")
    assert reader.read(parts[0]).restart and reader.read(parts[0]).restart
    with pytest.raises(HeaderError, match="headers that change"):
        reader.read(parts[1])


def test_jpeg_pictures_stand_alone(videos: Path) -> None:
    with av.open(str(encode(videos / "one.mjpeg", scene(3), "mjpeg", "yuvj420p"))) as container:
        first, second, _ = (bytes(packet) for packet in container.demux(video=0) if packet.size)
    reader = Jpeg()
    for data in (first, second):
        picture = reader.read(data)
        assert picture.restart and not picture.reference and len(picture.short) == len(data)
        decoder = av.CodecContext.create("mjpeg", "r")
        assert [(frame.width, frame.height) for frame in decoder.decode(av.Packet(picture.short))] == [(128, 96)]
    tables = second.index(b"\xff\xdb")
    size = int.from_bytes(second[tables + 2 : tables + 4], "big")
    for wrong in (
        second[:tables] + second[tables + 2 + size :],  # it would be decoded with the tables of the first
        second[:-2],
        second + second,
        second[: len(second) // 2] + b"\xff\xd9" + second[len(second) // 2 :] + second,
        second[2:],
        b"\xff\xd8",
    ):
        with pytest.raises((HeaderError, IndexError)):
            reader.read(wrong)


def test_what_is_not_understood() -> None:
    for extradata in (None, b"", b"\0\0\0\1\x67\x42", bytes(40)):
        with pytest.raises(HeaderError):
            H264(extradata)
    reader = Mpeg4(b"")
    assert reader.read(b"\x7f").dropped
    for data in (b"noise", b"\0\0\1\xb6\x10"):
        with pytest.raises(HeaderError):
            reader.read(data)
    with pytest.raises(HeaderError):
        reader.check(b"\0\0\1\xb6\x10" * 2)
