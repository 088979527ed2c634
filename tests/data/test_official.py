"""The official split files, on trees of empty files: every listed video is found, in its split and class."""

from pathlib import Path

import pytest

from vidstill.config import Data
from vidstill.data.annotations import find_problems, read_annotations
from vidstill.labels import class_names


def touch(root: Path, names: list[str]) -> None:
    for folder in {(root / name).parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).touch()


def ucf101_names(lists: Path) -> list[str]:
    return [
        line.split()[0]
        for which in ("trainlist01", "testlist01")
        for line in (lists / f"{which}.txt").read_text().splitlines()
    ]


@pytest.fixture(scope="session")
def ucf101_tree(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ucf101")
    touch(root, ucf101_names(shared_data / "labels/ucf101"))
    return root


@pytest.mark.parametrize(
    ("fold", "train", "test"),
    [(1, 9537, 3783), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(2, 9586, 3734), (3, 9624, 3696)])],
)
def test_official_ucf101(shared_data: Path, ucf101_tree: Path, fold: int, train: int, test: int) -> None:
    lists = shared_data / "labels/ucf101"
    annotations = read_annotations(Data(format="ucf101", root=ucf101_tree, splits=lists, fold=fold))
    assert {split: len(samples) for split, samples in annotations.splits.items()} == {"train": train, "test": test}
    assert annotations.classes == class_names("ucf101")
    for samples in annotations.splits.values():
        assert all(annotations.classes[sample.label] == sample.path.parent.name for sample in samples)
    numbers = [int(line.split()[1]) for line in (lists / f"trainlist0{fold}.txt").read_text().splitlines()]
    assert [sample.label + 1 for sample in annotations.splits["train"]] == numbers
    assert find_problems(annotations) == []  # all are there, and the official splits share no group


def test_ucf101_by_folder_leaks_as_a_stratified_split_and_not_as_a_group_split(
    shared_data: Path, tmp_path: Path
) -> None:
    touch(tmp_path, [name for name in ucf101_names(shared_data / "labels/ucf101") if name < "Baske"])
    stratified = find_problems(read_annotations(Data(root=tmp_path)))
    assert [str(problem).split()[0] for problem in stratified] == ["leak:", "UCF101"]
    (note,) = find_problems(read_annotations(Data(root=tmp_path, split="group")))
    assert str(note).startswith("UCF101 without its official lists")


def test_ucf101_lists_are_recognised_and_flat_or_reencoded_files_found(tmp_path: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 Archery\r\n2 HandstandPushups\r\n")
    (lists / "trainlist01.txt").write_text("Archery/v_Archery_g08_c01.avi 1\nv_HandStandPushups_g08_c01.avi 2\n")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    touch(tmp_path, ["v_Archery_g08_c01.avi", "x/v_HandStandPushups_g08_c01.mp4", "Archery/v_Archery_g01_c01.avi"])
    annotations = read_annotations(Data(root=tmp_path))
    assert [sample.label for sample in annotations.splits["train"]] == [0, 1]
    assert find_problems(annotations) == []


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("Archery/v_Archery_g08_c01.avi 2\n", "trainlist01.txt line 1: .* number 2, which is Biking"),
        ("Archery/v_Archery_g08_c01.avi 3\n", "which is no class"),
        ("Diving/v_Diving_g08_c01.avi\n", "trainlist01.txt line 1: 'Diving' is none of the 2 classes"),
    ],
)
def test_ucf101_lists_that_contradict_themselves(tmp_path: Path, train: str, message: str) -> None:
    (tmp_path / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    (tmp_path / "trainlist01.txt").write_text(train)
    (tmp_path / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    with pytest.raises(ValueError, match=message):
        read_annotations(Data(root=tmp_path))


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_official_hmdb51(shared_data: Path, tmp_path: Path, fold: int) -> None:
    annotations = read_annotations(Data(root=tmp_path, splits=shared_data / "labels/hmdb51_splits", fold=fold))
    assert {split: len(samples) for split, samples in annotations.splits.items()} == {"train": 3570, "test": 1530}
    assert annotations.classes == class_names("hmdb51")
    for split, each in (("train", 70), ("test", 30)):
        labels = [sample.label for sample in annotations.splits[split]]
        assert all(labels.count(label) == each for label in range(51))
    paths = [sample.path for samples in annotations.splits.values() for sample in samples]
    assert len(set(paths)) == 5100 and paths[0] == tmp_path / "brush_hair" / paths[0].name
    assert sum(sample.group is None for samples in annotations.splits.values() for sample in samples) == 0
    assert not any("leak" in str(problem) for problem in find_problems(annotations))


def test_official_lists_are_missing(tmp_path: Path) -> None:
    for name in ("ucf101", "hmdb51"):
        with pytest.raises(ValueError, match=r"give data\.splits"):
            read_annotations(Data(format=name, root=tmp_path))
    (tmp_path / "wave_test_split1.txt").write_text("a.avi 1 \n")
    with pytest.raises(ValueError, match=r"no <class>_test_split4.txt; the official splits are data.fold 1, 2 and 3"):
        read_annotations(Data(root=tmp_path, fold=4))
    (tmp_path / "wave_test_split1.txt").write_text("a.avi 3\n")
    with pytest.raises(ValueError, match=r"line 1: 'a\.avi 3' does not end in 0, 1 or 2"):
        read_annotations(Data(root=tmp_path))


KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
"arm wrestling",-abcdefghi1,5,15,train,0
"arm wrestling",abcdefghij2,417,427,validate,0
zumba,abcdefghij3,10.0,20.0,train,0
zumba,abcdefghij4,0,10,test,1
zumba,abcdefghij5,0,10,train,1
"""


@pytest.mark.parametrize("table", ["kinetics.csv", "annotations/all.csv"])
def test_kinetics_videos_are_found_wherever_they_lie(tmp_path: Path, table: str) -> None:
    names = [
        "train/arm_wrestling/-abcdefghi1_000005_000015.mp4",
        "val/abcdefghij2_000417_000427.webm",
        "zumba/abcdefghij3.mkv",
        "abcdefghij4_000000_000010.mp4",
        "train/zumba/abcdefghij5_000020_000030.mp4",  # another cut of a listed video
    ]
    touch(tmp_path, [*names, table])
    (tmp_path / table).write_text(KINETICS)
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["arm wrestling", "zumba"]
    found = {split: [(s.path, s.label) for s in samples] for split, samples in annotations.splits.items()}
    assert found == {
        "train": [(tmp_path / names[0], 0), (tmp_path / names[2], 1)],
        "val": [(tmp_path / names[1], 0)],
    }
    gone, unused = find_problems(annotations)
    assert not gone.fatal and not unused.fatal
    assert str(gone).startswith("train: 1 of 3 listed videos are not in") and "abcdefghij5_000000_000010" in str(gone)
    assert str(unused).startswith("test: 1 listed videos are not used, as published figures are on the validation")


def test_kinetics_lists_given_as_settings_and_with_a_class_list(tmp_path: Path) -> None:
    touch(tmp_path, ["abcdefghij3_000010_000020.mp4", "list.csv"])
    (tmp_path / "list.csv").write_text(KINETICS)
    annotations = read_annotations(Data(root=tmp_path, val=tmp_path / "list.csv", classes="kinetics400"))
    assert [annotations.classes[sample.label] for sample in annotations.splits["val"]] == ["zumba"]
    assert [sample.group for sample in annotations.splits["val"]] == ["abcdefghij3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("0,10,test", "0,10,held out"), "line 5: split 'held out', but allowed are train"),
        (("10.0,20.0", "x,20"), "line 4: time_start 'x' is not a number"),
        (("zumba,abcdefghij3", ",abcdefghij3"), "line 4: label or youtube_id is empty"),
        (("", ""), "no video .*kinetics.csv lists .* looked for -abcdefghi1_000005_000015.mp4 and -abcdefghi1.mp4"),
    ],
)
def test_kinetics_errors(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "kinetics.csv").write_text(KINETICS.replace(*change))
    with pytest.raises(ValueError, match=message):
        read_annotations(Data(root=tmp_path, format="kinetics"))


def test_kinetics_without_its_csv_says_which_columns_it_needs(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4,0\n")
    with pytest.raises(ValueError, match="label,youtube_id,time_start,time_end,split"):
        read_annotations(Data(root=tmp_path, format="kinetics"))


def test_real_kinetics_validation_list(shared_data: Path) -> None:
    root = shared_data / "clips/kinetics400"
    annotations = read_annotations(Data(root=root, splits=shared_data / "labels/kinetics", classes="kinetics400"))
    assert [(s.path.name, annotations.classes[s.label]) for s in annotations.splits["val"]] == [
        ("WUzgd7C1pWA.mp4", "using segway")
    ]
    assert "19905 of 19906" in str(annotations.notes)


def test_official_jester(shared_data: Path, tmp_path: Path) -> None:
    lists = shared_data / "labels/jester"
    touch(tmp_path, ["34870/34870.mp4", "9223/9223.mp4"])
    annotations = read_annotations(Data(format="jester", root=tmp_path, splits=lists))
    assert [len(annotations.splits[split]) for split in ("train", "val")] == [118562, 14787]
    assert annotations.classes == class_names(lists / "classInd.txt") and len(annotations.classes) == 27
    first = annotations.splits["train"][0]
    assert (first.path, annotations.classes[first.label]) == (tmp_path / "34870/34870.mp4", "Drumming_Fingers")
    assert {sample.label for sample in annotations.splits["val"]} == set(range(27))
    assert "count from 1" in annotations.notes[0]


def test_jester_counted_from_0_or_wrong(tmp_path: Path) -> None:
    touch(tmp_path, ["1/1.webm", "2/2.webm"])
    (tmp_path / "classInd.txt").write_text("1 a\n2 b\n")
    (tmp_path / "vallist.txt").write_text("2 1\n")
    (tmp_path / "trainlist.txt").write_text("1 0\n")
    annotations = read_annotations(Data(root=tmp_path))  # found by its lists
    assert annotations.splits["val"][0].label == 1 and not annotations.notes
    (tmp_path / "trainlist.txt").write_text("1 3\n")
    with pytest.raises(ValueError, match="class ids go from 1 to 3, the 2 classes from 0"):
        read_annotations(Data(root=tmp_path))
    (tmp_path / "trainlist.txt").write_text("1\n")
    with pytest.raises(ValueError, match="line 1: '1' is no video and class id"):
        read_annotations(Data(root=tmp_path))


def test_private_kinetics_lists(tmp_path: Path) -> None:
    touch(tmp_path, ["a b/x.mp4", "y.mp4"])
    for split, name in (("train", "a b/x.mp4 0"), ("val", "y.mp4 1")):
        (tmp_path / f"kinetics_p3d_{split}_byvideo_128.lst").write_text(f"{name}\n")
    annotations = read_annotations(Data(root=tmp_path))
    assert {split: samples[0].label for split, samples in annotations.splits.items()} == {"train": 0, "val": 1}
