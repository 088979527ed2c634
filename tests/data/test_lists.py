"""List files as people and programs write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.lists import read_rows, split_labels

ROOT = Path("videos")


def rows_of(tmp_path: Path, text: str | bytes, name: str = "list.csv") -> list[tuple[str, str]]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(row.name, row.label) for row in read_rows(path, ROOT)]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a.mp4,0\nb/c.mp4,1\n", [("a.mp4", "0"), ("b/c.mp4", "1")]),
        ("train/A/a.avi,0\r\nval/B/b.avi,1\r\n", [("train/A/a.avi", "0"), ("val/B/b.avi", "1")]),
        ("\ufeffa.mp4,walk\n\nb.mp4,run", [("a.mp4", "walk"), ("b.mp4", "run")]),
        ("path,label\na b.mp4,walk dog\n", [("a b.mp4", "walk dog")]),
        ("Video Path,Directory Number\na.mp4,0\nb.mp4,1\n", [("a.mp4", "0"), ("b.mp4", "1")]),
        ("what,ever\na.mp4,0\nb.mp4,1\n", [("a.mp4", "0"), ("b.mp4", "1")]),
        ("label,path,seconds\n3,a.mp4,9.5\n", [("a.mp4", "3")]),
        ("a.mp4;walk\nb.mp4;run\n", [("a.mp4", "walk"), ("b.mp4", "run")]),
        ("a.mp4\t0\nb c.mp4\t1\n", [("a.mp4", "0"), ("b c.mp4", "1")]),
        ("a.mp4 0\nmy clips/b c.mp4 12\n", [("a.mp4", "0"), ("my clips/b c.mp4", "12")]),
        ("a b.mp4 arm wrestling\nc.AVI run\n", [("a b.mp4", "arm wrestling"), ("c.AVI", "run")]),
        ("path label\na.mp4 0\n", [("a.mp4", "0")]),
        ("frames/a 0\nframes/b 1\n", [("frames/a", "0"), ("frames/b", "1")]),
        ("#20_Rhythm_clap.avi,0\n", [("#20_Rhythm_clap.avi", "0")]),
        ('"a, b.mp4",0\n', [("a, b.mp4", "0")]),
        ("a, b.mp4,0\n", [("a, b.mp4", "0")]),
        ("a.mp4,on its side, not upright\n", [("a.mp4", "on its side, not upright")]),
        ("train\\A\\a.avi,0\n", [("train/A/a.avi", "0")]),
    ],
)  # fmt: skip
def test_forms_of_csv(tmp_path: Path, text: str, rows: list[tuple[str, str]]) -> None:
    assert rows_of(tmp_path, text) == rows


@pytest.mark.parametrize(
    "text",
    [
        "a b.mp4,3;17;42\nc.mp4,5\n",
        "a b.mp4,3,17,42\nc.mp4,5\n",
        "a b.mp4 3 17 42\nc.mp4 5\n",
        "a b.mp4 3,17,42\nc.mp4 5\n",
        "a b.mp4 3, 17, 42\nc.mp4 5,\n",
        "a b.mp4\t3,17,42\nc.mp4\t5\n",
        "a b.mp4;3;17;42\nc.mp4;5\n",
        "path labels\na b.mp4 3;17;42\nc.mp4 5\n",
        "label;path\n3 17 42;a b.mp4\n5;c.mp4\n",
        'path,labels\na b.mp4,"3,17,42"\nc.mp4,5\n',
        'labels,path\n"3 17 42",a b.mp4\n5,c.mp4\n',
    ],
)
def test_forms_of_several_ids(tmp_path: Path, text: str) -> None:
    rows = rows_of(tmp_path, text)
    assert [(name, split_labels(label)) for name, label in rows] == [("a b.mp4", ["3", "17", "42"]), ("c.mp4", ["5"])]


@pytest.mark.parametrize(
    "text",
    [
        "a b.mp4,arm wrestling;run\nc.mp4,run\n",
        "a b.mp4 arm wrestling; run\nc.mp4 run\n",
        "a b.mp4;arm wrestling;run\nc.mp4;run\n",
        "a b.mp4\tarm wrestling\trun\nc.mp4\trun\n",
        "label,path\narm wrestling; run;,a b.mp4\nrun,c.mp4\n",
    ],
)
def test_forms_of_several_names(tmp_path: Path, text: str) -> None:
    rows = rows_of(tmp_path, text)
    assert [(name, split_labels(label)) for name, label in rows] == [
        ("a b.mp4", ["arm wrestling", "run"]),
        ("c.mp4", ["run"]),
    ]


def test_a_space_in_every_path_separates_nothing(tmp_path: Path) -> None:
    text = "path\tlabel\tgroup\nx y.mp4\trun\tg 1\n"
    assert rows_of(tmp_path, text) == [("x y.mp4", "run")]
    assert rows_of(tmp_path, "x.mp4 copy.mp4,3\ny.avi old.avi,5\n") == [("x.mp4 copy.mp4", "3"), ("y.avi old.avi", "5")]


def test_json_lists(tmp_path: Path) -> None:
    text = '[{"filename": "a.mp4", "label": [3]}, {"frame_dir": "b", "label": 0}, {"filename": "c", "label": [1, 2]}]'
    assert rows_of(tmp_path, text, "list.json") == [("a.mp4", "3"), ("b", "0"), ("c", "1;2")]


def test_rows_know_path_line_and_group(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label,group\n\nx/a.mp4,0,g1\n/data/b.mp4,1,\n")
    first, second = read_rows(path, ROOT)
    assert (first.path, first.group, first.where) == (ROOT / "x/a.mp4", "g1", f"{path} line 3")
    assert (second.path, second.group) == (Path("/data/b.mp4"), None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "a.mp4,0\nb.mp4\n", r"line 2: 'b.mp4' has no label"),
        ("l.csv", "a.mp4,0\nb.mp4,\n", "line 2: the label is empty"),
        ("l.csv", ",0\n", "line 1: the path is empty"),
        ("l.csv", "path,label\na, b.mp4,1\n", "line 2: 3 fields, the header has 2"),
        ("l.csv", 'a.mp4,0\n"b.mp4,1\nc.mp4,2\n', "quotation mark"),
        ("l.csv", "\n\n", "lists no video"),
        ("l.csv", "path,label\n", "lists no video"),
        ("l.csv", b"\xff\xfea\x00", "not UTF-8"),
        ("l.json", '[{"label": 3}]', "entry 1: needs filename"),
        ("l.json", '[{"filename": "a", "label": []}]', "line 1: the label is empty"),
        (
            "l.json",
            '[{"filename": "a", "label": {"action": [3]}}]',
            "entry 1: has labels by category; give the csv of HVU",
        ),
        ("l.json", '{"a": 1}', "give a list"),
        ("l.json", "[{]", "line 1: not JSON"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        rows_of(tmp_path, text, name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


WORD = st.text("abc XYZ_-.é字", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(st.lists(st.tuples(WORD, st.integers(0, 500)), min_size=1, max_size=30), st.sampled_from([",", ";", "\t", " "]))
def test_any_path_with_a_number_survives(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, int]], separator: str
) -> None:
    rows = [(f"d/{name}.mp4", str(label)) for name, label in pairs]
    text = "".join(f"{name}{separator}{label}\n" for name, label in rows)
    assert rows_of(tmp_path_factory.getbasetemp(), text) == rows
