"""The scripts of benchmarks/ can be started, and docs/benchmarks.md holds the rows that they print."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vidstill.config import recipe_names, resolve
from vidstill.models.catalogue import CATALOGUE
from vidstill.reporting.tables import digits

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Its module, as `python benchmarks/<name>.py` finds what it imports."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def rows(header: str) -> list[list[str]]:
    """Cells of the table of docs/benchmarks.md that begins with that line."""
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    table = text.split(f"{header}\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


@pytest.mark.parametrize("name", [path.stem for path in SCRIPTS])
def test_every_script_finds_what_it_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert script(name, monkeypatch).__doc__


def test_the_ablation_table_has_the_rows_of_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = script("distil_ablation", monkeypatch).VARIANTS
    assert [row[0] for row in rows("| α 0.5, τ 4, β 0, γ 0, but | test top-1 | runs |")] == list(variants)
    for label, changed in variants.items():
        told = {sign: float(value) for sign, value in re.findall(r"([ατβγ]) ([\d.]+)", label)}
        signs = {"alpha": "α", "temperature": "τ", "beta": "β", "gamma": "γ"}
        assert told == {signs[name]: value for name, value in changed.items()}, label


def test_how_the_families_differ_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    families = script("families", monkeypatch).FAMILIES
    table = rows("| | epochs, clip and peak rate on the embedded data | peak rate on UT-Interaction |")
    assert len(table) == len(families)
    for (_, embedded, real), (network, first, second) in zip(table, families.values(), strict=True):
        run, then = resolve("demo", [*network, *first]), resolve("ut_interaction", [*network, *second])
        assert embedded.startswith(f"{run.train.epochs}, {run.clip.frames} × {run.clip.size}², {run.optim.lr:g}")
        assert real == f"{then.optim.lr:g}" and (then.clip.frames, then.clip.size, then.train.epochs) == (8, 64, 60)
        assert (f"{run.optim.warmup_epochs:g} epochs of warm-up" in embedded) == (run.optim.warmup_epochs != 1)
        fixed: dict[str, Any] = {"name", "lr", "warmup_epochs"}  # type: ignore[assignment]
        plain = resolve("demo").optim.model_dump(exclude=fixed)
        assert run.optim.model_dump(exclude=fixed) == plain and run.augment == resolve("demo").augment


def test_the_table_of_every_model_is_of_the_default_clips() -> None:
    table = rows("| name | parameters | GMACs | ms per clip | memory MB | weights MB | clip |")
    assert [row[0] for row in table] == sorted(CATALOGUE)
    for name, parameters, gmacs, *_, clip in table:
        entry = CATALOGUE[name]
        assert (parameters, gmacs) == (f"{digits(entry.parameters / 1e6)} M", digits(entry.gmacs))
        assert clip == entry.input.replace("x", " × ")


def test_the_picture_is_of_published_configurations() -> None:
    """Names of recipes without their data set, over one axis."""
    picture = (ROOT / "docs" / "pareto.svg").read_text(encoding="utf-8")
    names = re.findall(r"<title>(\S+): ", picture)
    assert len(names) > 25 and all(f"k400_{name}" in recipe_names() for name in names)
    assert "K400, published" in picture and picture.count("GMACs</text>") == 1 and "var(" not in picture
