"""docs/models.md says what the models are, and `vidstill models` says it without torch."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidstill.cli import main
from vidstill.config import RECIPES, recipe_names, resolve
from vidstill.evaluation.cost import activations_mb, gmacs
from vidstill.labels import class_names
from vidstill.models.catalogue import CATALOGUE, CLASSES, configurations, matching
from vidstill.models.focal import VideoFocalNet
from vidstill.models.registry import create_model
from vidstill.reporting.models import BEGIN, END, tables, write_page
from vidstill.reporting.tables import digits

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


def rows(header: str) -> list[list[str]]:
    """Cells of the table under that header."""
    table = DOCS.read_text(encoding="utf-8").split(header, 1)[1].split("\n\n", 1)[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_documentation_holds_what_the_command_prints(tmp_path: Path) -> None:
    page, text = tmp_path / "models.md", DOCS.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    page.write_text(f"{before}{begin}\nof another day\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    main(["models", "--page", str(page)])
    assert page.read_text(encoding="utf-8") == text, "vidstill models --page docs/models.md"


def test_the_page_has_every_model_and_every_recipe() -> None:
    assert [row[0] for row in rows("| model |")] == sorted(CATALOGUE)
    found = {row[0]: row[1:] for row in rows("| recipe |")}
    assert set(found) == set(recipe_names())
    assert found["k400_slow_r50"] == [
        "slow_r50, 8×8", "8 × 256²", "32.5 M", "54.5", "K400 74.8", "10×3", "arXiv 1812.03982", "trained at 224²",
    ]  # fmt: skip


def test_a_page_without_a_place_for_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN} no end")
    with pytest.raises(ValueError, match="no place for the tables") as error:
        write_page(page)
    assert "\n" not in str(error.value) and page.read_text() == f"{BEGIN} no end"


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_row_says_what_its_recipe_says(recipe: str) -> None:
    """The network, the clip, the views and the published figure; the source stands in the recipe's first line."""
    row, run = configurations(recipe)[recipe], resolve(recipe)
    head = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()[0]
    told = re.search(r"published: top-1(?:/top-5)? (\d+\.\d+)", head)
    assert row.top1 == (float(told[1]) if told else None)
    assert row.figure == (f"{row.data} {told[1].removesuffix('0') if len(told[1]) == 5 else told[1]}" if told else "")
    assert row.source in head and bool(row.source) == ("arXiv" in head or "CVIU" in head)
    longer = re.search(r"with (\d+) frames", head)
    assert row.frames == (int(longer[1]) if longer and told else run.clip.frames)
    assert row.size == (run.test.size or run.clip.size)
    assert ("of 256" in head) == (row.size == 256 and "224²" in row.remark) == (row.size != run.clip.size)
    assert row.views == f"{run.test.clips}×{run.test.crops}"
    assert row.model == run.model.name
    for option in ("width", "groups"):
        if option in run.model.options and row.source:
            assert f"{option} {run.model.options[option]:g}" in row.variant
    assert ("non-local" in row.variant) == ("nonlocal_blocks" in run.model.options)
    if run.data.classes:
        assert len(class_names(run.data.classes)) == CLASSES[row.data] and row.classes == run.data.classes
    assert (row.classes is None) == (not row.source)
    if row.classes:
        assert len(class_names(row.classes)) == CLASSES[row.data]


QUICK = {"k400_slowfast_shufflenetv2_w025", "k400_shufflenet_3d_w2", "k400_c2d_r50", "ucf101_vfl_net", "demo"}


@pytest.mark.parametrize(
    "recipe", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in recipe_names()]
)
def test_a_row_costs_what_its_network_costs(recipe: str) -> None:
    row, run = configurations(recipe)[recipe], resolve(recipe)
    model = create_model(run.model.name, CLASSES[row.data], device="meta", **run.model.options)
    assert sum(parameter.numel() for parameter in model.parameters()) == row.parameters
    clip = run.clip.model_copy(update={"frames": row.frames, "size": row.size})
    assert gmacs(model, clip) == pytest.approx(row.gmacs, rel=1e-4)


@pytest.mark.parametrize(
    "recipe", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in recipe_names()]
)
def test_a_row_says_what_a_clip_of_its_training_takes(recipe: str) -> None:
    row, run = configurations(recipe)[recipe], resolve(recipe)
    model = create_model(run.model.name, CLASSES[row.data], device="meta", **run.model.options)
    found = gmacs(model, run.clip), activations_mb(model, run.clip)
    assert (row.training_gmacs, row.training_mb) == pytest.approx(found, rel=1e-3), found


@pytest.mark.parametrize(("recipe", "expected"), [
    ("k400_slowfast_4x16_r50", 36.10), ("k400_slowfast_r50", 65.71), ("k400_slowfast_16x8_r101", 213.0),
    ("k400_slow_4x16_r50", 27.26), ("k400_i3d_nln_r50", 48.92), ("k400_slowfast_shufflenet_w2_g3", 1.584),
    ("k400_slowfast_shufflenetv2_w2", 0.901), ("k400_video_focalnet_small", 248.66), ("ucf101_dualformer_tiny", 29.75),
])  # fmt: skip
def test_costs_are_those_counted_on_the_released_code(recipe: str, expected: float) -> None:
    assert configurations(recipe)[recipe].gmacs == pytest.approx(expected, rel=1e-3)


def test_doubtful_figures_are_called_so() -> None:
    """One figure at two networks of other accuracy."""
    twice = [row for row in configurations().values() if row.top1 == 38.54]
    assert len(twice) == 2 and all("doubtful" in row.remark for row in twice)


def test_every_option_is_explained_with_its_default() -> None:
    parameters = inspect.signature(VideoFocalNet).parameters
    documented = {row[0]: row[1] for row in rows("| option |")}
    expected = {
        name: "by the model" if parameter.default is parameter.empty else str(parameter.default)
        for name, parameter in parameters.items()
        if name != "num_classes"
    }
    assert documented == expected


@pytest.mark.slow
def test_the_examples_run() -> None:
    known: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        if "weights/" not in block:  # files that are not here
            exec(block, known)
    assert known["logits"].shape == (2, 5)
    assert list(known["features"]) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert known["picture"].shape == (16, 1, 64, 64)
    assert len(blocks) == 4


def test_patterns() -> None:
    assert list(matching("*focalnet_s*")) == ["video_focalnet_small"]
    assert list(matching()) == sorted(CATALOGUE)
    assert list(configurations("k400_slowfast_shufflenetv2_w2")) == ["k400_slowfast_shufflenetv2_w2"]
    assert {row.model for row in configurations("vfl_net").values()} == {"vfl_net"}, "by the model too"
    assert [len(next(iter(table.values()))) for table in tables("k400_slow_r50")] == [1]
    with pytest.raises(ValueError, match=r"no model and no recipe matches 'vfl_nett' \(did you mean vfl_net\?\)"):
        tables("vfl_nett")


@pytest.mark.parametrize("name", [
    name if name in ("vfl_net", "mobilenetv2_3d") else pytest.param(name, marks=pytest.mark.slow) for name in CATALOGUE
])  # fmt: skip
def test_three_digits_of_a_default_cost_are_right(name: str) -> None:
    assert digits(gmacs(create_model(name, device="meta"))) == digits(CATALOGUE[name].gmacs)


def test_the_list_of_models_needs_no_torch() -> None:
    code = "import sys; from vidstill.cli import main; main(['models']); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in CATALOGUE)
