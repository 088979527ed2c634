"""Settings as text become what their field is of."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from vidstill.config import Run, recipe_names, resolve
from vidstill.overrides import ConfigError, parse_value, parse_yaml, put_all


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Key and type of every setting."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, kind


def is_words(kind: Any) -> bool:
    """Text or path, perhaps none."""
    members = {*get_args(kind)} - {NoneType} if get_origin(kind) in (Union, UnionType) else {kind}
    return members in ({str}, {Path})


WORDS = [key for key, kind in leaves(Run) if is_words(kind)]
NASTY = ["1", "1e-4", "true", "no", "/a,b", "(a,b)", "[x]", "{y: 1}", "'q'", '"q"', r"a,b(\d+)", r"_(g\d+)_", "a b",
         "-3", "2020-01-01", "*a", "&a", ""]  # fmt: skip


def test_the_settings_of_words_are_all_there() -> None:
    assert {"name", "out", "data.root", "data.group", "model.name", "model.weights", "distil.cache"} <= {*WORDS}


@pytest.mark.parametrize("key", WORDS)
def test_words_and_paths_are_taken_as_they_are(key: str) -> None:
    for text in NASTY:
        values: dict[str, Any] = {}
        put_all(values, [f"--{key}={text}"], Run)
        for part in key.split("."):
            values = values[part]
        assert values == text


@settings(max_examples=50)
@given(st.text())
def test_any_text_is_a_regular_expression_or_a_path(text: str) -> None:
    run = resolve(None, [f"--data.group={text}", f"--data.root={text}"])
    assert run.data.root == Path(text)
    assert run.data.group == (None if text.strip().lower() in ("none", "null") else text)


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_can_be_written_as_overrides(recipe: str) -> None:
    """Lists and mappings as JSON, the rest as Python shows it."""
    run = resolve(recipe)
    tokens = []
    for key, _ in leaves(Run):
        value: Any = run
        for part in key.split("."):
            value = getattr(value, part)
        value = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        if isinstance(value, dict):
            value = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in value.items()}
        tokens.append(f"--{key}={json.dumps(value) if isinstance(value, list | tuple | dict) else value}")
    assert resolve(None, tokens) == run


@pytest.mark.parametrize(
    ("key", "texts", "value"),
    [
        ("optim.milestones", ["0,30,50", "[0, 30, 50]", "(0,30,50)", '"[0,30,50]"'], [0, 30, 50]),
        ("optim.milestones", ["0", "[0]", "(0)", "(0,)"], [0]),
        ("optim.milestones", ["[]", "()", ""], []),
        ("optim.betas", ["(0.8,0.9)", "0.8, 0.9", "[8e-1, 0.9]"], [0.8, 0.9]),
        ("augment.brightness", ["0.6,1.4", "[0.6, 1.4]"], [0.6, 1.4]),
        ("augment.brightness", ["0.4", "4e-1"], 0.4),
        ("distil.teacher", ["runs/1,true", '["runs/1", "true"]', "['runs/1','true']"], ["runs/1", "true"]),
        ("distil.teacher", ['["a,b", "c\\"d"]'], ["a,b", 'c"d']),
        ("distil.teacher", [json.dumps(["läufe/é", "日本"])], ["läufe/é", "日本"]),
        ("distil.teacher_weights", ["null", "None"], None),
        ("distil.teacher_model", ["{name: vfl_net}"], {"name": "vfl_net"}),
        ("distil.teacher_model.name", ["1"], "1"),
        ("distil.features", ["{stage4: stage4}"], {"stage4": "stage4"}),
        ("distil.features.stage4", ["3"], "3"),
        ("optim.multipliers", ["{bn: {decay: 0}}"], {"bn": {"decay": 0}}),
        ("optim.multipliers.bn.decay", ["0"], 0),
        ("model.options.width", ["16"], 16),
        ("model.options.depths", ["2,2,18,2", "[2,2,18,2]"], [2, 2, 18, 2]),
        ("model.options.kind", ["x"], "x"),
        ("test.crops", ["3"], 3),
        ("train.compile", ["true", "True"], True),
        ("train.ema", ["null"], None),
        ("train.save-every", ["5"], 5),
    ],
)
def test_lists_mappings_and_numbers_are_read(key: str, texts: list[str], value: object) -> None:
    for tokens in [[f"--{key}={text}"] for text in texts] + [[f"--{key}", text] for text in texts]:
        values: dict[str, Any] = {}
        put_all(values, tokens, Run)
        for part in key.replace("-", "_").split("."):
            values = values[part]
        assert values == value, tokens


def test_openmmlab_options() -> None:
    run = resolve(None, ["--cfg-options", "train.epochs=3", "optim.betas=(0.8,0.9)", "--data.group", r"(.*?)_c(\d+)"])
    assert (run.train.epochs, run.optim.betas, run.data.group) == (3, (0.8, 0.9), r"(.*?)_c(\d+)")
    assert resolve(None, ["--cfg-options", "name=a", "data.group=x=(y,z)", "--seed", "1"]).data.group == "x=(y,z)"


@pytest.mark.parametrize("tokens", [["--name"], ["--data.root", "--seed", "1"], ["--optim.lr"], ["--model.options"]])
def test_only_a_switch_goes_without_a_value(tokens: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"{tokens[0]} needs a value"):
        resolve(None, tokens)
    assert resolve(None, ["--train.compile"]).train.compile
    assert resolve(None, ["--model.options.deep"]).model.options == {"deep": True}


@pytest.mark.parametrize("key", ["optim.milestones", "model.options", "model.options.x", "seed", "name", "clip.mean"])
@pytest.mark.parametrize("text", ["[" * 5000, "(" * 5000 + "1," * 10, "{a: " * 5000, "'" * 9, "[(,", '"\\u00"'])
def test_no_text_ends_in_anything_but_one_line(key: str, text: str) -> None:
    try:
        resolve(None, [f"--{key}={text}"])
    except ConfigError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("text", ["{width: 8, deep: [1, 2]}", "[1, [2, x]]", "1e-4", "no", "a b", "-3", "nothing"])
def test_without_a_type_the_text_says_what_it_is(text: str) -> None:
    assert parse_value(text, "test") == parse_yaml(text, "test") or text == "no"
