"""Recipes, overrides and their errors."""

from typing import get_args

import pytest
import yaml

from vidstill.config import (
    FORMER_NAMES,
    Clip,
    ConfigError,
    Run,
    parse_value,
    parse_yaml,
    recipe_names,
    resolve,
)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_resolve_and_round_trip(name: str) -> None:
    run = resolve(name)
    assert run.name == name
    assert Run.model_validate(yaml.safe_load(run.to_yaml())) == run


def test_released_focal_recipes_run_without_weight_decay() -> None:
    for name in recipe_names():
        if "focalnet" in name or "vfl" in name:
            assert resolve(name).optim.weight_decay == 0, name


def test_overrides_win_over_the_recipe() -> None:
    run = resolve(
        "ucf101_vfl_net", ["--optim.lr", "1e-2", "--train.compile", "--model.options={width: 8}", "--name", "x"]
    )
    assert (run.optim.lr, run.train.compile, run.model.options, run.name) == (0.01, True, {"width": 8}, "x")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--optim.lrr", "1"], "did you mean optim.lr"),
        (["--lr", "1"], "did you mean optim.lr"),
        (["--train.epochs", "x"], "train.epochs = 'x'"),
        (["--clip.sampling", "random"], "'segments', 'tsm_segments'"),
        (["--train.accelerator", "cpu", "--train.precision", "fp16"], "fp16 needs a GPU"),
        (["--optim.warmup_epochs", "300"], "longer than train.epochs"),
        (["--seed.x", "1"], "seed"),
        (["--model.options", "[1"], "not YAML"),
        (
            ["--data.multi_label", "--objective", "distil", "--distil.teacher", "x"],
            "objective distil compares softmaxes",
        ),
        (["--data.multi_label", "--objective", "token_labels"], "objective token_labels compares softmaxes"),
        (["--data.multi_label", "--model.options.activation", "relu"], "model.options.activation is relu"),
        (["stray"], "unexpected argument"),
        (["--name", "a/b"], "name"),
    ],
)
def test_wrong_settings_are_one_line_with_a_way_out(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(None, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_openmmlab_options() -> None:
    run = resolve(None, ["--cfg-options", "train.epochs=3", "optim.betas=(0.8,0.9)", "--data.group", r"(.*?)_c(\d+)"])
    assert (run.train.epochs, run.optim.betas, run.data.group) == (3, (0.8, 0.9), r"(.*?)_c(\d+)")


@pytest.mark.parametrize("text", ["{width: 8, deep: [1, 2]}", "[1, [2, x]]", "1e-4", "no", "a b", "-3", "nothing"])
def test_values_of_overrides_are_yaml(text: str) -> None:
    assert parse_value(text, "test") == parse_yaml(text, "test") or text == "no"


def test_unknown_recipe_suggests_a_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean ucf101_vfl_net"):
        resolve("ucf101_vflnet")


def test_yaml_numbers_with_exponent_are_numbers() -> None:
    assert parse_yaml("1e-4", "test") == 1e-4
    assert parse_yaml("5", "test") == 5
    assert isinstance(parse_yaml("5", "test"), int)
    assert parse_yaml("-1.5E3", "test") == -1500
    assert parse_yaml("e4", "test") == "e4"


def test_files_with_former_names_of_samplings_and_views_are_read() -> None:
    """Each former name gives another present one, and every one that has been renamed is there."""
    samplings, views = (get_args(Clip.model_fields[name].annotation) for name in ("sampling", "views"))
    assert {*FORMER_NAMES.values()} == {*samplings, *views} - {"dense"}
    assert len({*FORMER_NAMES.values()}) == len(FORMER_NAMES)
    for former, present in FORMER_NAMES.items():
        field = "views" if present in views else "sampling"
        assert getattr(Clip.model_validate({field: former}), field) == present
        assert getattr(resolve(None, [f"--clip.{field}", former]).clip, field) == present
    with pytest.raises(ValueError, match="sampling"):
        Clip.model_validate({"sampling": ["sparse"]})
