"""Which recipes a file's weights fit, and what is said of those that fit none; a description inside the weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import vidstill
from vidstill.config import recipe_names, resolve
from vidstill.models.importing import import_released
from vidstill.models.released import recipe_classes, what_fits
from vidstill.models.weights import LONGEST_JSON, load_weights, save

State = dict[str, torch.Tensor]


def weights(name: str, classes: int, **options: Any) -> State:
    return vidstill.create_model(name, classes, device="meta", **options).state_dict()


@pytest.mark.parametrize(("state", "recipes"), [
    (("video_focalnet_base", 400, {"tubelet_size": 2}), {"k400_video_focalnet_base"}),
    (("vfl_net", 101, {}), {"ucf101_vfl_net", "ucf101_dvfl_net"}),
    (("dualformer_tiny", 400, {"token_head": True}), {"k400_dualformer_tiny", "k400_dualformer_tiny_token_labels"}),
    (("slowfast_r50", 400, {"alpha": 8, "fusion_kernel": 5}), {"k400_slowfast_4x16_r50"}),
])  # fmt: skip
def test_weights_tell_their_recipes(state: tuple[str, int, dict[str, Any]], recipes: set[str]) -> None:
    said = what_fits(weights(state[0], state[1], **state[2]))
    begin, _, names = said.partition(" --recipe ")
    assert begin == "its weights fit" and set(names.replace(" or ", ", ").split(", ")) == recipes


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_is_found_by_its_own_network(recipe: str) -> None:
    run = resolve(recipe)
    classes = recipe_classes(recipe, run)
    said = what_fits(weights(run.model.name, len(classes) if classes else 3, **run.model.options))
    assert said.startswith("its weights fit --recipe ")
    assert recipe in said.replace(" or ", ", ").replace("--recipe ", ", ").split(", ")


def images() -> State:
    state = weights("video_focalnet_tiny", 1000)
    return {key: value for key, value in state.items() if "_temporal" not in key}


@pytest.mark.parametrize(("state", "said"), [
    (lambda: weights("slowfast_ghostnet", 5), "network is that of jester_slowfast_ghostnet or k400_slowfast_ghostnet, "
     "its 5 classes are others: name them, --recipe jester_slowfast_ghostnet --data.classes names.txt"),
    (images, "of a network for images, from which a training can start: --model.weights"),
    (lambda: weights("vfl_net", 9, width=32), "nearest is the recipe"),
    (lambda: {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.bn1.bias": torch.zeros(4)}, "it fits no recipe"),
    (lambda: {"backbone.patch_embeds.0.proj.weight": torch.zeros(3)}, "it fits no recipe"),
])  # fmt: skip
def test_weights_that_are_of_no_recipe(state: Any, said: str) -> None:
    assert said in what_fits(state())


def released(path: Path, name: str = "shufflenetv2_3d", classes: int = 27, **options: Any) -> Path:
    torch.save({"state_dict": vidstill.create_model(name, classes, **options).state_dict()}, path)
    return path


def test_without_a_recipe_and_with_a_wrong_one(tmp_path: Path) -> None:
    path = released(tmp_path / "x.pth", width=2.0)
    cases = {
        None: "does not say which network it is of, so that it needs its recipe: its weights fit --recipe jester_shuff",
        "k400_shufflenetv2_3d_w2": r"not of recipe k400_shufflenetv2_3d_w2: .*x\.pth: the classifier classifier\.1\."
        r"weight is 27×2048, the model's 400×2048; its weights fit --recipe jester_shufflenetv2_3d_w2$",
        "k400_slowfast_r50": r"not of recipe k400_slowfast_r50: .* holds weights of another network: conv1.*; its wei",
        "jester_mobilenetv2_3d": r"not of recipe jester_mobilenetv2_3d: .*; its weights fit --recipe jester_shuff",
        "no_such": "no recipe 'no_such'",
    }
    for recipe, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            vidstill.load(path, recipe=recipe)
        assert "\n" not in str(caught.value)
    model = vidstill.load(path, recipe="jester_shufflenetv2_3d_w2")
    assert model.classes and model.classes[0] == "Doing other things" and model.input.frames == 16


def test_weights_of_another_network_are_told_where_they_are_from() -> None:
    model = vidstill.create_model("vfl_net", 27, width=8)
    state = vidstill.create_model("mobilenetv2_3d", 27).state_dict()
    with pytest.raises(ValueError, match=r"of another network: .*; its weights fit --recipe jester_mobilenetv2_3d$"):
        load_weights(model, state)


@pytest.mark.parametrize("prefix", ["model.", "module.", "module.model.", "net.encoder."])
def test_a_prefix_of_all_names_comes_off(prefix: str) -> None:
    source, target = (vidstill.create_model("vfl_net", 3, width=8) for _ in range(2))
    load_weights(target, {"state_dict": {prefix + key: value for key, value in source.state_dict().items()}})
    assert torch.equal(source.head.weight, target.head.weight)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    model = vidstill.create_model("vfl_net", 2, width=8, depths=(1,), focal_levels=(1,), focal_windows=(3,))
    model.classes = ["a", "b"]
    return save(model, tmp_path / "one", metrics={"top1": 0.5})


def test_a_description_beside_the_weights_counts_and_a_difference_is_said(
    one: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beside = one.with_suffix(".json")
    about = json.loads(beside.read_text())
    beside.write_text(json.dumps({**about, "metrics": {}}))
    assert vidstill.load(one).classes == ["a", "b"] and not caplog.records
    beside.write_text(json.dumps({**about, "classes": ["c", "d"]}))
    with caplog.at_level(logging.WARNING):
        assert vidstill.load(one).classes == ["c", "d"]
    assert "one.json says otherwise" in caplog.text and "of classes, and counts" in caplog.text
    beside.unlink()
    assert vidstill.load(one).classes == ["a", "b"]


@pytest.mark.parametrize(("text", "message"), [
    ("{ not json", "the header of .* does not describe a model"),
    ("[" * 100_000, "the header of .* does not describe a model"),
    ('"' + "x" * LONGEST_JSON + '"', "letters, more than"),
    ('{"architecture": {"name": "vfl_net", "num_classes": 1000000000, "options": {}}}', "no number up to 100000"),
    ('{"architecture": {"name": "vfl_net", "num_classes": 2, "options": {"depths": [9999, 1, 1, 1]}}}',
     "larger network"),
    ('{"architecture": {"name": "vfl_net", "num_classes": 2, "options": {"width": 8}}, "classes": null, "input": {}}',
     "does not fit the description in its header"),
])  # fmt: skip
def test_a_description_in_the_header_is_not_trusted(one: Path, text: str, message: str) -> None:
    one.with_suffix(".json").unlink()
    save_file(load_file(one), one, {"vidstill": text})
    with pytest.raises(ValueError, match=message) as caught:
        vidstill.load(one)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_bare_weights_need_a_recipe(one: Path) -> None:
    one.with_suffix(".json").unlink()
    save_file(load_file(one), one)
    with pytest.raises(
        ValueError, match="does not say which network it is of, so that it needs its recipe: it fits no"
    ):
        vidstill.load(one)


def test_a_model_from_the_hub_is_one_file(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    one.with_suffix(".json").unlink()

    def download(repository: str, name: str) -> str:
        if name.endswith(".json"):
            raise EntryNotFoundError("404")
        return str(one)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert vidstill.load("hf://owner/repo/one.safetensors").classes == ["a", "b"]


def test_a_released_file_is_refused_for_what_is_wrong_with_it(tmp_path: Path) -> None:
    """The recipe that was given is not contradicted by itself, and comes first where several fit alike."""
    model = vidstill.create_model("slowfast_shufflenetv2", 400, width=0.25)
    broken = {key: value.clone() for key, value in model.state_dict().items()}
    next(value for value in broken.values() if value.ndim > 1).view(-1)[0] = torch.nan
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="1 weights are not finite") as error:
        vidstill.load(tmp_path / "broken.pth", recipe="k400_slowfast_shufflenetv2_w025")
    assert "recipe" not in str(error.value)
    torch.save(vidstill.create_model("slowfast_shufflenetv2", 7, width=0.25).state_dict(), tmp_path / "seven.pth")
    recipe = "k400_slowfast_shufflenetv2_w025"
    with pytest.raises(ValueError, match=f"others: name them, --recipe {recipe} --data.classes"):
        vidstill.load(tmp_path / "seven.pth", recipe=recipe)


def test_an_import_without_a_recipe_says_which_fit(tmp_path: Path) -> None:
    torch.save(vidstill.create_model("slowfast_shufflenetv2", 400, width=0.25).state_dict(), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"weights fit --recipe k400_slowfast_shufflenetv2_w025$"):
        import_released(tmp_path / "x.pth", None, tmp_path / "out")
    folder, _, _ = import_released(tmp_path / "x.pth", "k400_slowfast_shufflenetv2_w025", tmp_path / "out")
    for own in (folder, folder / "best.safetensors"):
        with pytest.raises(ValueError, match="needs no import"):
            import_released(own, None, tmp_path / "again")
