"""Grad-CAM of every family, modulators and token labels: numbers against formulas, files that open again."""

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchcam.methods import GradCAM

import vidstill
from vidstill.config import Clip
from vidstill.data.annotations import Sample
from vidstill.data.views import read_views
from vidstill.evaluation.testing import evaluate
from vidstill.explain import gradcam, modulators, token_labels
from vidstill.explain.gradcam import find_layer, grad_cam, write_grad_cam
from vidstill.explain.look import look_at
from vidstill.explain.pictures import Colours, blend, colour, grid, write_pictures
from vidstill.inference.overlay import clock
from vidstill.models.registry import VideoModel, create_model
from vidstill.video.decode import count_frames, probe
from vidstill.video.encode import write_video

DUAL: dict[str, Any] = {
    "video_size": (8, 64, 64), "embed_dims": (8, 16, 16, 16), "num_heads": (1, 2, 2, 2), "depths": (2, 2, 2, 2),
    "local_sizes": ((2, 4, 4), (4, 2, 2), (4, 2, 2), (4, 1, 1)),
    "fine_pysizes": ((4, 4, 4), (2, 2, 2), (2, 1, 1), (4, 1, 1)), "coarse_pysizes": ((2, 1, 1),) * 4,
}  # fmt: skip
FAMILIES = [("dualformer_tiny", DUAL), ("vfl_net", {"width": 8, "init_std": 0.2})]


def small(name: str, options: dict[str, Any], std: float = 0.3) -> VideoModel:
    torch.manual_seed(0)
    model = create_model(name, 5, **options).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=std)
    model.classes = ["run", "jump", "wave", "sit", "turn"]
    model.input = Clip(
        frames=8, interval=1, size=64, sampling="sample_frames" if name.startswith("dual") else "segments"
    )
    return model


def clips(views: int = 2) -> torch.Tensor:
    return torch.randn(views, 8, 64, 64, 3, generator=torch.Generator().manual_seed(1)).permute(0, 4, 1, 2, 3)


@pytest.fixture
def video(embedded: Path) -> Path:
    return sorted((embedded).rglob("*.mp4"))[0]


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_weights_are_the_slopes_of_the_probability(name: str, options: dict[str, Any]) -> None:
    """Raising one channel of the layer at one step a little everywhere raises the score by its weight."""
    model, x = small(name, options), clips()
    cam = grad_cam(model, x, target=3)
    layer, step, channel = find_layer(model, model.cam_layer), 1, 2
    h, w = cam.activations[0].shape[-2:]

    def score(push: float) -> float:
        def shift(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            output[0, step, :, :, channel] += push
            return output

        hook = layer.register_forward_hook(shift)
        with torch.no_grad():
            scores = model.double()(x.double()).softmax(-1).mean(0)
        hook.remove()
        return scores[3].item()

    slope = (score(1e-4) - score(-1e-4)) / 2e-4
    assert cam.weights[0][0, channel, step].item() == pytest.approx(slope / (h * w), rel=1e-2, abs=1e-7)


SLOWFAST: dict[str, Any] = {"width": 8, "beta": 4, "depths": (1, 1, 1, 1)}
LAYERS = [
    *((*family, "") for family in FAMILIES),
    ("shufflenetv2_3d", {"width": 0.25}, "features"),
    ("slowfast_r50", SLOWFAST, "s4/pathway0_res0"),
    ("slowfast_dual_r50", SLOWFAST, "s5/pathway1_res0"),
]


@pytest.mark.parametrize(("name", "options", "layer"), LAYERS)
def test_torchcam_has_the_same_maps(name: str, options: dict[str, Any], layer: str) -> None:
    """It takes one weight for all steps of a channel, their mean."""
    model = small(name, options, std=0.1 if layer else 0.3)
    layer = layer or model.cam_layer
    x = F.interpolate(clips(1), (16, 64, 64)) if name.endswith("3d") else clips(1)
    swap = (lambda y: y.movedim(-1, 1)) if model.channel_axis == -1 else None
    expected, ours = [], []
    for target in range(5):
        with GradCAM(model, find_layer(model, layer), reshape_transform=swap) as reference:
            expected.append(reference(target, model(x).softmax(-1), normalized=False)[0])
        found = grad_cam(model, x, layer, target=target)
        ours.append(torch.einsum("vc,vcdhw->vdhw", found.weights[0].mean(2), found.activations[0]).relu())
    largest = max(float(each.max()) for each in expected)
    assert largest > 1e-6
    torch.testing.assert_close(torch.stack(ours), torch.stack(expected), rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_maps_of_every_view_and_frame(name: str, options: dict[str, Any]) -> None:
    model, x = small(name, options).train(), clips(5)
    before, learning = x.clone(), [p.requires_grad for p in model.parameters()]
    cam = grad_cam(model, x, at_once=2)
    assert torch.equal(x, before) and model.training
    assert [p.requires_grad for p in model.parameters()] == learning
    assert cam.target == int(cam.scores.argmax()) and cam.scores.sum().item() == pytest.approx(1, abs=1e-5)
    heat = cam.heat(64, 64)
    assert heat.shape == (5, 8, 64, 64) and heat.min() == 0 and heat.max() == pytest.approx(1)
    together = grad_cam(model, x, at_once=5)
    torch.testing.assert_close(cam.maps(), together.maps(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("name", "options", "std"), [(*FAMILIES[0], 0.3), ("slowfast_r50", SLOWFAST, 0.1)])
def test_a_model_in_its_form_for_inference_has_maps_too(name: str, options: dict[str, Any], std: float) -> None:
    model, x = small(name, options, std), clips()
    plain = grad_cam(model, x, target=1).weights[0]
    model.optimise_for_inference()
    for _ in range(2):  # before and after its weights are packed
        torch.testing.assert_close(grad_cam(model, x, target=1).weights[0], plain, rtol=1e-3, atol=1e-6)
        with torch.no_grad():
            model(x)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("backbone/blocks/3/9", r"no layer 'backbone/blocks/3/9': backbone/blocks/3 has 0, 1$"),
        ("s6_fuse", "no layer 's6_fuse': the model has backbone, cls_head"),
        ("cls_head", r"layer cls_head gives \(2, 5\), not \(B,C,T,H,W\): take another, e.g. backbone/blocks/3/1"),
    ],
)
def test_wrong_layers(layer: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grad_cam(small(*FAMILIES[0]), clips(), layer)


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no class 5: the model has 5, counted from 0"):
        grad_cam(small(*FAMILIES[0]), clips(), target=5)


def test_tables_of_colours() -> None:
    """Known ends of the published tables."""
    np.testing.assert_allclose(colour(np.array([0.0, 1.0]), "viridis") * 255, [[68, 1, 84], [253, 231, 37]], atol=1)
    np.testing.assert_allclose(colour(np.array([0.0, 1.0]), "magma") * 255, [[0, 0, 4], [252, 253, 191]], atol=1)
    np.testing.assert_allclose(blend(np.ones((2, 3)), np.zeros(2), alpha=0.0), 1)
    with pytest.raises(ValueError, match="colours 'gray': take one of OpenCV's colour maps: viridis, autumn, "):
        colour(np.zeros(1), "gray")  # type: ignore[arg-type]


def test_every_colour_map_of_opencv_is_there() -> None:
    known = {name.removeprefix("COLORMAP_").lower() for name in dir(cv2) if name.startswith("COLORMAP_")}
    assert known == set(get_args(Colours))
    np.testing.assert_allclose(colour(np.array([0.5]), "jet"), [[0.5, 1, 0.5]], atol=0.02)


def test_pictures_are_whole_or_refused(tmp_path: Path) -> None:
    pictures = [np.full((16, 24, 3), shade, np.uint8) for shade in (0, 100, 200)]
    assert grid([pictures, pictures[:1]], ["a", "b"]).dtype == np.uint8
    strip = np.asarray(Image.open(write_pictures(tmp_path / "x.png", [pictures], 5)))
    assert (strip[10, 4:28] == 0).all() and (strip[10, 32:56] == 100).all()
    with pytest.raises(ValueError, match=r"\.mp4, \.gif or \.png"):
        write_pictures(tmp_path / "x.txt", [pictures], 5)


@pytest.mark.parametrize(("name", "options"), FAMILIES)
@pytest.mark.parametrize(("suffix", "layout"), [(".png", "over"), (".gif", "beside"), (".mp4", "over")])
def test_written_grad_cams(
    name: str, options: dict[str, Any], suffix: str, layout: Any, video: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"cam{suffix}"
    cam = write_grad_cam(small(name, options), video, path, layout=layout, crops=3, target=1)
    assert cam.target == 1 and cam.maps().shape[0] == 3
    if suffix == ".png":
        width, height = Image.open(path).size
        assert width > 8 * 64 and height > 3 * 64
    else:
        assert count_frames(path) == 3 * 8


@pytest.mark.parametrize("views", ["opencv", "torch"])
@pytest.mark.parametrize(("number", "crops"), [(1, 3), (3, 1)])
def test_the_clips_of_a_test_are_explained(
    number: int, crops: Any, views: Any, long_video: Path, tmp_path: Path
) -> None:
    """Pixels and score are those of `vidstill test` with so many clips and crops."""
    model = small(*FAMILIES[1])
    model.input = model.input.model_copy(update={"views": views})
    look = look_at(model, long_video, clips=number, crops=crops)
    tested = evaluate(model, [Sample(long_video, 0)], clips=number, crops=crops).probabilities[0]
    np.testing.assert_allclose(look.scores, tested, rtol=1e-4, atol=1e-6)
    seen = read_views(long_video, model.input, number, crops)
    assert torch.equal(look.views, seen.pixels())
    np.testing.assert_allclose(look.seconds, seen.shown() / 5)
    assert (look.start, look.end, look.target) == (0, LONG, tested.argmax())
    cam = write_grad_cam(model, long_video, tmp_path / "c.mp4", clips=number, crops=crops, fps=10)
    assert cam.maps().shape[0] == number * crops
    info = probe(tmp_path / "c.mp4")
    assert (info.frames, info.fps) == (8 * number * crops, 10)
    with pytest.raises(ValueError, match="0 clips: take 1 or more"):
        look_at(model, long_video, clips=0)


def test_written_modulators(video: Path, tmp_path: Path) -> None:
    model = small(*FAMILIES[1])
    figure = np.asarray(Image.open(modulators.write_modulators(model, video, tmp_path / "m.png")))
    assert figure.shape[0] > 5 * 64 and figure.shape[1] > 8 * 64
    info = probe(modulators.write_modulators(model, video, tmp_path / "m.gif", kind="spatial", fps=20))
    assert (info.frames, info.fps) == (8, 20)
    assert Image.open(modulators.write_gates(model, video, tmp_path / "g.png")).size[1] > 4 * 64
    assert Image.open(modulators.write_kernels(model, tmp_path / "k.png")).size[1] > 4 * 96
    with pytest.raises(ValueError, match="no focal"):
        modulators.write_kernels(small(*FAMILIES[0]), tmp_path / "k.png")


def test_written_token_labels(video: Path, tmp_path: Path) -> None:
    model = small(*FAMILIES[0])
    labels = token_labels.write_token_labels(model, video, tmp_path / "t.png")
    assert labels.shape == (4, 2, 2) and labels.max() < 5
    assert Image.open(tmp_path / "t.png").size[0] > 5 * 64
    with pytest.raises(ValueError, match="does not label tokens"):
        token_labels.token_label_grid(small(*FAMILIES[1]), clips())


LONG = 60


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute at 5 frames per second: dark, but bright from 0:30 to 0:36."""
    path = tmp_path_factory.mktemp("v") / "a minute.mp4"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 60, (5 * LONG, 72, 96, 3), dtype=np.uint8)
    frames[5 * 30 : 5 * 36] += 150
    write_video(path, frames, 5)
    return path


def brightness(model: VideoModel) -> VideoModel:
    """Class 0 scores by how bright a clip is."""
    head = model.get_submodule("head")
    assert isinstance(head, torch.nn.Linear)
    head.weight.data.zero_()
    head.bias.data.zero_()
    model.forward = lambda clips: torch.nn.functional.one_hot(torch.tensor(0), 5) * clips.mean((1, 2, 3, 4))[:, None]
    return model


def test_of_a_long_file_the_window_of_the_class_is_explained(long_video: Path) -> None:
    model = brightness(small(*FAMILIES[1]))
    model.input = model.input.model_copy(update={"seconds": 4.0})
    look = look_at(model, long_video, target=0)
    (prediction,), _ = vidstill.predict(model, long_video)
    assert len(prediction.windows) > 20
    best = max(prediction.windows, key=lambda window: window.probabilities[0])
    assert (look.start, look.end) == (best.start, best.end) and 30 <= look.start < look.end <= 36.1
    np.testing.assert_allclose(look.scores, best.probabilities, rtol=1e-5)
    assert (look.seconds >= look.start).all() and (look.seconds < look.end).all() and look.length == LONG
    headline, line = look.title("Grad-CAM")
    assert headline == f"Grad-CAM: run {100 * best.probabilities[0]:.1f} %"
    assert line.startswith("a minute.mp4  0:3") and "of 1:00.0  (next: " in line


def test_frames_are_captioned_with_their_times(
    long_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(gradcam, "write_pictures", lambda path, rows, fps, captions, **about: told.update(about))
    model = small(*FAMILIES[1])
    write_grad_cam(model, long_video, tmp_path / "x.png")
    look = look_at(model, long_video)
    assert told["labels"] == [[clock(second) for second in look.seconds[0]]]
    assert told["labels"][0][-1] > "0:05", "frames of a window of ten seconds, not of a clip that runs at 5 per second"
    assert told["title"] == look.title("Grad-CAM") and told["scale"].colours == "viridis"


@pytest.mark.parametrize("views", ["opencv", "torch", "pillow"])
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_is_explained_however_frames_are_resized(
    family: tuple[str, dict[str, Any]], views: Any, video: Path, tmp_path: Path
) -> None:
    model = small(*family)
    model.input = model.input.model_copy(update={"views": views})
    write_grad_cam(model, video, tmp_path / "c.png")
    if family[0] == "vfl_net":
        modulators.write_modulators(model, video, tmp_path / "m.png")
        modulators.write_gates(model, video, tmp_path / "g.png")
    else:
        token_labels.write_token_labels(model, video, tmp_path / "t.png")


NOT_FOCAL = [FAMILIES[0], ("slowfast_r50", SLOWFAST), ("shufflenetv2_3d", {"width": 0.25})]


@pytest.mark.parametrize("family", NOT_FOCAL)
def test_what_a_network_does_not_have_is_said_in_one_line(
    family: tuple[str, dict[str, Any]], video: Path, tmp_path: Path
) -> None:
    model, path = small(*family, std=0.1), tmp_path / "x.png"
    for write in (modulators.write_modulators, modulators.write_gates):
        with pytest.raises(ValueError, match=r"no focal modulation.* give a Video-FocalNet or VFL-Net$"):
            write(model, video, path)
    with pytest.raises(ValueError, match=r"no focal levels: give a Video-FocalNet or VFL-Net$"):
        modulators.write_kernels(model, path)
    if family is not FAMILIES[0]:
        with pytest.raises(ValueError, match=r"does not label tokens: take a DualFormer$"):
            token_labels.write_token_labels(model, video, path)
    assert not path.exists()


def test_a_live_source_is_not_explained() -> None:
    with pytest.raises(ValueError, match="camera:0: what is explained is read twice"):
        look_at(small(*FAMILIES[1]), "camera:0")
