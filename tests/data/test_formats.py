"""The table of formats: what it holds is what the documents and the errors say."""

import re
from pathlib import Path

import pytest

from vidstill.config import Data, recipe_names, resolve
from vidstill.data.annotations import read_annotations
from vidstill.data.formats import FORMATS

DOCUMENT = Path(__file__).parents[2] / "docs/data.md"


def test_the_document_describes_every_format_and_no_other() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    headings = [name for line in re.findall(r"^### .*", text, re.M) for name in re.findall(r"`(\w+)`", line)]
    spoken = headings + re.findall(r"data\.format: (\w+)", text)
    assert set(spoken) == {known.name for known in FORMATS} | {"auto"}


def test_names_differ_and_are_those_of_the_recipes() -> None:
    names = [known.name for known in FORMATS]
    assert len(set(names)) == len(names)
    assert {resolve(recipe).data.format for recipe in recipe_names()} <= {"auto", *names}


def test_an_unknown_format_is_refused_with_all_that_are_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.format 'folder': did you mean folders\? allowed are auto, ") as caught:
        read_annotations(Data(root=tmp_path, format="folder"))
    assert all(known.name in str(caught.value) for known in FORMATS) and "\n" not in str(caught.value)


def test_the_error_of_an_unknown_folder_names_what_every_format_is_told_by(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot tell") as caught:
        read_annotations(Data(root=tmp_path))
    assert all(known.looked_for in str(caught.value) for known in FORMATS)
