"""The focal family: sizes and costs of the published table, any input, gradients, capture, the form for inference."""

import copy
import logging

import pytest
import torch

from vidstill.config import Clip
from vidstill.evaluation.cost import gmacs
from vidstill.models import focal, focal_packing, layers
from vidstill.models import model as models
from vidstill.models.catalogue import CATALOGUE
from vidstill.models.focal import DropPath, capture_modulators, modulator_map
from vidstill.models.registry import VideoModel, create_model, list_models

TABLE = [  # classes, parameters: spec of the releases
    ("vfl_net", 101, 22_214_723),
    ("video_focalnet_tiny", 400, 49_553_272),
    ("video_focalnet_small", 400, 88_735_168),
    ("video_focalnet_base", 400, 157_389_216),
    ("video_focalnet_base", 600, 157_594_216),
    ("video_focalnet_base", 174, 157_157_566),
    ("video_focalnet_base", 0, 156_979_216),
]
ALL_OPTIONS = {
    "use_postln": True, "use_layerscale": True, "layerscale_value": 0.5, "use_postln_in_modulation": True,
    "normalize_modulator": True, "use_conv_embed": True, "focal_levels": (3, 2, 1, 0), "focal_windows": (3, 5, 3, 7),
    "mlp_ratio": 2.5, "patch_norm": False,
}  # fmt: skip


def small(seed: int = 0, **options: object) -> VideoModel:
    torch.manual_seed(seed)
    return create_model("vfl_net", 7, **{"width": 8, "init_std": 0.2, "drop_path_rate": 0.0, **options}).eval()


def clips(batch: int = 2, frames: int = 4, height: int = 32, width: int = 32, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, height, width, 3, generator=generator).permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize(("name", "classes", "parameters"), TABLE)
def test_parameter_counts_of_the_releases(name: str, classes: int, parameters: int) -> None:
    model = create_model(name, classes, device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert all(p.is_meta for p in model.parameters())


def test_catalogue_names_the_models() -> None:
    assert list_models("*") == sorted(CATALOGUE)
    for name, entry in CATALOGUE.items():
        assert sum(p.numel() for p in create_model(name, device="meta").parameters()) == entry.parameters


@pytest.mark.parametrize(
    "name", ["vfl_net", *(pytest.param(name, marks=pytest.mark.slow) for name in CATALOGUE if name != "vfl_net")]
)
def test_cost(name: str) -> None:
    assert gmacs(create_model(name, device="meta")) == pytest.approx(CATALOGUE[name].gmacs, abs=0.005)


def test_cost_grows_with_frames_and_halves_with_the_tubelet() -> None:
    long = Clip(frames=16)
    assert gmacs(create_model("vfl_net", device="meta"), long) == pytest.approx(54.28, abs=0.005)
    assert gmacs(create_model("vfl_net", device="meta", tubelet_size=2), long) == pytest.approx(27.26, abs=0.005)


def test_any_frame_count_and_size() -> None:
    model = small()
    for shape in ((1, 1, 32, 32), (1, 5, 47, 33), (3, 2, 64, 100)):
        assert model(clips(*shape)).shape == (shape[0], 7)


def test_memory_layout_of_the_clips_does_not_matter() -> None:
    model, x = small(), clips()
    torch.testing.assert_close(model(x.contiguous()), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, ALL_OPTIONS, {"tubelet_size": 2}], ids=["released", "all", "tubelet"])
def test_clips_of_a_batch_do_not_see_each_other(options: dict[str, object]) -> None:
    model, x = small(**options), clips(3)
    order = [2, 0, 1]
    torch.testing.assert_close(model(x[order]), model(x)[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(x[1:2]), model(x)[1:2], rtol=1e-5, atol=1e-6)


def test_the_order_of_frames_matters() -> None:
    model, x = small(), clips(1)
    assert (model(x) - model(x.flip(2))).abs().max() > 1e-4


def test_frames_of_a_clip_do_see_each_other() -> None:
    model, x = small(), clips(1)
    features = model.forward_features(x)["stage1"]
    other = x.clone()
    other[:, :, 3] = 0
    changed = (model.forward_features(other)["stage1"] - features).abs().amax((0, 1, 3, 4))
    assert (changed > 1e-6).all()


@pytest.mark.parametrize(("options", "message"), [
    ({"focal_windows": (3, 4, 3, 3)}, "focal_windows .* must be odd"),
    ({"use_conv_embed": True, "tubelet_size": 2}, "use_conv_embed has no tubelets"),
    ({"depths": (1, 1)}, "one entry per stage, got 2, 4 and 4"),
    ({"focal_levels": (2, 2, -1, 2)}, "levels must be 0 or more"),
    ({"width": 0}, "at least 1"),
    ({"tubelet_size": 0}, "at least 1"),
])  # fmt: skip
def test_options_that_cannot_be_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        small(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "shape", "message"), [
    ({}, (2, 3, 4, 31, 32), "31x32 pixels are too small"),
    ({"use_conv_embed": True}, (2, 3, 4, 0, 32), "too small"),
    ({"tubelet_size": 2}, (2, 3, 5, 32, 32), "5 frames: give a multiple of the tubelet size, 2"),
    ({}, (2, 3, 0, 32, 32), "0 frames"),
    ({}, (2, 4, 3, 32, 32), r"\(B,3,T,H,W\), got \(2, 4, 3, 32, 32\)"),
    ({}, (3, 4, 32, 32), "got"),
])  # fmt: skip
def test_clips_that_cannot_be_used(options: dict[str, object], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        small(**options)(torch.zeros(shape))
    assert "\n" not in str(error.value)


def test_features_have_the_grids_of_the_stages() -> None:
    x = clips(2, 4, 64, 96)
    features = small(tubelet_size=2).forward_features(x)
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        "stem": (2, 8, 2, 16, 24), "stage1": (2, 8, 2, 16, 24), "stage2": (2, 16, 2, 8, 12),
        "stage3": (2, 32, 2, 4, 6), "stage4": (2, 64, 2, 2, 3),
    }  # fmt: skip


def test_logits_are_the_head_of_the_last_features() -> None:
    model, x = small(), clips()
    last = model.forward_features(x)["stage4"].permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(model.head(model.norm(last).mean((1, 2, 3))), model(x), rtol=1e-5, atol=1e-6)


def test_reset_classifier() -> None:
    model = small()
    model.classes = list("abcdefg")
    model.reset_classifier(3)
    assert model(clips()).shape == (2, 3) and model.num_classes == 3 and model.classes is None
    assert (model.head.bias == 0).all()
    model.reset_classifier(0)
    assert model(clips()).shape == (2, 64)


def test_initialisation() -> None:
    model = create_model("vfl_net", 50, width=32)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert (module.bias == 0).all(), name
            if module.weight.numel() > 5000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.05), name
        elif isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
            bound = (module.weight[0].numel()) ** -0.5  # Kaiming-uniform with a = √5
            assert bound * 0.8 < module.weight.abs().max().item() <= bound, name
        elif isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all() and module.eps == 1e-5


def test_drop_path_rates_rise_linearly_over_the_blocks() -> None:
    model = create_model("video_focalnet_tiny", device="meta", drop_path_rate=0.5)
    rates = [block.drop_path.p for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx(torch.linspace(0, 0.5, 12).tolist())


def test_drop_path_drops_frames_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    y = drop(torch.ones(20_000, 2, 2, 3))
    rows = y.flatten(1)
    assert ((rows == 0).all(1) | torch.isclose(rows, torch.tensor(1 / 0.75)).all(1)).all()
    assert (rows[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.015)
    of_clips = rows[:, 0].view(-1, 8)
    assert (of_clips.amax(1) != of_clips.amin(1)).any(), "frames of one clip are dropped independently"
    assert torch.equal(drop.eval()(rows), rows)


def test_checkpointing_gives_the_same_gradients() -> None:
    model = small(drop_path_rate=0.3, drop_rate=0.1, tubelet_size=2).train()
    gradients = []
    for model.checkpointing in (False, True):
        model.zero_grad()
        torch.manual_seed(3)
        model(clips()).square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
        assert gradient.abs().sum() > 0, name


def test_checkpointing_keeps_fewer_activations() -> None:
    model, kept = small().train(), {}
    for model.checkpointing in (False, True):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            model(clips())
        kept[model.checkpointing] = sum(sizes)
    assert kept[True] < kept[False] / 2


@pytest.mark.parametrize("options", [{}, ALL_OPTIONS, {"tubelet_size": 2}], ids=["released", "all", "tubelet"])
def test_capture(options: dict[str, object]) -> None:
    model, x = small(**options), clips(2, 4, 32, 64)
    with torch.no_grad(), capture_modulators(model) as captured:
        logits = model(x)
    torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-5)
    assert list(captured) == [f"layers.{i}.blocks.{j}" for i, depth in enumerate(model.depths) for j in range(depth)]
    t, levels = 4 // model.tubelet_size, options.get("focal_levels", (2, 2, 2, 2))[0]
    first = captured["layers.0.blocks.0"]
    assert first.spatial.shape == first.temporal.shape == (2 * t, 8, 8, 16)
    assert first.gates.shape == (2 * t, levels + 1, 8, 16)
    assert first.gates_temporal.shape == (2 * 8 * 16, levels + 1, t)


def test_nothing_is_pinned_on_the_modules() -> None:
    model = small().train()
    with capture_modulators(model):
        pass
    model(clips())
    copy.deepcopy(model)  # fails when a module holds a tensor of the graph
    assert all(module.tap is None for module in model.modules() if isinstance(module, focal.FocalModulation))


def test_capture_needs_a_focal_network() -> None:
    with pytest.raises(ValueError, match="no focal modulation"), capture_modulators(torch.nn.Linear(2, 2)):
        pass


def test_modulator_map_is_the_norm_over_channels() -> None:
    modulator = torch.randn(4, 5, 3, 2)
    expected = modulator.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(modulator_map(modulator), expected)
    drawn = modulator_map(modulator, (12, 8))
    assert drawn.shape == (4, 1, 12, 8)
    assert drawn.max() <= expected.max() + 1e-5 and drawn.min() >= expected.min() - 1e-5


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({}, 4),
        ({"width": 32, "init_std": 0.1}, 4),
        ({"width": 32, "init_std": 0.1}, 2),
        ({**ALL_OPTIONS, "width": 32, "init_std": 0.1}, 4),
        ({"tubelet_size": 2}, 8),
    ],
)
def test_optimised_logits_are_equal(options: dict[str, object], frames: int) -> None:
    model, x = small(**options), clips(2, frames, 48, 64)
    with torch.inference_mode():
        doubled = copy.deepcopy(model).double()
        exact, exact_features = doubled(x.double()), doubled.forward_features(x.double())
        plain, features = model(x), model.forward_features(x)
        assert model.optimise_for_inference() is model
        fast, fast_features = model(x), model.forward_features(x)
    # Narrow random networks blow rounding up: what counts is that the fast form is as near to float64 as the plain one.
    assert (fast - exact).abs().max() <= 3 * (plain - exact).abs().max() + 1e-5 * plain.abs().max()
    for name, feature in features.items():
        error, allowed = ((y - exact_features[name]).abs().max() for y in (fast_features[name], feature))
        assert error <= 3 * allowed + 1e-5 * feature.abs().max(), name


needs_packing = pytest.mark.skipif(not layers.can_pack(torch.float32), reason="no x86 CPU with oneDNN")


@needs_packing
def test_optimised_runs_frames_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focal_packing, "CACHE_BYTES", 100_000)
    model, x = small(width=16), clips(2, 4, 64, 64)
    plain = model(x)
    model.optimise_for_inference()
    assert model(x).requires_grad is False and model.layers[0].blocks[0].packed < 4
    assert (model(x) - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_optimised_falls_back_to_the_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "can_pack", lambda dtype: False)
    model, x = small(), clips()
    plain = model(x)
    assert model.optimise_for_inference().packed_for is None
    assert torch.equal(model(x), plain)


def test_optimised_in_bfloat16_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(models, "can_pack", lambda dtype: False)
    with caplog.at_level(logging.WARNING, "vidstill"):
        model = small().optimise_for_inference(bf16=True)
    assert model.norm.weight.dtype == torch.float32 and "no bfloat16 instructions" in caplog.text


def test_bfloat16_logits() -> None:
    model, x = small(width=16), clips()
    with torch.inference_mode():
        plain = model(x)
        if layers.can_pack(torch.bfloat16):
            model.optimise_for_inference(bf16=True)
        logits = model.to(torch.bfloat16)(x)
    assert logits.dtype == torch.float32
    assert (logits - plain).abs().max() <= 2e-2 * plain.abs().max()
    assert torch.equal(logits.argmax(1), plain.argmax(1))


def test_autocast_trains_in_mixed_precision() -> None:
    model = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(model(clips()), torch.tensor([0, 1]))
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.slow
def test_compiles_into_one_graph() -> None:
    """Traced and differentiated as one graph; the kernels of the default backend are PyTorch's business."""
    model, x = small(depths=(1, 1, 1, 1)), clips()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    model.train()
    model(x).square().sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    compiled(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-3, atol=1e-5, msg=name)
