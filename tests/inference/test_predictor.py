"""Predictions: one rule for files, folders and patterns; the same scores as a test."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vidstill
from vidstill.config import Clip, Data
from vidstill.data.annotations import read_annotations
from vidstill.evaluation.views import evaluate
from vidstill.inference.overlay import annotate
from vidstill.inference.predictor import Predictor, find_sources
from vidstill.models.registry import VideoModel, create_model
from vidstill.video.decode import VideoError, count_frames, probe, read_frames
from vidstill.video.encode import write_video


@pytest.fixture(scope="module")
def model() -> VideoModel:
    torch.manual_seed(0)
    network = create_model("vfl_net", 3, width=8).eval()
    network.classes, network.input = ["up", "down", "élan vital"], Clip(frames=4, size=32, seconds=0.8)
    return network


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.RandomState(0)
    frames = rng.randint(0, 255, (60, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    return write_video(tmp_path_factory.mktemp("v") / "a long one ü.mp4", frames, 15)


def test_a_short_file_scores_like_the_single_view_of_a_test(model: VideoModel, embedded: Path) -> None:
    samples = read_annotations(Data(root=embedded)).splits["test"][:3]
    tested = evaluate(model, samples, clips=1, crops=1).probabilities
    predictions, failures = vidstill.predict(model, *(sample.path for sample in samples))
    assert not failures
    assert all(len(prediction.windows) == 1 for prediction in predictions)
    np.testing.assert_allclose([prediction.probabilities for prediction in predictions], tested, atol=1e-6)


def test_a_long_file_is_seen_through_windows(model: VideoModel, long_video: Path) -> None:
    prediction = Predictor(model).predict(long_video)
    assert len(prediction.windows) > 5
    assert prediction.windows[-1].end == pytest.approx(59 / 15)
    np.testing.assert_allclose(prediction.probabilities, np.mean([w.probabilities for w in prediction.windows], axis=0))
    assert prediction.at(0.0) is prediction.windows[0]
    assert prediction.at(99.0) is prediction.windows[-1]
    (whole,) = Predictor(model).predict(long_video, window=100).windows
    assert whole.end == pytest.approx(59 / 15)
    assert Predictor(model).predict(long_video, seconds=1).windows[-1].end < 1


def test_a_window_scores_like_a_file_of_the_same_frames(model: VideoModel, long_video: Path, tmp_path: Path) -> None:
    """The engine against cutting the window out by hand and sampling it like a test."""
    from vidstill.data.sampling import test_indices

    window = Predictor(model).predict(long_video, window=1.0, stride=0.5).windows[2]
    first, last = round(window.start * 15), round(window.end * 15)
    indices = first + test_indices(last - first + 1, model.input, 1)[0]
    frames = read_frames(long_video, indices, short_side=36)
    y, x = (frames.shape[1] - 32) // 2, (frames.shape[2] - 32) // 2
    clip = frames[:, y : y + 32, x : x + 32]
    np.testing.assert_allclose(Predictor(model).score(clip[None])[0], window.probabilities, atol=1e-6)


def test_sources_are_files_folders_and_patterns(embedded: Path, tmp_path: Path) -> None:
    everything = find_sources(embedded)
    assert len(everything) == 40
    assert find_sources(str(embedded / "test" / "*" / "*.mp4")) == sorted(
        str(path) for path in (embedded / "test").rglob("*.mp4")
    )
    assert find_sources("camera:0") == ["camera:0"]
    assert find_sources("rtsp://host/stream") == ["rtsp://host/stream"]
    with pytest.raises(VideoError, match="no such video"):
        find_sources(tmp_path)


def test_unreadable_files_are_reported_and_the_others_labelled(
    model: VideoModel, long_video: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no")
    predictions, failures = vidstill.predict(model, bad, long_video)
    assert [prediction.source for prediction in predictions] == [str(long_video)]
    assert "bad.mp4" in str(failures[0])


def test_json_has_names_times_and_scores(model: VideoModel, long_video: Path) -> None:
    told = Predictor(model).predict(long_video).to_dict(2)
    assert {entry["class"] for entry in told["top"]} < {"up", "down", "élan vital"}
    assert told["top"][0]["score"] >= told["top"][1]["score"]
    assert told["windows"][0]["start"] == 0
    assert told["fps"] > 0


def test_a_model_without_class_names_is_refused() -> None:
    with pytest.raises(ValueError, match="class names"):
        Predictor(create_model("vfl_net", 3, width=8))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_annotated_video_has_every_frame_and_a_plate(
    model: VideoModel, long_video: Path, tmp_path: Path, suffix: str
) -> None:
    prediction = Predictor(model).predict(long_video)
    out = annotate(long_video, prediction, tmp_path / f"out{suffix}")
    assert count_frames(out) == 60
    assert min(probe(out).width, probe(out).height) >= 240, "small videos are enlarged for the text"
    (frame,) = read_frames(out, [30])
    plate = frame[-20:].astype(int)
    assert plate.mean() < frame[:100].astype(int).mean() - 30
    assert plate.max() > 180, "text on it"


def test_a_camera_cannot_be_annotated_afterwards(model: VideoModel, long_video: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="live source"):
        annotate("camera:0", Predictor(model).predict(long_video), tmp_path / "x.mp4")
