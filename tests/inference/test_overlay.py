"""The annotated video: every frame, unchanged above, readable below, at its time."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from conftest import Plug
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vidstill.config import Clip
from vidstill.inference import overlay
from vidstill.inference.overlay import ACCENT, GROUND, annotate, draw, record
from vidstill.inference.predictor import Prediction, Predictor, WindowScores, predict
from vidstill.inference.unknown import NONE
from vidstill.models.registry import create_model
from vidstill.video.decode import Frame, VideoError, count_frames, probe, read_frames
from vidstill.video.encode import write_video

RANKED = [
    ("clean and jerk", 0.8),
    ("deadlifting with a name that is longer than any panel is wide " * 3, 0.15),
    ("c", 0.05),
]


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (abs(pixels.astype(int) - colour) < 12).all(-1)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 320x240, getting brighter."""
    path = tmp_path_factory.mktemp("v") / "source.mp4"
    frames = np.linspace(40, 220, 20).astype(np.uint8)[:, None, None, None]
    write_video(path, np.broadcast_to(frames, (20, 240, 320, 3)), 10)
    return path


def prediction(source: object, *scores: float) -> Prediction:
    """Windows of a second, the first class with these scores."""
    windows = [WindowScores(n, n + 1, np.array([score, 1 - score])) for n, score in enumerate(scores)]
    return Prediction(str(source), ["first", "second"], windows, 1.0)


@settings(deadline=None, max_examples=25)
@given(st.integers(16, 900), st.integers(16, 900), st.integers(0, 3), st.floats(0, 7200), st.none() | st.just(5000.0))
def test_any_size_keeps_the_picture_and_gets_a_panel(
    height: int, width: int, lines: int, seconds: float, length: float | None
) -> None:
    pixels = np.full((height, width, 3), 120, np.uint8)
    drawn = draw(pixels, RANKED[:lines], seconds, length, lines)
    scale = drawn.shape[1] // width
    assert drawn.shape[1] == scale * width
    assert min(height, width) * scale >= 240
    assert (drawn[: scale * height] == 120).all()
    panel = drawn[scale * height :]
    assert panel.shape[0] >= 40
    if lines:
        assert panel.max() > 230, "text"
    edge = panel[: -len(panel) // 8, -4:]  # above the line at the foot
    assert near(edge, GROUND).all(), "nothing runs out of the panel"


@pytest.mark.parametrize("score", [0.25, 0.5, 1.0])
def test_the_bar_is_as_long_as_the_score(score: float) -> None:
    panel = draw(np.zeros((480, 640, 3), np.uint8), [("a", score)], 1.0)[480:]
    widths = near(panel, ACCENT).sum(1)
    assert widths.max() == pytest.approx(score * (640 - 2 * round(0.7 * 24)), abs=4)


def test_the_line_at_the_foot_is_the_time() -> None:
    foot = draw(np.zeros((480, 640, 3), np.uint8), [("a", 0.0)], 2.0, 8.0)[-1]
    assert near(foot, ACCENT).sum() == pytest.approx(160, abs=2)


def test_the_panel_keeps_its_height_while_nothing_is_known_yet() -> None:
    pixels = np.zeros((240, 320, 3), np.uint8)
    assert draw(pixels, [], 0.0, lines=3).shape == draw(pixels, RANKED, 0.0, lines=3).shape


def test_other_fonts_do_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "FONTS", ())
    overlay.font.cache_clear()
    panel = draw(np.zeros((240, 320, 3), np.uint8), RANKED, 1.0)[240:]
    overlay.font.cache_clear()
    assert panel.max() > 230


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_annotated_video_has_every_frame(video: Path, tmp_path: Path, suffix: str) -> None:
    events: list[dict[str, object]] = []
    out = tmp_path / f"out{suffix}"
    annotate(video, prediction(video, 0.9, 0.1), out, report=events.append)
    assert count_frames(out) == 20
    info = probe(out)
    assert (info.width, info.fps) == (320, 10)
    shown = read_frames(out, range(20))
    original = read_frames(video, range(20))
    assert abs(shown[:, :240].astype(int) - original).mean() < 3
    assert events[-1]["done"] == events[-1]["total"]


def test_scores_follow_the_time(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    annotate(video, prediction(video, 1.0, 0.0), out, top_k=1)
    shown = read_frames(out, [0, 10, 19])[:, 240:-6]  # without the line at the foot
    bars = [near(panel, ACCENT).sum(1).max() for panel in shown]
    assert bars[0] > 250
    assert bars[1] == pytest.approx(bars[0] / 2, abs=25), "between the windows both are likely"
    assert bars[2] > 250


@pytest.mark.parametrize("source", ["camera:0", "rtsp://host/stream"])
def test_what_cannot_be_read_again_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="live source"):
        annotate(source, prediction(source, 0.5), tmp_path / "x.mp4")


def test_the_source_is_not_replaced(video: Path) -> None:
    before = video.read_bytes()
    with pytest.raises(VideoError, match="another name"):
        annotate(video, prediction(video, 0.5), video.parent / "." / video.name)
    assert video.read_bytes() == before


def test_none_of_these_has_a_name_but_no_bar(video: Path, tmp_path: Path) -> None:
    unsure = replace(prediction(video, 0.6, 0.6), none_below=0.7)
    out = tmp_path / "out.mp4"
    annotate(video, unsure, out)
    panel = read_frames(out, [5])[0][240:-6]
    assert not near(panel, ACCENT).any() and panel.max() > 200
    assert [name for name, _ in unsure.named(unsure.at(0.5), 3)] == [NONE, "first", "second"]


@pytest.mark.parametrize("width", [240, 320, 640])
@pytest.mark.parametrize("lines", [1, 3])
def test_the_speed_of_processing_has_its_place(width: int, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    real = overlay.write_text

    def write_text(pen: Any, at: tuple[float, float], text: str, *rest: Any, **more: Any) -> float:
        said.append(text)
        left = real(pen, at, text, *rest, **more)
        assert left >= 0, text
        return left

    monkeypatch.setattr(overlay, "write_text", write_text)
    draw(np.zeros((360, width, 3), np.uint8), RANKED[:lines], 61.5, 100.0, lines, 1234.4)
    (speed,) = [text for text in said if "1234 fps" in text]
    assert speed.endswith("processing speed 1234 fps" if width > 240 else "speed 1234 fps")
    assert any(text.startswith("1:01.5") for text in said)


@pytest.mark.parametrize("seconds", [None, 1.5])
def test_pictures_and_sound_are_kept_and_cut_together(toned: Path, tmp_path: Path, seconds: float | None) -> None:
    out = tmp_path / "out.mp4"
    annotate(toned, prediction(toned, 0.9, 0.1), out, seconds=seconds)
    length = seconds or 4
    with av.open(str(out)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(samples) / 44100 == pytest.approx(length, abs=0.05)
    assert np.abs(np.fft.rfft(samples)).argmax() / length == pytest.approx(1000, rel=0.03), "the tone"
    assert count_frames(out) == round(25 * length + 0.1)


class Screen:
    """A window that is closed after so many frames."""

    def __init__(self, frames: int) -> None:
        self.left, self.seconds = frames, list[float]()
        self.closed = False

    def write(self, frame: np.ndarray, seconds: float) -> None:
        self.seconds.append(seconds)
        self.left -= 1
        self.closed = self.left <= 0


@pytest.mark.parametrize("filmed", [False, True])
def test_a_file_is_played_until_its_window_is_closed(video: Path, tmp_path: Path, filmed: bool) -> None:
    screen: Any = Screen(7)
    out = tmp_path / "out.mp4" if filmed else None
    annotate(video, prediction(video, 0.9, 0.1), out, window=screen)
    if out is not None:
        assert count_frames(out) == 20 == len(screen.seconds), "the file is finished"
    else:
        assert screen.seconds == pytest.approx([n / 10 for n in range(7)])


class Tape:
    """A VideoWriter that keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.sound_ends: list[float] = []

    def end_sound(self, seconds: float) -> None:
        self.sound_ends.append(seconds)

    def write(self, frame: np.ndarray) -> None:
        self.frames.append(int(frame))


@given(st.lists(st.floats(0, 1.5), min_size=1, max_size=50), st.sampled_from([5, 10, 25, 29.97]))
def test_pacing_keeps_to_the_time_stamps(pauses: list[float], rate: float) -> None:
    times = np.cumsum([0, *pauses])
    tape = Tape()
    paced = overlay._Paced(tape, rate)  # type: ignore[arg-type]
    for number, seconds in enumerate(times):
        paced.write(np.array(number), float(seconds))
    assert len(tape.frames) == round(times[-1] * rate) + 1
    for place, number in enumerate(tape.frames):
        assert times[number] <= place / rate + 0.5 / rate + 1e-6, "no frame is shown before its time"
        if number + 1 < len(times):
            assert round(times[number + 1] * rate) >= place, "and none after the next one's"


def test_a_wild_time_stamp_does_not_fill_the_disk() -> None:
    tape = Tape()
    paced = overlay._Paced(tape, 10)  # type: ignore[arg-type]
    for number, seconds in enumerate((0.0, 0.1, 1e12, 1e12 + 0.1)):
        paced.write(np.array(number), seconds)
    assert tape.frames == [0, 1, *[1] * 19, 2, 3]
    assert tape.sound_ends == pytest.approx([0.2]), "where the pictures jump"


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    model = create_model("vfl_net", 2, width=8).eval()
    model.classes, model.input = ["first", "second"], Clip(frames=4, size=32, seconds=0.8)
    return Predictor(model)


@pytest.mark.parametrize(("seconds", "stop"), [(1.9, None), (None, None), (None, KeyboardInterrupt)])
def test_a_camera_is_labelled_and_recorded_in_one_go(
    predictor: Predictor,
    tmp_path: Path,
    plug: Plug,
    seconds: float | None,
    stop: type[BaseException] | None,
) -> None:
    def camera(short_side: int | None) -> Iterator[Frame]:
        for n in range(30):
            yield Frame(n, n / 10, np.full((48, 64, 3), 5 * n, np.uint8))
        if stop is not None:
            raise stop

    plug(camera)
    path = tmp_path / "out.mp4"
    labelled = record(predictor, "camera:0", path, seconds=seconds)
    last = 1.8 if seconds else 2.9
    assert count_frames(path) == round(last * 25) + 1
    assert labelled.windows[0].end == pytest.approx(0.8)
    assert labelled.windows[-1].end == pytest.approx(2.8 if stop else last + 0.1)
    early, late = read_frames(path, [0, round(1.5 * 25)])
    picture = 48 * 5
    assert near(early[picture:-6], ACCENT).sum() < near(late[picture:-6], ACCENT).sum(), (
        "no score before a window is over"
    )
    assert abs(late[:picture].mean() - 75) < 4


@pytest.mark.parametrize("filmed", [False, True])
def test_a_camera_is_shown_until_its_window_is_closed(
    predictor: Predictor, tmp_path: Path, plug: Plug, filmed: bool
) -> None:
    def camera(short_side: int | None) -> Iterator[Frame]:
        for n in range(1000):
            yield Frame(n, n / 10, np.zeros((48, 64, 3), np.uint8))

    plug(camera)
    screen: Any = Screen(20)
    path = tmp_path / "out.mp4" if filmed else None
    labelled = record(predictor, "camera:0", path, screen=screen)
    assert screen.seconds == pytest.approx([n / 10 for n in range(20)])
    assert labelled.windows[-1].end <= 2
    assert path is None or count_frames(path) == round(1.9 * 25) + 1


def test_a_recording_of_nothing_leaves_no_file(predictor: Predictor, tmp_path: Path, plug: Plug) -> None:
    def camera(short_side: int | None) -> Iterator[Frame]:
        yield Frame(0, 0.0, np.zeros((48, 64, 3), np.uint8))
        raise KeyboardInterrupt

    plug(camera)
    with pytest.raises(KeyboardInterrupt):
        record(predictor, "camera:0", tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_a_frame_folder_is_as_long_as_its_rate_says(tmp_path: Path) -> None:
    model = create_model("vfl_net", 2, width=8, depths=(1, 1), focal_levels=(1, 1), focal_windows=(3, 3))
    model.classes, model.input = ["dark", "light"], Clip(frames=4, size=32)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(1, 25):
        Image.fromarray(np.full((32, 32, 3), 9 * number, np.uint8)).save(folder / f"{number:05}.png")
    (prediction,), failures = predict(model, str(folder), fps=8)
    assert not failures
    assert prediction.windows[-1].end == pytest.approx(3)
    annotate(folder, prediction, tmp_path / "a.mp4", fps=8)
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.fps) == (24, 8)
