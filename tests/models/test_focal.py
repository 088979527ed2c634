"""The focal family: sizes and costs of the published table, any input, gradients, capture, errors."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vidstill.models.catalogue import CATALOGUE
from vidstill.models.focal import capture_modulators
from vidstill.models.registry import VideoModel, create_model, list_models


def small(**options: object) -> VideoModel:
    torch.manual_seed(0)
    return create_model("vfl_net", 5, **{"width": 8, "drop_path_rate": 0.0, **options}).eval()


def test_the_catalogue_names_every_model() -> None:
    assert list_models() == sorted(CATALOGUE)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_sizes_and_costs_of_the_catalogue(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
        clips = torch.empty(1, 8, 224, 224, 3).permute(0, 4, 1, 2, 3)
    assert sum(parameter.numel() for parameter in model.parameters()) == CATALOGUE[name].parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(clips)
    assert counter.get_total_flops() / 2e9 == pytest.approx(CATALOGUE[name].gmacs, rel=2e-3)


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    model, clips = small(), torch.randn(3, 3, 4, 40, 36)
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_order_of_frames_matters() -> None:
    model, clips = small(init_std=0.2), torch.randn(1, 3, 6, 32, 32)
    with torch.no_grad():
        assert (model(clips) - model(clips.flip(2))).abs().max() > 1e-5


def test_any_memory_layout_gives_the_same_logits() -> None:
    model, clips = small(), torch.randn(2, 3, 4, 32, 32)
    channels_last = clips.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(clips), model(channels_last), atol=1e-5, rtol=1e-4)


def test_features_are_named_by_stage() -> None:
    model = small()
    with torch.no_grad():
        features = model.forward_features(torch.randn(2, 3, 4, 64, 64))
    shapes = {name: tuple(value.shape) for name, value in features.items()}
    assert shapes["stage1"] == (2, 8, 4, 16, 16)
    assert shapes["stage4"] == (2, 64, 4, 2, 2)


def test_recomputing_activations_gives_the_same_gradients() -> None:
    model, clips = small().train(), torch.randn(2, 3, 4, 32, 32)
    other = copy.deepcopy(model)
    other.checkpointing = True
    for network in (model, other):
        network(clips).square().sum().backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_stochastic_depth_drops_frames_on_their_own_and_keeps_the_mean() -> None:
    from vidstill.models.focal import DropPath

    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(2000, 1, 1, 1))
    values = set(dropped.unique().tolist())
    assert sorted(values) == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    per_clip = dropped.view(400, 5)
    assert (per_clip.amax(1) != per_clip.amin(1)).any(), "frames of one clip are dropped independently"


def test_initialisation() -> None:
    model = create_model("vfl_net", 101)
    weight = model.layers[2].blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert all((module.bias == 0).all() for module in model.modules() if isinstance(module, torch.nn.Linear))


def test_modulators_are_captured_only_inside_the_context() -> None:
    model, clips = small(), torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad(), capture_modulators(model) as captured:
        model(clips)
    assert len(captured) == 5
    assert captured["layers.0.blocks.0"].spatial.shape == (8, 8, 8, 8)
    captured.clear()
    with torch.no_grad():
        model(clips)
    assert not captured


def test_the_form_for_inference_gives_the_same_logits() -> None:
    model, clips = small(), torch.randn(2, 3, 4, 64, 64)
    with torch.no_grad():
        plain = model(clips)
        fast = copy.deepcopy(model).optimise_for_inference()(clips)
    assert (plain - fast).abs().max() <= 1e-5 * plain.abs().max()


def test_a_fresh_classifier() -> None:
    model = small()
    model.reset_classifier(7)
    assert model(torch.randn(1, 3, 2, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"focal_windows": (3, 3, 4, 3)}, "odd"),
        ({"use_conv_embed": True, "tubelet_size": 2}, "tubelet"),
        ({"depths": (1, 1)}, "one entry per stage"),
        ({"colour": 1}, "colour"),
    ],
)
def test_options_that_cannot_be_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="tubelet"):
        small(tubelet_size=2)(torch.randn(1, 3, 3, 32, 32))
    with pytest.raises(ValueError, match="too small"):
        small()(torch.randn(1, 3, 2, 16, 16))
    with pytest.raises(ValueError, match="did you mean vfl_net"):
        create_model("vfl_ne")
