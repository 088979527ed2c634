"""The table of data sets: every format and every recipe has its row, and the page shows it as it is."""

import re
import shutil
from pathlib import Path

import pytest

from vidstill import cli
from vidstill.config import recipe_names, resolve
from vidstill.data.catalogue import datasets
from vidstill.data.formats import BY_NAME
from vidstill.labels import class_names, shipped
from vidstill.models.catalogue import CLASSES, configurations
from vidstill.reporting.datasets import recipes, table, write_page

DOCUMENT = Path(__file__).parents[2] / "docs/data.md"
FORMS = {"csv", "folders", "openmmlab", "database_json"}  # of lists, which any data set may have


def test_every_format_of_a_data_set_has_a_row_and_every_row_a_format() -> None:
    named = {one.format for one in datasets().values()}
    assert BY_NAME.keys() - FORMS <= named <= BY_NAME.keys()


def test_every_recipe_is_of_one_data_set_with_as_many_classes() -> None:
    of_any = {name for name, row in configurations().items() if row.data == "small folder"}
    assert sorted(name for one in datasets() for name in recipes(one)) == sorted({*recipe_names()} - of_any)
    for one in datasets().values():
        if one.recipes:
            assert CLASSES[one.recipes] == one.classes
    for name in datasets():
        formats = {resolve(recipe).data.format for recipe in recipes(name)}
        assert formats <= {"auto", "csv", datasets(name)[name].format}


def test_classes_are_those_of_the_shipped_lists() -> None:
    lists = {"activitynet": "activitynet200"}
    compared = [name for name in datasets() if lists.get(name, name) in shipped()]
    assert len(compared) >= 9
    for name in compared:
        assert len(class_names(lists.get(name, name))) == datasets(name)[name].classes


def test_clips_are_those_of_the_official_lists(shared_data: Path) -> None:
    labels = shared_data / "labels"
    count = {
        "ucf101": sum(len((labels / f"ucf101/{n}list01.txt").read_text().split("\n")) - 1 for n in ("train", "test")),
        "hmdb51": sum(len(p.read_text().splitlines()) for p in (labels / "hmdb51_splits").glob("*_test_split1.txt")),
        "kth": len(re.findall(r"\d+-\d+", (labels / "kth/00sequences.txt").read_text())),
        "ucf50": sum(len((labels / f"ucf50/{n}.csv").read_text().splitlines()) for n in ("train", "val")),
    }
    assert count == {name: datasets(name)[name].clips for name in count}


def test_a_pattern_is_of_names_or_titles_and_a_slip_is_answered() -> None:
    assert set(datasets("kinetics*")) == {"kinetics400", "kinetics600", "kinetics700"}
    assert set(datasets("Something*")) == {"ssv1", "ssv2"}
    with pytest.raises(ValueError, match=r"no data set matches 'sv2' \(did you mean ssv2\?\)"):
        datasets("sv2")


def test_the_page_is_the_table(tmp_path: Path) -> None:
    page = tmp_path / "data.md"
    shutil.copy(DOCUMENT, page)
    write_page(page)
    assert page.read_text(encoding="utf-8") == DOCUMENT.read_text(encoding="utf-8"), (
        "vidstill datasets --page docs/data.md"
    )


@pytest.mark.parametrize("pattern", ["*", "ssv2", "kinetics*"])
def test_it_fits_80_columns(pattern: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["datasets", pattern])
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if re.match(r" (kinetics|ssv)", line)]
    assert len(rows) == sum(name.startswith(("kinetics", "ssv")) for name in datasets(pattern))  # none is folded
    assert all(len(line) <= 80 for line in lines if not line.startswith("  "))
    told = "\n".join(line for line in lines if line.startswith("  "))
    if pattern != "*":
        shown = table(pattern)
        assert all(cell.shown in told for title in ("from", "layout", "recipes") for cell in shown[title])
