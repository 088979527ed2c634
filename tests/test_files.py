"""Atomic files, and tables that no spreadsheet runs."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.files import WriteError, as_text, atomic, from_text, read_csv, write_csv


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    target = tmp_path / "last.pt"
    target.write_bytes(b"before")
    with pytest.raises(WriteError, match="is intact"), atomic(target) as file:
        file.write(b"half")
        raise OSError("No space left on device")
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_whole_write_replaces_it(tmp_path: Path) -> None:
    target = tmp_path / "x"
    for content in (b"one", b"two"):
        with atomic(target) as file:
            file.write(content)
        assert target.read_bytes() == content


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]


def test_no_cell_of_a_csv_begins_like_a_formula(tmp_path: Path) -> None:
    names = [*FORMULAS, "'=quoted", "''@", "'plain'", "walk; run", 'a "b", c', "-1.5"]
    write_csv(tmp_path / "x.csv", [names, *([name, -1.5, 3] for name in names)])
    with (tmp_path / "x.csv").open(newline="") as file:
        written = list(csv.reader(file))
    for cell in [*written[0], *(row[0] for row in written[1:])]:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert read_csv(tmp_path / "x.csv") == [names, *([name, "-1.5", "3"] for name in names)]


@given(st.text(st.sampled_from("'=+-@\t\ra1 ,"), max_size=6))
def test_any_text_comes_back(text: str) -> None:
    assert from_text(as_text(text)) == text
    assert not as_text(text).startswith(("=", "+", "-", "@", "\t", "\r"))
