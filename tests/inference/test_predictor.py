"""Predictions: one rule for files, folders, patterns and streams; the same scores as a test."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import Plug

import vidstill
from vidstill.config import Clip, Data
from vidstill.data.annotations import Sample, read_annotations
from vidstill.data.sampling import Timing, test_indices
from vidstill.evaluation.testing import evaluate
from vidstill.inference import predictor as module
from vidstill.inference.predictor import Prediction, Predictor, WindowScores
from vidstill.inference.sources import Stream, find_sources
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import save
from vidstill.video.decode import Frame, VideoError, iter_frames, read_frames
from vidstill.video.encode import write_video

RATE = 15


@pytest.fixture(scope="module")
def model() -> VideoModel:
    torch.manual_seed(0)
    network = create_model("vfl_net", 3, width=8).eval()
    torch.nn.init.normal_(network.get_submodule("head").weight)  # type: ignore[arg-type]  # clearly different scores
    network.classes, network.input = ["up", "down", "élan vital"], Clip(frames=4, size=32, seconds=0.8)
    return network


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of noise."""
    path = tmp_path_factory.mktemp("v") / "a long one ü [1].mp4"
    rng = np.random.default_rng(0)
    write_video(path, rng.integers(0, 255, (60, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2), RATE)
    return path


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("sampling", ["segments", "dense"])
def test_a_short_file_scores_like_the_single_clip_of_a_test(
    model: VideoModel, embedded: Path, crops: int, sampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = Clip(frames=4, size=32, interval=4, sampling="dense")  # 13 frames: more than the videos have
    monkeypatch.setattr(model, "input", model.input if sampling == "segments" else dense)
    samples = read_annotations(Data(root=embedded)).splits["test"][:3]
    tested = evaluate(model, samples, clips=1, crops=crops).probabilities
    predictions, failures = vidstill.predict(model, *(sample.path for sample in samples), crops=crops)
    assert not failures
    assert all(len(prediction.windows) == 1 for prediction in predictions)
    np.testing.assert_allclose([p.probabilities for p in predictions], tested, rtol=1e-4, atol=1e-6)


def test_a_long_file_is_seen_through_windows(model: VideoModel, long_video: Path) -> None:
    prediction = Predictor(model).predict(long_video)
    starts = [round(window.start * RATE) for window in prediction.windows]
    assert starts == [*range(0, 48, 6), 48], "0.8 s of 15 frames per second, half overlapping"
    assert prediction.windows[-1].end == pytest.approx(4)
    np.testing.assert_allclose(prediction.probabilities, np.mean([w.probabilities for w in prediction.windows], axis=0))
    (whole,) = Predictor(model).predict(long_video, window=100).windows
    assert whole.end == pytest.approx(4)
    one_second = Predictor(model).predict(long_video, seconds=1)
    assert one_second.windows[-1].end == pytest.approx(1)


def test_a_window_scores_like_a_file_of_the_same_frames(model: VideoModel, long_video: Path) -> None:
    """The engine against cutting the window out by hand and sampling it like a test."""
    scorer = Predictor(model)
    window = scorer.predict(long_video, window=1.0, stride=0.5).windows[2]
    first, end = round(window.start * RATE), round(window.end * RATE)
    frames = read_frames(long_video, first + test_indices(end - first, model.input, 1)[0], short_side=36)
    y, x = (frames.shape[1] - 32) // 2, (frames.shape[2] - 32) // 2
    view = frames[None, None, :, y : y + 32, x : x + 32]
    np.testing.assert_allclose(scorer.score(view)[0], window.probabilities, rtol=1e-4, atol=1e-6)


def test_a_dense_model_has_its_own_window(model: VideoModel, long_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "input", Clip(frames=4, size=32, interval=3, sampling="dense", seconds=9))
    windows = Predictor(model).predict(long_video).windows
    assert [round((w.end - w.start) * RATE) for w in windows] == [10] * len(windows), "frames of a clip"
    assert [round(w.start * RATE) for w in windows[:3]] == [0, 5, 10]
    wide = Predictor(model).predict(long_video, window=4).windows
    assert len(wide) == 1


def test_a_model_that_does_not_know_its_videos_sees_long_files_through_windows(
    model: VideoModel, long_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "input", Clip(frames=4, size=32))
    monkeypatch.setattr(module, "USUAL_SECONDS", 1.0)
    assert len(Predictor(model).predict(long_video).windows) == 7


def test_sources_are_files_folders_and_patterns(embedded: Path, long_video: Path, tmp_path: Path) -> None:
    everything = find_sources(embedded)
    assert everything == sorted(map(str, embedded.rglob("*.mp4")))
    assert everything
    pattern = str(embedded / "test" / "*" / "*.mp4")
    assert find_sources(pattern) == sorted(map(str, (embedded / "test").rglob("*.mp4")))
    assert find_sources(str(embedded / "**" / "00.mp4"))
    assert find_sources(long_video) == [str(long_video)], "a file whose name looks like a pattern"
    assert find_sources(f"{long_video}#t=0.5,1") == [f"{long_video}#t=0.5,1"], "as predictions call a stretch"
    assert find_sources("camera:0") == ["camera:0"]
    assert find_sources("rtsp://host/stream") == ["rtsp://host/stream"]
    for nothing in (tmp_path, tmp_path / "*.mp4", tmp_path / "missing.mp4"):
        with pytest.raises(VideoError, match="no such video"):
            find_sources(nothing)


def test_unreadable_files_are_reported_and_the_others_labelled(
    model: VideoModel, long_video: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no")
    predictions, failures = vidstill.predict(model, tmp_path, long_video, long_video)
    assert [prediction.source for prediction in predictions] == [str(long_video)], (
        "what is named twice is labelled once"
    )
    assert len(failures) == 1
    assert "bad.mp4" in str(failures[0])
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        Predictor(model).predict(bad)


def test_a_missing_path_costs_nothing_else(model: VideoModel, long_video: Path, tmp_path: Path) -> None:
    missing = tmp_path / "gone" / "*.mp4"
    predictions, failures = vidstill.predict(model, missing, [str(long_video), tmp_path / "no.mp4"])
    assert [prediction.source for prediction in predictions] == [str(long_video)]
    assert [str(failure).partition(":")[0] for failure in failures] == [str(missing), str(tmp_path / "no.mp4")]


def test_arrays_are_sources(model: VideoModel, long_video: Path) -> None:
    frames = np.stack([frame.pixels for frame in iter_frames(long_video)])
    (file, array), failures = vidstill.predict(model, long_video, [frames], fps=RATE)
    assert not failures
    assert array.source == "array of 60 frames"
    np.testing.assert_allclose([w.start for w in array.windows], [w.start for w in file.windows])
    for ours, expected in zip(array.windows, file.windows, strict=True):
        np.testing.assert_allclose(ours.probabilities, expected.probabilities, rtol=1e-5)
    with pytest.raises(ValueError, match="give its frames per second, fps=25"):
        Predictor(model).predict(frames)
    with pytest.raises(ValueError, match=r"array of float64 \(60, 48, 64, 3\): give frames as uint8"):
        Predictor(model).predict(frames / 255, fps=RATE)


@pytest.mark.parametrize("fps", [25, 30, 60])
def test_a_timed_window_is_as_long_at_every_rate(model: VideoModel, fps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 frames at every other of 30 per second: 2.13 seconds, of which the clip shows all."""
    monkeypatch.setattr(model, "input", Clip(frames=32, size=32, interval=2, sampling="timed_window", fps=30))
    predictor = Predictor(model)
    stream = predictor.open(np.zeros((5 * fps, 36, 36, 3), np.uint8), fps=fps)
    for window in predictor.windows(stream):
        assert window.end - window.start == pytest.approx(64 / 30, abs=1.01 / fps)
        assert window.seconds.shape == (1, 32)
        assert window.seconds[0, -1] - window.seconds[0, 0] == pytest.approx(64 / 30 - 1 / fps, abs=1.01 / fps)


def test_json_has_names_times_and_scores(model: VideoModel, long_video: Path) -> None:
    prediction = Predictor(model).predict(long_video)
    told = json.loads(json.dumps(prediction.to_dict(2)))
    assert told["source"] == str(long_video)
    assert [entry["class"] for entry in told["top"]] == [name for name, _ in prediction.top(2)]
    assert told["top"][0]["score"] == pytest.approx(prediction.probabilities.max(), abs=1e-6)
    assert [len(window["top"]) for window in told["windows"]] == [2] * len(prediction.windows)
    assert told["windows"][0]["start"] == 0
    assert len(prediction.to_dict()["top"]) == len(prediction.to_dict()["windows"][0]["top"]) == 3, "every class"
    assert told["processing_speed"] > 0 and told["label"] == told["top"][0]["class"] and told["none_below"] is None


def test_between_windows_scores_change_linearly() -> None:
    scores = np.array([[1, 0], [0.2, 0.8], [0.6, 0.4]])
    windows = [WindowScores(n, n + 2, row) for n, row in enumerate(scores)]
    prediction = Prediction("x", ["a", "b"], windows, 1.0)
    for seconds in (-1, 0, 1, 1.3, 2, 2.9, 3, 50):
        expected = [np.interp(seconds, [1, 2, 3], column) for column in scores.T]
        np.testing.assert_allclose(prediction.at(seconds), expected)


def camera(seconds: float, stop: type[BaseException] | None = None) -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    for n in range(int(seconds * 10)):
        yield Frame(n, n / 10, rng.integers(0, 255, (36, 48, 3), dtype=np.uint8))
    if stop is not None:
        raise stop


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt])
def test_a_camera_is_labelled_until_it_is_stopped(
    model: VideoModel, plug: Plug, stop: type[BaseException] | None
) -> None:
    plug(lambda short_side: camera(3, stop))
    events: list[dict[str, object]] = []
    prediction = Predictor(model).predict("camera:0", report=events.append)
    assert prediction.windows[0].end == pytest.approx(0.8)
    assert prediction.windows[-1].end == pytest.approx(3 if stop is None else 2.8)
    assert all(event["done"] <= event["total"] < math.inf for event in events)  # type: ignore[operator]
    assert sum(event["done"] >= event["total"] for event in events) == 1, "only the end is the end"  # type: ignore[operator]
    plug(lambda short_side: camera(0.3, KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Predictor(model).predict("camera:0")


def test_a_stream_is_scored_window_by_window(model: VideoModel) -> None:
    taken = 0

    def live() -> Iterator[Frame]:
        nonlocal taken
        for frame in camera(5):
            taken += 1
            yield frame

    predictor = Predictor(model)
    scores = predictor.scores(predictor.windows(Stream("live", live(), Timing(10))), waits=False)
    next(scores)
    assert taken == 9, "scored with the first frame after 0.8 s"


def test_a_file_is_scored_several_windows_at_a_time(model: VideoModel, long_video: Path) -> None:
    scorer = Predictor(model)
    with mock.patch.object(scorer.engine, "logits", wraps=scorer.engine.logits) as logits:
        windows = scorer.predict(long_video, window=0.4, stride=0.2).windows
    sizes = [len(call.args[0]) for call in logits.call_args_list]
    assert sizes[:-1] == [scorer.engine.at_once] * (len(sizes) - 1) and sum(sizes) == len(windows)


def test_progress_of_a_file_ends_with_it(model: VideoModel, long_video: Path, embedded: Path) -> None:
    events: list[dict[str, float]] = []
    vidstill.predict(model, long_video, report=events.append)
    assert all(event["done"] <= event["total"] for event in events)
    assert events[-1]["done"] == events[-1]["total"]
    events.clear()
    vidstill.predict(model, embedded / "test", report=events.append)
    assert [event["done"] for event in events] == list(range(1, 1 + len(find_sources(embedded / "test"))))


def test_a_model_file_is_prepared_and_a_model_is_left_alone(
    model: VideoModel, long_video: Path, tmp_path: Path
) -> None:
    save(model, tmp_path / "best")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = Predictor(model).predict(long_video).probabilities
    np.testing.assert_allclose(Predictor(tmp_path).predict(long_video).probabilities, expected, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("loaded", [False, True])
def test_bf16_is_near(model: VideoModel, long_video: Path, tmp_path: Path, loaded: bool) -> None:
    save(model, tmp_path / "best")
    expected = Predictor(model).predict(long_video, window=100).probabilities
    lower = Predictor(tmp_path if loaded else model, precision="bf16").predict(long_video, window=100).probabilities
    assert lower.dtype == np.float32
    np.testing.assert_allclose(lower, expected, atol=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"precision": "int8"}, "take fp32, bf16 or fp16"),
        ({"device": "cuda:99"}, "device cuda:99 cannot be used"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(model: VideoModel, arguments: dict[str, str], message: str) -> None:
    if torch.cuda.is_available() and "precision" in arguments:
        arguments = {**arguments, "device": "cpu"}
    with pytest.raises(ValueError, match=message):
        Predictor(model, **arguments)  # type: ignore[arg-type]


def test_a_model_without_class_names_is_refused() -> None:
    with pytest.raises(ValueError, match="class names"):
        Predictor(create_model("vfl_net", 3, width=8))


def test_the_first_seconds_may_hold_nothing(model: VideoModel, long_video: Path) -> None:
    with pytest.raises(VideoError, match="no frame within 0 s"):
        Predictor(model).predict(long_video, seconds=0)
    with pytest.raises(ValueError, match="stride <= window"):
        Predictor(model).predict(long_video, window=1, stride=2)


@pytest.mark.parametrize("folder", ["decode_edge", "ucf101"])
def test_odd_real_files_score_like_the_single_clip_of_a_test(
    model: VideoModel, shared_data: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotation, disorder, damage, 10 bits, packed bitstreams: read one after another or picked, the frames are one."""
    monkeypatch.setattr(model, "input", Clip(frames=4, size=32, seconds=1000))
    paths = find_sources(shared_data / "clips" / folder)
    tested = evaluate(model, [Sample(Path(path), 0) for path in paths], clips=1, crops=1)
    predictions, failures = vidstill.predict(model, *paths)
    assert [prediction.source for prediction in predictions] == list(map(str, tested.paths))
    assert len(failures) == len(tested.unreadable)
    np.testing.assert_allclose([p.probabilities for p in predictions], tested.probabilities, rtol=1e-4, atol=1e-5)
