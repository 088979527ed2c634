"""`vidstill settings` tells of every setting what it is, what it is by itself and what it may be, and says nothing
that the command line would not take."""

import inspect
import re

import pytest
from pydantic import BaseModel

from vidstill import cli
from vidstill.config import Run, resolve
from vidstill.reporting.settings import MEANING, tables


def listed(pattern: str = "*") -> dict[str, tuple[str, str]]:
    return {
        name.shown: (default.shown, meaning.shown)
        for table in tables(pattern).values()
        for name, default, meaning in zip(*table.values(), strict=True)
    }


def test_every_setting_is_listed_with_a_meaning() -> None:
    def leaves(values: dict[str, object], prefix: str = "") -> set[str]:
        names: set[str] = set()
        for key, value in values.items():
            names |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key}
        return names

    found = listed()
    assert found.keys() == leaves(Run().model_dump())
    assert all(len(meaning.partition(" [")[0]) > 3 for _, meaning in found.values())
    assert len({about.partition(":")[0] for about in tables()}) == 1 + sum(
        isinstance(getattr(Run(), name), BaseModel) for name in Run.model_fields
    )


@pytest.mark.parametrize("name", [name for name, (default, _) in listed().items() if default != "–"])
def test_a_default_is_taken_as_it_is_listed(name: str) -> None:
    default = listed(name)[name][0]
    run, before = resolve(None, [f"--{name}", default]), Run()
    for part in name.split("."):
        run, before = getattr(run, part), getattr(before, part)
    assert run == (pytest.approx(before, abs=1e-3) if isinstance(before, tuple) else before)


def test_choices_and_ranges_are_those_that_are_checked() -> None:
    tried = 0
    for name, (default, meaning) in listed().items():
        allowed = re.search(r" \[(.*)\]$", meaning)
        choices = allowed[1].removesuffix(" or null").split(", ") if allowed else []
        if len(choices) > 1 and all(re.fullmatch(r"[\w]+", choice) for choice in choices) and default in choices:
            for choice in {*choices} - {"distil"}:  # which needs a teacher
                more = ["--optim.milestones", "[0]", "--optim.factors", "[1]"] if name == "optim.schedule" else []
                resolve(None, [f"--{name}", choice, *more])
                tried += 1
            with pytest.raises(ValueError, match=re.escape(name)):
                resolve(None, [f"--{name}", "nothing"])
        if span := re.search(r" \[([\d.]+) … ([\d.]+)\]$", meaning):
            for value in span.groups():
                resolve(None, [f"--{name}", value, *(["--optim.nesterov", "false"] if "dampening" in name else [])])
            with pytest.raises(ValueError, match=re.escape(name)):
                resolve(None, [f"--{name}", str(float(span[2]) + 1)])
            tried += 1
        if least := re.search(r" \[(\d+) or more", meaning):
            resolve(None, [f"--{name}", least[1]])
            with pytest.raises(ValueError, match=re.escape(name)):
                resolve(None, [f"--{name}", str(int(least[1]) - 1)])
            tried += 1
    assert tried > 70


def test_patterns() -> None:
    assert set(listed("lr")) == {"optim.lr", "optim.warmup_lr", "optim.min_lr"}
    assert set(listed("multigrid.*")) == {f"multigrid.{name}" for name in Run().multigrid.model_dump()}
    assert list(listed("clip.size")) == ["clip.size"]
    with pytest.raises(ValueError, match=r"no setting matches 'optim.rl' \(did you mean optim.lr\?\)"):
        tables("optim.rl")


def test_the_list_fits_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["settings"])
    shown = capsys.readouterr().out
    tables_alone = [line for line in shown.splitlines() if line.startswith(" ")]
    assert max(map(len, tables_alone)) <= 80 and all(f" {name} " in shown for name in listed())
    assert MEANING in shown


@pytest.mark.parametrize("verb", ["train", "distill"])
def test_help_names_the_list_and_the_sections(verb: str) -> None:
    told = inspect.getdoc(cli.VERBS[verb]) or ""
    assert "`vidstill settings`" in told
    assert not [name for name in Run.model_fields if not re.search(rf"\b{name}\b", told)]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert re.fullmatch(r"vidstill \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
