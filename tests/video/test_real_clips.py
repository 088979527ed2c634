"""Reading real clips with every trap that they are known to hold; the truth is a plain decode and their manifest."""

import csv
import random
from pathlib import Path

import av
import numpy as np
import pytest
from making import plain_decode

from vidstill.video import decode
from vidstill.video.decode import FramesMissing, VideoError, count_frames, iter_frames, probe, read_frames

Clips = dict[str, dict[str, str]]


@pytest.fixture(scope="session")
def clips(shared_data: Path) -> Clips:
    with (shared_data / "clips/manifest.csv").open(encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def compare(path: Path, frames: int, selections: int) -> None:
    """Count, size and some selections of frames against a plain decode."""
    truth, info, rng = plain_decode(path), probe(path), random.Random(path.name)
    truth = [np.rot90(frame, -info.rotation // 90) for frame in truth]
    assert info.frames == len(truth) == frames
    assert (info.height, info.width) == truth[0].shape[:2]
    wanted = [int((i + 0.5) * frames / 8) for i in range(8)]
    for _ in range(selections):
        assert (read_frames(path, wanted) == np.stack([truth[i] for i in wanted])).all()
        wanted = [rng.randrange(frames) for _ in range(rng.choice([1, 2, 12]))]


EDGES = [
    "decode_edge/none/video_0.mov",
    "decode_edge/none/video_90.mov",
    "decode_edge/none/video_180.mov",
    "decode_edge/none/video_270.mov",
    "decode_edge/none/unordered.mov",
    "decode_edge/none/h265_video.mp4",
    "decode_edge/none/av1_video.mkv",
    "decode_edge/none/h264_10bits.mp4",
    "decode_edge/none/h265_10bits.mp4",
    "decode_edge/none/discard_first_keyframe.mp4",
    "decode_edge/none/animated.gif",
    "kinetics400/arm wrestling/demo.mp4",
    "kinetics400/cleaning pool/part_0.mp4",
    "kinetics400/flipping pancake/flipping_a_pancake.mkv",
    "ucf11/biking/v_biking_01_01.mpg",
    "ucf101/WallPushups/video2.webm",
    "ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
    "ucf101/BabyCrawling/video3.avi",
    "ucf101/Lunges/v_Lunges_g01_c04.avi",
    "ucf101/CricketShot/v_CricketShot_g04_c01_rgb.gif",
    "arm_actions_mjpeg/handwaving/gabor_handwaving_d1.avi",
    "basketball_actions/defense/defense_1.mp4",
    "basketball_actions/defense/defense_11.mp4",
    "activitynet/Clean and jerk/v_GGSY1Qvo990.mp4",
    "hockey_fights/fight/fi134.avi",
    "kth/boxing/person01_boxing_d1_uncomp.avi",
]


@pytest.mark.parametrize("name", EDGES)
def test_frames_equal_a_plain_decode(name: str, clips: Clips, shared_data: Path) -> None:
    compare(shared_data / "clips" / name, int(clips[name]["frames"]), 3)


def test_no_edge_case_is_left_out(clips: Clips) -> None:
    edges = {path for path in clips if path.startswith("decode_edge/")}
    assert edges - {"decode_edge/none/corrupted.mp4"} <= set(EDGES)


def test_packed_files_are_read_the_short_way(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shared_data / "clips/ut_interaction/punching/0_1_4.avi"
    with av.open(str(path)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps != sorted(stamps) and len(stamps) == 108
    truth = plain_decode(path)
    monkeypatch.setattr(decode, "_plain", None)
    for i in range(0, 108, 7):
        assert (read_frames(path, [i])[0] == truth[i]).all()


def test_more_frames_declared_than_decode(clips: Clips, shared_data: Path) -> None:
    rows = [row for row in clips.values() if row["dataset"] == "ut_interaction"]
    assert sum(row["declared_frames"] != row["frames"] for row in rows) == 82
    for row in rows:
        assert probe(shared_data / "clips" / row["path"]).frames == int(row["frames"])


def test_the_corrupted_file_raises(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = shared_data / "clips/decode_edge/none/corrupted.mp4"
    with pytest.raises(FramesMissing, match="damaged at frame 30: invalid data") as caught:
        count_frames(path)
    assert caught.value.available == 30
    with pytest.raises(VideoError, match="damaged at frame 30"):
        read_frames(path, np.linspace(0, probe(path).frames - 1, 8).astype(int))
    assert len(list(iter_frames(path, short_side=32))) == 30
    assert "damaged at frame 30" in caplog.text


@pytest.mark.parametrize(("degrees", "red"), [(0, (28, 39)), (180, (98, 2))])
def test_orientation_of_what_is_seen(degrees: int, red: tuple[int, int], shared_data: Path) -> None:
    """The red knob between the keys G, H and B is at this share (%) of the upright width and height."""
    frame = read_frames(shared_data / f"clips/decode_edge/none/video_{degrees}.mov", [0])[0].astype(int)
    rows, columns = np.nonzero(frame[..., 0] - frame[..., 1:].max(-1) > 90)
    height, width = frame.shape[:2]
    assert abs(100 * np.median(columns) / width - red[0]) < 5 and abs(100 * np.median(rows) / height - red[1]) < 5


@pytest.mark.slow
def test_every_clip(clips: Clips, shared_data: Path) -> None:
    for name, row in clips.items():
        if row["frames"].isdecimal():
            compare(shared_data / "clips" / name, int(row["frames"]), 2)
