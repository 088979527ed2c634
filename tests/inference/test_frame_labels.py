"""Windows counted in frames, and what is written of every frame."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.config import Clip
from vidstill.inference.frame_labels import PREPARING, frame_windows, label_frames, write_frame_labels
from vidstill.inference.predictor import Predictor
from vidstill.models.registry import create_model
from vidstill.video.decode import VideoError, count_frames, probe


@given(
    n=st.integers(0, 40), length=st.integers(1, 9), step=st.integers(1, 4), stride=st.sampled_from([0, 0.3, 0.5, 1]),
    missing=st.sets(st.integers(1, 40)),
)  # fmt: skip
def test_windows_are_full_and_in_order(n: int, length: int, step: int, stride: float, missing: set[int]) -> None:
    frames = [None if number in missing else number for number in range(1, n + 1)]
    seen = list(frame_windows(frames, length, step=step, stride=stride, rng=np.random.RandomState(0)))
    assert [number for number, _, _ in seen] == [frame for frame in frames if frame is not None]
    for number, frame, window in seen:
        assert number == frame and (window is None or (len(window) == length and window == sorted(window)))
        assert window is None or window[-1] <= number
    if len(seen) >= length:
        assert seen[length - 1][2] == [frame for _, frame, _ in seen[:length]]


@pytest.mark.parametrize(("length", "step", "stride"), [(0, 1, 0.0), (1, 0, 0.0), (1, 1, 1.5)])
def test_windows_that_cannot_be(length: int, step: int, stride: float) -> None:
    with pytest.raises(ValueError, match="take 1 or more, and 0 to 1"):
        next(frame_windows([1], length, step=step, stride=stride, rng=np.random.RandomState(0)))


def test_labels_stop_below_the_threshold_and_hold() -> None:
    windows = [(1, "a", None), (2, "b", ["a", "b"]), (3, "c", None)]
    labelled = label_frames(windows, lambda window: np.array([0.2, 0.7, 0.1]), ["x", "y", "z"], 0.15)
    assert [ranked for _, _, ranked in labelled] == [None, [("y", 0.7), ("x", 0.2)], [("y", 0.7), ("x", 0.2)]]


def test_files(embedded: Path, tmp_path: Path) -> None:
    video = sorted(embedded.rglob("*.mp4"))[0]
    torch.manual_seed(0)
    model = create_model("vfl_net", 3, width=8).eval()
    model.classes, model.input = ["a", "b", "c"], Clip(frames=4, size=32)
    predictor, n = Predictor(model), probe(video).frames
    said = json.loads(write_frame_labels(predictor, video, tmp_path / "x.json", clips=2).read_text())
    assert list(said) == [str(number) for number in range(1, n + 1)]
    assert said["7"] == PREPARING and set(said["8"]) == {"1", "2", "3"}
    assert count_frames(write_frame_labels(predictor, video, tmp_path / "x.mp4", stride=0.5)) == n
    with pytest.raises(VideoError, match="would replace the video itself"):
        write_frame_labels(predictor, video, video)
    with pytest.raises(VideoError, match="frames of a file are labelled"):
        write_frame_labels(predictor, "camera:0", tmp_path / "y.json")
    with pytest.raises(ValueError, match=r"written as \.json, \.mp4 or \.gif"):
        write_frame_labels(predictor, video, tmp_path / "x.txt")


def test_a_labelled_video_keeps_its_sound(toned: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = create_model("vfl_net", 3, width=8).eval()
    model.classes, model.input = ["a", "b", "c"], Clip(frames=4, size=32)
    out = write_frame_labels(Predictor(model), toned, tmp_path / "x.mp4", clips=26, stride=1)
    assert count_frames(out) == 100
    with av.open(str(out)) as container:
        assert float(container.streams.audio[0].duration or 0) / 44100 == pytest.approx(4, abs=0.05)
    assert "has 100 frames, a window 104: none has a label" in caplog.text
