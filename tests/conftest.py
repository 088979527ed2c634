"""Where the shared clips and labels are, if they are anywhere."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a slow machine is not a wrong result
settings.load_profile("any machine")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips, labels and weights that are not part of the repository; tests on them skip without them."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("shared/data is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few clips of the embedded data set: train, val and test folders."""
    from vidstill.data.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("embedded")
    make_synthetic(folder, train=2, val=1, test=1, frames=12, size=48, seed=0)
    return folder


@pytest.fixture(scope="session")
def toned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds at 25 frames per second, 64x48, with 1 kHz at 44.1 kHz as AAC."""
    from fractions import Fraction

    import av
    import numpy as np

    path = tmp_path_factory.mktemp("toned") / "toned.mp4"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("mpeg4", rate=25), container.add_stream("aac", rate=44100, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(4 * 44100, dtype=np.float32) / 44100)
        for number in range(100):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), "rgb24")
            container.mux(video.encode(picture.reformat(format="yuv420p")))
            part = av.AudioFrame.from_ndarray(tone[None, 1764 * number : 1764 * (number + 1)], "fltp", "mono")
            part.sample_rate, part.pts, part.time_base = 44100, 1764 * number, Fraction(1, 44100)
            container.mux(audio.encode(part))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


@pytest.fixture
def small(embedded: Path, tmp_path: Path) -> list[str]:
    """Settings of a run on it that takes seconds."""
    return [
        "--data.format", "folders", "--data.root", str(embedded), "--out", str(tmp_path), "--name", "run",
        "--model.options", "{width: 8, drop_path_rate: 0.2}", "--clip.size", "32", "--clip.frames", "4",
        "--optim.name", "adamw", "--optim.lr", "0.002", "--optim.reference_batch", "null", "--train.batch", "4",
        "--train.epochs", "2", "--train.workers", "0", "--test.clips", "2", "--test.crops", "1",
        "--train.accelerator", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def teacher(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model for the embedded classes, untrained, of another width and format than `small`."""
    import torch

    import vidstill
    from vidstill.config import Clip
    from vidstill.models.weights import save

    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    model = vidstill.create_model("vfl_net", 8, width=12, init_std=0.15)
    model.classes = sorted(path.name for path in (embedded / "train").iterdir())
    model.input = Clip(frames=6, size=40, mean=(100, 110, 120))
    save(model, folder / "best")
    return folder


@pytest.fixture(params=["recognise", "distil"])
def any_objective(request: pytest.FixtureRequest, small: list[str], teacher: Path) -> list[str]:
    """`small` for each objective, with its optional terms."""
    if request.param == "recognise":
        return small
    distil = ["--distil.teacher", str(teacher), "--distil.beta", "0.3", "--distil.gamma", "0.2", "--distil.features",
              "{stage2: stage3}", "--distil.alpha", "0.5"]  # fmt: skip
    return [*small, "--objective", "distil", *distil]
