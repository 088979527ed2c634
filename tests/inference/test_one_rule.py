"""One rule for views: test, predict, explain and a teacher's format show the same pixels, at every frame rate.

Every sampling and every way of resizing, on videos of noise that is kept without loss, against pictures that are cut
here by hand from a plain decode.
"""

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vidstill.config import Augment, Clip
from vidstill.data.annotations import Sample
from vidstill.data.sampling import Timing, test_indices
from vidstill.data.transforms import train_clip
from vidstill.data.views import frame_side, test_clips, view_boxes
from vidstill.evaluation.testing import evaluate
from vidstill.explain.look import look_at
from vidstill.inference.predictor import Predictor, WindowScores
from vidstill.models.registry import VideoModel
from vidstill.video.decode import probe

SAMPLINGS = get_args(Clip.model_fields["sampling"].annotation)
VIEWS = get_args(Clip.model_fields["views"].annotation)
RATES = {"25": Fraction(25), "30": Fraction(30), "60": Fraction(60), "23.976": Fraction(24000, 1001), "variable": None}
HEIGHT, WIDTH, SECONDS, SIZE = 50, 74, 1.1, 16
PLAIN_GREY: Any = {"mean": (127.5,) * 3, "std": (1,) * 3}
LENGTH = Fraction(6 * 4, 30)  # seconds of a timed window
PLAIN = Augment(flip=0, jitter=0, grey=0, scale=(1, 1), ratio=(WIDTH / HEIGHT,) * 2)  # the whole frame


@dataclasses.dataclass
class Recorder:
    """An engine without torch modules: keeps what it sees; the score of a view is its mean grey level."""

    input: Clip
    classes: Any = ("dark", "bright")
    activation: str = "softmax"
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    at_once: int = 5
    seen: list[Tensor] = dataclasses.field(default_factory=list)

    def logits(self, views: Tensor) -> Tensor:
        self.seen.append(views.flatten(0, 1).clone())
        grey = views.float().flatten(2).mean(-1) - 127.5
        return torch.stack([-grey, grey], -1)


class Grey(VideoModel):
    """The same as a module."""

    def __init__(self, spec: Clip) -> None:
        super().__init__()
        self.input, self.classes = spec, ["dark", "bright"]
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, clips: Tensor) -> Tensor:
        grey = clips.flatten(1).mean(-1) + self.weight
        return torch.stack([-grey, grey], -1)


def spec_of(sampling: str, views: str, size: int = SIZE) -> Clip:
    return Clip(frames=6, interval=4, size=size, sampling=sampling, views=views, fps=30, seconds=10, **PLAIN_GREY)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """1.1 seconds of noise at each rate; the variable one pauses and hurries."""
    folder, rng = tmp_path_factory.mktemp("rates"), np.random.default_rng(0)
    made = {}
    for name, rate in RATES.items():
        made[name] = folder / f"{name}.mov"
        times = np.cumsum(rng.integers(8, 40, 40)) if rate is None else range(round(SECONDS * rate))
        with av.open(str(made[name]), "w") as container:
            stream = container.add_stream("png", rate=rate or 25)
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "rgb24"
            stream.codec_context.time_base = Fraction(1, 600) if rate is None else 1 / rate
            for time in times:
                pixels = rng.integers(0, 256, (HEIGHT // 2, WIDTH // 2, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels.repeat(2, 0).repeat(2, 1), format="rgb24")
                frame.pts, frame.time_base = int(time), stream.codec_context.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return made


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames and their times."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = np.array([float(frame.pts * frame.time_base) for frame in frames])
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), times - times[0]


def by_hand(frames: np.ndarray, spec: Clip, crops: int, timing: Timing, clips: int = 1) -> np.ndarray:
    """The views of a test of these frames, resized by the library that `spec.views` names: (V,T,S,S,3) grey levels."""
    side, (h, w) = frame_side(spec, crops), frames.shape[1:3]
    if spec.views == "opencv":
        size = int(h * side / min(h, w) + 0.5), int(w * side / min(h, w) + 0.5)
        resized = np.stack([cv2.resize(frame, size[::-1]) for frame in frames])
    else:
        size = h * side // min(h, w), w * side // min(h, w)
        if spec.views == "pillow":
            bilinear = Image.Resampling.BILINEAR
            resized = np.stack([np.asarray(Image.fromarray(frame).resize(size[::-1], bilinear)) for frame in frames])
        else:
            pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
            resized = F.interpolate(pictures, size, mode="bilinear").permute(0, 2, 3, 1).numpy()
    indices = test_indices(len(frames), spec, clips, timing=timing)
    middle: Any = {"opencv": "down", "torch": "up", "pillow": "even"}[spec.views]
    boxes = view_boxes(*size, spec.size, crops, middle)
    return np.stack([resized[row][:, y1:y2, x1:x2] for x1, y1, x2, y2 in boxes for row in indices])


def frames_of(window: WindowScores, times: np.ndarray) -> slice:
    """From the first to the one whose time and the mean distance before it make the window's end."""
    first = int(abs(times - window.start).argmin())
    ends = [times[n] + (times[n] - times[first]) / max(1, n - first) for n in range(first, len(times))]
    return slice(first, first + int(abs(np.array(ends) - window.end).argmin()) + 1)


def same(ours: Any, expected: np.ndarray, spec: Clip) -> None:
    ours = ours.numpy() if isinstance(ours, Tensor) else ours
    assert ours.dtype == (np.float32 if spec.views == "torch" else np.uint8)
    np.testing.assert_allclose(ours.astype(float), expected, rtol=0, atol=1e-3 if spec.views == "torch" else 0)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_same_pixels_everywhere(videos: dict[str, Path], sampling: str, views: str, rate: str) -> None:
    path, spec, crops = videos[rate], spec_of(sampling, views), 3 if rate == "30" else 1
    frames, times = decoded(path)
    info = probe(path)
    timing = Timing(info.fps, info.ticks)

    whole = by_hand(frames, spec, crops, timing)  # a test of one clip
    same(test_clips(path, spec, 1, crops), whole, spec)
    tester = Recorder(spec)
    evaluate(tester, [Sample(path, 0)], clips=1, crops=crops)
    same(torch.cat(tester.seen), whole, spec)

    engine = Recorder(spec)
    prediction = Predictor(engine).predict(path, crops=crops)
    seen = torch.cat(engine.seen).unflatten(0, (len(prediction.windows), -1))
    spans = sampling in ("segments", "tsm_segments", "uniform_sample_frames")
    length = {"timed_window": float(LENGTH), **dict.fromkeys(SAMPLINGS[:3], np.inf)}.get(sampling, 21 / info.fps)
    assert len(prediction.windows) == 1 if spans else len(prediction.windows) > 1
    for shown, window in zip(seen, prediction.windows, strict=True):
        inside = frames_of(window, times)
        if rate != "variable":
            assert window.end - window.start == pytest.approx(min(length, SECONDS), abs=1.01 / info.fps)
        same(shown, by_hand(frames[inside], spec, crops, timing), spec)

    best = int(np.argmax([window.probabilities[1] for window in prediction.windows]))
    look = look_at(Grey(spec), path, target=1, crops=crops)
    assert look.start == prediction.windows[best].start
    same(look.views, seen[best].numpy(), spec)
    assert look.seconds.min() >= look.start - 1e-6 and look.seconds.max() < look.end


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_teacher_sees_the_students_clip_by_its_own_rule(videos: dict[str, Path], sampling: str, rate: str) -> None:
    """A teacher of the student's rule sees the same frames, in its own size; any other one, beside a student that sees
    the whole of a video as long as a teacher's clip, the frames of a test."""
    path = videos[rate]
    frames, _ = decoded(path)
    info = probe(path)
    student, larger = spec_of(sampling, "opencv"), spec_of(sampling, "torch", 24)
    small, large = train_clip(path, student, PLAIN, np.random.RandomState(3), [larger])
    numbers = [resized_at(frames, clip) for clip in (small, large)]
    assert numbers[0] == numbers[1]
    if sampling in ("segments", "tsm_segments", "uniform_sample_frames"):
        return
    timed = {"interval": 1, "fps": 6 * info.fps / len(frames)}
    own = timed if sampling == "timed_window" else {"interval": (len(frames) - 1) // 5}
    teacher = student.model_copy(update={**own, "size": 24})
    whole = Clip(frames=len(frames), interval=1, size=SIZE)  # every frame
    _, taught = train_clip(path, whole, PLAIN, np.random.RandomState(0), [teacher])
    expected = test_indices(len(frames), teacher, 1, timing=Timing(info.fps, info.ticks))[0]
    assert max(abs(np.array(resized_at(frames, taught)) - expected)) <= 1


def resized_at(frames: np.ndarray, clip: np.ndarray) -> list[int]:
    """Which of the frames each picture of a clip is, the whole frame drawn into a square."""
    size = clip.shape[1:3]
    resized = np.stack([cv2.resize(frame, size) for frame in frames]).astype(int)
    apart = abs(clip[:, None].astype(int) - resized).mean((2, 3, 4))
    assert (apart.min(1) < 1).all()
    return apart.argmin(1).tolist()
