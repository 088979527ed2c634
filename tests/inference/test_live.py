"""Nothing is seen too late, and what is seen is scored like a file."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from conftest import Plug

import vidstill
from vidstill.config import Clip
from vidstill.inference import live as module
from vidstill.inference.live import Live, never_waits
from vidstill.inference.overlay import record
from vidstill.inference.predictor import Predictor
from vidstill.inference.stream import sliding_windows
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import save
from vidstill.video.decode import Frame, iter_frames
from vidstill.video.encode import write_video

MODELS = {
    "vfl_net": ({"width": 8}, Clip(frames=4, size=32)),
    "slowfast_shufflenetv2": ({"width": 0.25}, Clip(frames=8, interval=2, size=32, sampling="timed_window", fps=15)),
    "shufflenetv2_3d": ({"width": 0.25}, Clip(frames=16, interval=1, size=32, sampling="dense")),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> VideoModel:
    options, clip = MODELS[request.param]
    torch.manual_seed(0)
    network = create_model(request.param, 3, **options).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    network.classes, network.input = ["up", "down", "left"], clip
    return network


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("v") / "four seconds.mp4"
    rng = np.random.default_rng(0)
    write_video(path, rng.integers(0, 255, (60, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2), 15)
    return path


def test_file_camera_recording_and_api_give_the_same_scores(
    model: VideoModel, video: Path, plug: Plug, tmp_path: Path
) -> None:
    save(model, tmp_path / "model")
    window, stride = 1.6, 0.8
    file = Predictor(model).predict(video, window=window, stride=stride)
    assert len(file.windows) == 4
    assert np.ptp([w.probabilities for w in file.windows], axis=0).max() > 1e-4, "windows that can be told apart"

    (api,), _ = vidstill.predict(tmp_path / "model.safetensors", video, window=window, stride=stride)
    predictor = Predictor(model)
    windows = predictor.windows(predictor.open(np.stack([*decoded(video)]), fps=15), window=window, stride=stride)
    array = [*predictor.scores(windows)]
    plug(lambda short_side: iter_frames(video, short_side=short_side))
    camera = Predictor(model).predict("camera:0", window=window, stride=stride)
    recorded = record(Predictor(model), "rtsp://door", tmp_path / "out.mp4", window=window, stride=stride)
    for windows in (api.windows, array, camera.windows, recorded.windows):
        np.testing.assert_allclose([(w.start, w.end) for w in windows], [(w.start, w.end) for w in file.windows])
        for seen, expected in zip(windows, file.windows, strict=True):
            np.testing.assert_allclose(seen.probabilities, expected.probabilities, rtol=1e-5)


def decoded(path: Path) -> Iterator[np.ndarray]:
    return (frame.pixels for frame in iter_frames(path))


def frame(number: int) -> Frame:
    return Frame(number, number / 10, np.full((9, 12, 3), number, np.uint8))


def test_frames_that_waited_too_long_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now, more = [100.0], Event()
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def camera() -> Iterator[Frame]:
        yield from map(frame, range(10))
        assert more.wait(10)
        yield from map(frame, range(10, 15))

    source = Live(camera())
    assert next(source).index == 0
    wait_for(source, 0.9)
    now[0] += module.STALE + 0.1
    more.set()
    wait_for(source, 1.4)
    assert [shown.index for shown in source] == [10, 11, 12, 13, 14]
    assert source.dropped == 9


def test_what_was_left_out_is_said(
    model: VideoModel, video: Path, plug: Plug, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plug(lambda short_side: iter_frames(video, short_side=short_side))
    Predictor(model).predict("camera:0")
    assert not caplog.text
    monkeypatch.setattr(Live, "close", lambda live: setattr(live, "dropped", 7))
    Predictor(model).predict("camera:0")
    assert "camera:0: 7 frames were left out" in caplog.text


def test_the_last_frame_is_never_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    source = Live(map(frame, range(5)))
    wait_for(source, 0.4)
    now[0] += 1000
    assert [shown.index for shown in source] == [4]


def wait_for(source: Live, seconds: float) -> None:
    while source.newest() < seconds:
        time.sleep(0.001)


def test_an_error_comes_after_the_frames_before_it() -> None:
    def camera() -> Iterator[Frame]:
        yield frame(0)
        raise ValueError("unplugged")

    source = Live(camera())
    assert next(source).index == 0
    for _ in range(2):
        with pytest.raises(ValueError, match="unplugged"):
            next(source)


def test_a_closed_source_is_let_go() -> None:
    taken, gone = [], Event()

    def camera() -> Iterator[Frame]:
        try:
            for number in range(10_000):
                taken.append(number)
                yield frame(number)
                time.sleep(0.001)
        finally:
            gone.set()

    source = Live(camera())
    next(source)
    source.close()
    assert gone.wait(10)
    assert len(taken) < 10_000


@pytest.mark.parametrize("ahead", [0, 7, 23, 60])
def test_windows_that_a_later_one_has_overtaken_are_left_out(ahead: int) -> None:
    """`ahead` frames wait while one is looked at."""
    frames = [frame(n) for n in range(200)]
    taken = 0

    def stream() -> Iterator[Frame]:
        nonlocal taken
        for taken, each in enumerate(frames):  # noqa: B007
            yield each

    def newest() -> float:
        return frames[min(len(frames) - 1, taken + ahead)].seconds

    every = [*sliding_windows(frames, 2.0, 1.0)]
    kept = [*sliding_windows(stream(), 2.0, 1.0, newest=newest)]
    starts = [window.start for window in every]
    assert len(kept) == len(every) if ahead < 10 else len(kept) < len(every)
    for window in kept:
        assert window == every[starts.index(window.start)]
    assert (kept[0].start, kept[-1].start) == (starts[0], starts[-1])
    for before, after in itertools.pairwise(kept[:3]):
        assert after.start - before.start == pytest.approx(max(1, ahead // 10))


@pytest.mark.parametrize(
    ("source", "expected"),
    [("camera:0", True), ("/dev/video1", True), ("rtsp://x/y", True), ("udp://1.2.3.4:5", True),
     ("https://x/y.mp4", False), ("a.mp4", False)],
)  # fmt: skip
def test_what_never_waits(source: str, expected: bool) -> None:
    assert never_waits(source) is expected
