"""docs/models.md says what the models are, and `vidstill models` says it without torch."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidstill.models.catalogue import CATALOGUE, matching
from vidstill.models.focal import VideoFocalNet

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


def rows(header: str) -> list[list[str]]:
    """Cells of the table under that header."""
    table = DOCS.read_text(encoding="utf-8").split(header, 1)[1].split("\n\n", 1)[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_table_of_the_documentation_is_the_catalogue() -> None:
    assert {row[0]: row[1:] for row in rows("| model |")} == {
        name: [f"{entry.parameters / 1e6:.1f} M", f"{entry.gmacs:.1f}", entry.input, entry.published]
        for name, entry in CATALOGUE.items()
    }


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


@pytest.mark.parametrize(("published", "figures"), [
    ("UCF101 82.5 plain, 88.4 distilled; HMDB51 71.6, 82.7", {"UCF101": 82.5, "HMDB51": 71.6}),
    ("K400 83.6; K600 86.7; SSv2 71.1", {"K400": 83.6, "K600": 86.7, "SSv2": 71.1}),
    ("", {}),
])  # fmt: skip
def test_published_figures_by_data_set(published: str, figures: dict[str, float]) -> None:
    assert CATALOGUE["vfl_net"]._replace(published=published).top1() == figures


def test_patterns() -> None:
    assert list(matching("*focalnet_s*")) == ["video_focalnet_small"]
    assert list(matching()) == sorted(CATALOGUE)


def test_the_list_of_models_needs_no_torch() -> None:
    code = "import sys; from vidstill.cli import main; main(['models']); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in CATALOGUE)
