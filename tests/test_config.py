"""Recipes, overrides and their errors."""

import ast
import re
import shlex
import time
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

import vidstill
from vidstill.config import (
    FORMER_NAMES,
    Clip,
    ConfigError,
    Distil,
    Model,
    Optim,
    Run,
    Section,
    Train,
    missing_models,
    parse_yaml,
    recipe_names,
    resolve,
    validate,
)
from vidstill.models.pretrained import pretrained


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


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (Optim, {"milestones": [0, 5], "factors": [1]}, "give each milestone its factor"),
        (Optim, {"schedule": "steps"}, "begin with 0"),
        (Optim, {"schedule": "steps", "milestones": [5], "factors": [1]}, "begin with 0"),
        (Optim, {"dampening": 0.5}, "exclude each other"),
        (Train, {"accelerator": "cpu", "precision": "fp16"}, "fp16 needs a GPU"),
        (Train, {"strategy": "fsdp", "ema": 0.9}, "choose one"),
        (Distil, {"teacher": ["x"], "teacher_weights": [1, 2]}, "give one each"),
        (Distil, {"teacher": ["x"], "cache": "c", "beta": 1}, "keeps logits only"),
        (Distil, {"teacher": ["x", "y"], "gamma": 1}, "with one teacher"),
        (Distil, {"form": "released", "loss": "dkd"}, "alone"),
        (Distil, {"standardise": True, "loss": "dist"}, "correlations"),
    ],
)
def test_a_section_refuses_what_contradicts_in_it(
    section: type[Section], values: dict[str, object], message: str
) -> None:
    """On its own, and as part of a run in the same words."""
    with pytest.raises(ValueError, match=message) as alone:
        section.model_validate(values)
    name = section.__name__.lower()
    given = values | ({"teacher": ["x"]} if name == "distil" and "teacher" not in values else {})
    objective = {"objective": "distil"} if name == "distil" else {}
    with pytest.raises(ConfigError) as inside:
        validate({name: given, **objective}, "r")
    assert str(inside.value).removeprefix("r: ") in str(alone.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("--optim.warmup_epochs 9 --train.epochs 5", "warmup_epochs 9 is longer than train.epochs 5"),
        ("--multigrid.long --train.ema 0.9", "train.ema cannot follow"),
        ("--multigrid.short --train.strategy fsdp", "train.strategy fsdp cannot follow"),
        ("--multigrid.short --objective distil --distil.teacher x --distil.cache c", "distil.cache cannot follow"),
        ("--multigrid.long --train.accumulate 2", "train.accumulate cannot follow"),
        ("--objective distil", "needs a teacher"),
        ("--distil.teacher x", "set --objective distil"),
        ("--data.multi_label --objective token_labels", "for one class per video"),
        ("--data.multi_label --model.options.activation softmax", "activation is softmax"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(None, settings.split())


def test_unknown_recipe_suggests_a_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean ucf101_vfl_net"):
        resolve("ucf101_vflnet")


def test_a_recipe_file_may_have_any_name(tmp_path: Path) -> None:
    for file, name in {"my run (2).yaml": "my-run-2-", "..x.yaml": "x", "ä.yml": "ä", "()…yaml.yml": "yaml"}.items():
        (tmp_path / file).write_text("seed: 3")
        run = resolve(tmp_path / file)
        assert (run.name, run.seed) == (name, 3)


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "a/b", "a\\b", "-x", ".x", "a b", "a\n", "+", "a\0"])
def test_names_stay_inside_the_folder_of_runs(name: str) -> None:
    with pytest.raises(ConfigError, match="begins with a letter or digit"):
        resolve(None, [f"--name={name}"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: [1", "not YAML"),
        (b"\xff\xfe", "not YAML|UTF-8"),
        (b"- 1", "is a mapping of settings"),
        (b"seed: 1\nseed: 2", "line 2: seed is given a second time"),
        (b"a: &a [x]\nb: *a", r"line 2: \*a is an alias"),
        (b"seed: 2020-13-01", "month"),
        (b"seed: " + b"[" * 100_000, "line 1: nested more than"),
        (b"seed: " + b"{a: " * 1_000 + b"}" * 1_000, "line 1: nested more than"),
        (b"seed: !!python/object:os.system {}", "not YAML"),
        (b"1: 2", "1"),
        (b"seed: " + b"x" * 10_000, "valid integer"),
        (b"optim: {nesterov: true, dampening: 0.5}", r"yaml: optim.dampening 0.5 and optim.nesterov exclude"),
    ],
)
def test_unfit_recipes_are_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_billion_laughs_are_not_laughed() -> None:
    lines = ["a0: &a0 [lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ConfigError, match="is an alias"):
        parse_yaml("\n".join(lines), "laughs")


def test_long_digits_are_read_in_linear_time() -> None:
    began = time.process_time()
    assert parse_yaml("1" * 100_000 + "x", "test") == "1" * 100_000 + "x"
    assert time.process_time() - began < 1


def test_what_is_written_is_read_again() -> None:
    """Also where one list occurs twice, for which YAML has aliases."""
    shared = [1, 2]
    run = Run(model=Model(options={"a": shared, "b": shared}), train=Train(ema=1e-5))
    assert Run.model_validate(parse_yaml(run.to_yaml(), "test")) == run


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


def test_every_setting_is_read_somewhere() -> None:
    """Of a setting that nothing reads a person would think that it works. Read means `section.name`."""
    read = set()
    for path in Path(vidstill.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.name != "config.py" else ():
            if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                read.add(node.attr)
    for name, field in Run.model_fields.items():
        section = field.annotation
        is_section = isinstance(section, type) and issubclass(section, BaseModel)
        unread = (section.model_fields if is_section else {name: field}).keys() - read - {"out"}  # through run.folder
        assert not unread, f"{name}: nothing reads {', '.join(sorted(unread))}"


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_that_starts_from_another_run_says_how_to_make_it(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command makes just the folder that the recipe names."""
    monkeypatch.chdir(tmp_path)
    run = resolve(recipe)
    runs = [source for source in (run.model.weights, *run.distil.teacher) if source and source.startswith("runs/")]
    problem = missing_models(run)
    assert ("needs the run" in problem) == bool(runs)
    for source in runs:
        found = re.search(r"`vidstill train (.*?)`", missing_models(run))
        assert found and source in missing_models(run)
        name, *settings = shlex.split(found[1])
        made = resolve(name, settings)
        assert made.folder == Path(source)
        made.folder.mkdir(parents=True)
    if run.model.weights and run.model.weights not in [*runs, *pretrained()]:
        assert f"the weights {run.model.weights}, which are not there" in missing_models(run)
        Path(run.model.weights).parent.mkdir(parents=True)
        Path(run.model.weights).touch()
    assert missing_models(run) == ""
