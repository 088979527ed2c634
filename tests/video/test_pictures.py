"""Picture headers against what the decoder says of the same pictures."""

from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import encode, scene

from vidstill.video.pictures import H264, HeaderError, Mpeg4, _Bits


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
def test_h264_order_and_references(pix_fmt: str, options: dict[str, object], videos: Path) -> None:
    path = encode(videos / "headers.mp4", scene(40), pix_fmt=pix_fmt, **options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        reader = H264(stream.codec_context.extradata)
        packets = [packet for packet in container.demux(stream) if packet.size]
        pictures = [reader.read(bytes(packet)) for packet in packets]
    assert [picture.restart for picture in pictures] == [packet.is_keyframe for packet in packets]
    by_order = sorted(range(40), key=lambda n: pictures[n].order)
    assert by_order == sorted(range(40), key=lambda n: packets[n].pts)
    with av.open(str(path)) as container:  # without its non-reference pictures, as the decoder sees them
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        kept = {frame.pts for frame in container.decode(video=0)}
    assert kept == {packet.pts for packet, picture in zip(packets, pictures, strict=True) if picture.reference}


@pytest.mark.parametrize("frames", [0, 2])
def test_mpeg4_types(frames: int, videos: Path) -> None:
    path = encode(videos / "types.avi", scene(30), "mpeg4", bf=frames, g=12, b_strategy=0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        reader = Mpeg4(stream.codec_context.extradata)
        kinds = [reader.read(bytes(packet)) for packet in container.demux(stream) if packet.size]
    with av.open(str(path)) as container:
        decoded = [" IPBS"[frame.pict_type] for frame in container.decode(video=0)]
    assert sorted(kinds) == sorted(decoded) and kinds[:4] == (["I", "P", "B", "B"] if frames else ["I", "P", "P", "P"])


def test_what_is_not_understood() -> None:
    for extradata in (None, b"", b"\0\0\0\1\x67\x42", bytes(40)):
        with pytest.raises(HeaderError):
            H264(extradata)
    reader = Mpeg4(b"")
    assert reader.read(b"\x7f") == ""  # a dropped frame
    for data in (b"noise", b"\0\0\1\xb6\x10", b"\0\0\1\xb6\x10" * 2):
        with pytest.raises(HeaderError):
            reader.read(data)
