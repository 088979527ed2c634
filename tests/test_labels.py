"""Shipped class lists against the files of their data sets, and a person's own lists."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.labels import class_indices, class_names, shipped, spelling

COUNTS = {
    "activitynet200": 200, "diving48": 48, "hmdb51": 51, "hmdb51_dvfl": 51, "jester": 27, "jester_alphabetical": 27,
    "kinetics400": 400, "kinetics600": 600, "kinetics700": 700, "ssv2": 174, "ucf101": 101, "ucf101_dvfl": 101,
    "ucf50": 50,
}  # fmt: skip
ORIGINS = {
    "activitynet200": ["activitynet13/activitynet_200_labels.csv", "activitynet13/action_name.csv"],
    "diving48": ["diving48/diving_48_labels.csv"],
    "jester": ["jester/label_map.txt", "jester/jester-v1-labels.csv"],
    "kinetics400": ["kinetics/kinetics_400_labels.csv", "kinetics/label_map_k400.txt"],
    "kinetics600": ["kinetics/kinetics_600_labels.csv", "kinetics/label_map_k600.txt"],
    "ssv2": ["ssv2/ssv2_174_labels.csv", "ssv2/label_map.txt"],
    "ucf101": ["ucf101/classInd.txt"],
    "ucf50": ["ucf50/ucf_50_labels.csv"],
}


def test_lists_are_complete() -> None:
    assert {name: len(class_names(name)) for name in shipped()} == COUNTS


@pytest.mark.parametrize("name", COUNTS)
def test_classes_differ_in_more_than_spelling(name: str) -> None:
    names = class_names(name)
    assert len({spelling(n) for n in names}) == len(names)
    assert all(n == n.strip() for n in names)


@pytest.mark.parametrize("name", sorted(set(COUNTS) - {"activitynet200", "hmdb51_dvfl", "jester", "ucf101"}))
def test_order_is_byte_wise_but_where_documented(name: str) -> None:
    assert class_names(name) == sorted(class_names(name), key=str.encode)


def test_two_orders_of_one_data_set_hold_the_same_classes() -> None:
    assert sorted(class_names("hmdb51_dvfl")) == class_names("hmdb51")
    assert class_names("hmdb51_dvfl")[:3] == ["smoke", "handstand", "ride_horse"]
    assert sorted(class_names("jester")) == class_names("jester_alphabetical")
    official, byte_wise = class_names("ucf101"), class_names("ucf101_dvfl")
    moved = [name for name, other in zip(official, byte_wise, strict=True) if name != other]
    assert moved == ["Hammering", "HammerThrow", "JumpingJack", "JumpRope"]


def test_activitynet_keeps_its_own_order() -> None:
    names = class_names("activitynet200")
    assert (names[3], names[10], names[100], names[199]) == (
        "BMX",
        "Playing ten pins",
        "Drinking coffee",
        "Playing badminton",
    )


@pytest.mark.parametrize(("name", "origin"), [(name, path) for name, paths in ORIGINS.items() for path in paths])
def test_shipped_lists_equal_the_original_files(shared_data: Path, name: str, origin: str) -> None:
    assert class_names(shared_data / "labels" / origin) == class_names(name)


def test_hmdb51_equals_its_split_files(shared_data: Path) -> None:
    files = (shared_data / "labels" / "hmdb51_splits").glob("*_test_split1.txt")
    assert class_names("hmdb51") == sorted(path.name.removesuffix("_test_split1.txt") for path in files)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("walk\nrun\n", ["walk", "run"]),
        ("lay on its side, not upright\nrun", ["lay on its side, not upright", "run"]),
        ("\ufeffid,name\r\n0,walk\r\n1,lay on its side, not upright\r\n", ["walk", "lay on its side, not upright"]),
        ('0,"a, b"\n1,c', ["a, b", "c"]),
        ("1,walk\n2,run\n", ["walk", "run"]),
        ("1 Walk\r\n2 Run fast\r\n\r\n", ["Walk", "Run fast"]),
        ("10 m\n50 m\n", ["10 m", "50 m"]),
    ],
)
def test_files_of_all_forms(tmp_path: Path, text: str, names: list[str]) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    assert class_names(str(path)) == names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"walk\nrun\nwalk\n", "'walk' is class 0 and class 2"),
        (b"id,name\n0,walk\n2,run\n", "id 2 of 'run' is out of order"),
        (b"5,walk\n6,run\n", "count up from 0"),
        (b"\n\n", "no class name"),
        ("caf\xe9".encode("latin-1"), "not UTF-8"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        class_names(path)
    assert str(path) in str(caught.value)


def test_unknown_list_suggests_a_near_one() -> None:
    with pytest.raises(ValueError, match="did you mean kinetics400"):
        class_names("kinetics40")


@given(st.lists(st.text(min_size=1, max_size=5), unique=True))
def test_exact_names_always_find_their_own_id(names: list[str]) -> None:
    indices = class_indices(names)
    assert [indices[name] for name in names] == list(range(len(names)))


def test_spelling_finds_a_class_only_where_it_tells_classes_apart() -> None:
    assert class_indices(["HandstandPushups", "arm wrestling"])[spelling("HandStandPushups")] == 0
    assert class_indices(["HandstandPushups", "arm wrestling"])[spelling("arm_wrestling")] == 1
    assert spelling("ab") not in class_indices(["a b", "a_b"])
