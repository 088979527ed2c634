"""Class folders, labels, groups, divisions, and the problems of a data set."""

import csv
import itertools
import os
import re
import shutil
import socket
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from vidstill.config import Data, Distil, Run, resolve
from vidstill.data.annotations import Annotations, Sample, find_problems, multi_hot, read_annotations
from vidstill.data.duplicates import identify, stat_all
from vidstill.labels import class_names


def write(root: Path, *names: str, content: str | None = None) -> None:
    """Files at these paths, each with a content of its own unless one is given."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name if content is None else content)


def counts(annotations: Annotations) -> dict[str, int]:
    return {split: len(samples) for split, samples in annotations.splits.items()}


def names(root: Path, samples: list[Sample]) -> list[str]:
    return [sample.path.relative_to(root).as_posix() for sample in samples]


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "test"), ("train", "val", "test")),
        (("training", "validation", "testing"), ("train", "val", "test")),
        (("Train", "valid"), ("train", "val")),
        (("train", "test"), ("train", "test")),
    ],
)
def test_split_folders(tmp_path: Path, folders: tuple[str, ...], splits: tuple[str, ...]) -> None:
    for folder, label in itertools.product(folders, ("run fast", "walk")):
        write(tmp_path, f"{folder}/{label}/b.mp4", f"{folder}/{label}/a.AVI", f"{folder}/{label}/notes.txt")
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["run fast", "walk"]
    assert counts(annotations) == dict.fromkeys(splits, 4)
    assert names(tmp_path, annotations.splits["train"]) == [
        f"{folders[0]}/{name}" for name in ("run fast/a.AVI", "run fast/b.mp4", "walk/a.AVI", "walk/b.mp4")
    ]
    assert [sample.label for sample in annotations.splits["train"]] == [0, 0, 1, 1]
    assert find_problems(annotations) == []


def test_undivided_folders_are_divided_alike_whatever_the_root_is_called(tmp_path: Path) -> None:
    for root in ("one", "two/deeper"):
        for name in sorted((f"{label}/{n}.mp4" for n in range(10) for label in "ab"), reverse=root == "one"):
            write(tmp_path / root, name)
    divisions = []
    for root in ("one", "two/deeper"):
        annotations = read_annotations(Data(root=tmp_path / root, folds=5, fold=2), seed=7)
        assert counts(annotations) == {"train": 16, "val": 4}
        divisions.append(names(tmp_path / root, annotations.splits["val"]))
    assert divisions[0] == divisions[1]


def test_folds_are_a_partition(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{n}.mp4" for n in range(7) for label in "abc"))
    held_out = [read_annotations(Data(root=tmp_path, folds=4, fold=fold)).splits["val"] for fold in (1, 2, 3, 4)]
    assert sorted(sample.path for part in held_out for sample in part) == sorted(tmp_path.glob("*/*.mp4"))
    with pytest.raises(ValueError, match=r"data.fold 5: there are only 4 parts"):
        read_annotations(Data(root=tmp_path, folds=4, fold=5))


def test_class_folders_that_are_called_like_a_split_are_classes(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{n}.mp4" for n in range(5) for label in ("train", "bus")))
    assert read_annotations(Data(root=tmp_path)).classes == ["bus", "train"]


def test_hidden_files_and_archive_leftovers_are_no_videos(tmp_path: Path) -> None:
    write(tmp_path, "a/1.mp4", "a/2.mp4", "a/._1.mp4", ".git/x.mp4", "__MACOSX/a/1.mp4", "b/1.mp4")
    annotations = read_annotations(Data(root=tmp_path, folds=3))
    assert annotations.classes == ["a", "b"] and sum(counts(annotations).values()) == 3


def test_class_list_orders_folders_and_tolerates_their_spelling(tmp_path: Path) -> None:
    write(tmp_path, "train/arm_wrestling/1.mp4", "train/Zumba/1.mp4")
    annotations = read_annotations(Data(root=tmp_path, classes="kinetics400"))
    assert [annotations.classes[sample.label] for sample in annotations.splits["train"]] == ["zumba", "arm wrestling"]
    write(tmp_path, "train/arm wrestlin/1.mp4")
    with pytest.raises(
        ValueError, match=r"'arm wrestlin' is none of the 400 classes of kinetics400 \(did you mean 'arm wrestling'"
    ):
        read_annotations(Data(root=tmp_path, classes="kinetics400"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "it holds nothing"),
        (["readme.txt", "x.json"], "it holds readme.txt, x.json"),
        (["a.mp4", "b.mp4"], "a video lies at a.mp4"),
        (["sets/one/a/1.mp4", "more/notes.txt"], "a video lies at sets/one/a/1.mp4"),
        (["one/a/1.mp4", "two/a/1.mp4"], "class folders lie in one/, two/: give one of these as data.root"),
        (["UCF101.rar", "a.mp4"], "it holds archives, UCF101.rar: unpack them there"),
    ],
)
def test_what_was_looked_for_is_said(tmp_path: Path, files: list[str], message: str) -> None:
    write(tmp_path, *files)
    for settings in ({}, {"format": "folders"}):
        with pytest.raises(ValueError, match=message) as caught:
            read_annotations(Data(root=tmp_path, **settings))
        assert "Looked for train/<class>/<video>" in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_places(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.root .*nowhere is not there"):
        read_annotations(Data(root=tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"data.val v.csv is not there, nor in"):
        read_annotations(Data(root=tmp_path, val=Path("v.csv")))
    write(tmp_path, "val/a/1.mp4", "valid/a/1.mp4")
    with pytest.raises(ValueError, match="are both val"):
        read_annotations(Data(root=tmp_path))


def test_lists_in_the_root_are_found_and_name_classes_after_folders(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"train/Walk/a.avi,1\r\ntrain/Run/b.avi,0\r\n")
    (tmp_path / "val.csv").write_bytes(b"val/Walk/c.avi,1\r\n")
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["Run", "Walk"]
    assert annotations.splits["val"] == [Sample(tmp_path / "val/Walk/c.avi", 1)]


def test_one_list_as_root_is_divided(tmp_path: Path) -> None:
    lines = [f"clips/{n}.mp4,{'jump' if n % 2 else 'walk'}" for n in range(20)]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    annotations = read_annotations(Data(root=tmp_path / "all.csv"))
    assert annotations.classes == ["jump", "walk"]
    assert Counter(sample.label for sample in annotations.splits["val"]) == {0: 2, 1: 2}
    assert annotations.splits["train"][0].path.parent == tmp_path / "clips"


def test_numbers_without_folders_name_themselves(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4 0\nb.mp4 2\n")
    assert read_annotations(Data(root=tmp_path)).classes == ["0", "1", "2"]


def test_names_of_lists_follow_a_class_list(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("on its side, not upright\nrun\n")
    (tmp_path / "train.csv").write_text("a.mp4,run\nb.mp4,on its side, not upright\n")
    annotations = read_annotations(Data(root=tmp_path, classes=str(tmp_path / "classes.txt")))
    assert [sample.label for sample in annotations.splits["train"]] == [1, 0]
    (tmp_path / "val.csv").write_text("a.mp4,run\nb.mp4,rum\n")
    with pytest.raises(ValueError, match=r"val.csv line 2: 'rum' is none of the 2 classes of .* \(did you mean 'run'"):
        read_annotations(Data(root=tmp_path, classes=str(tmp_path / "classes.txt")))


@pytest.mark.parametrize(
    ("train", "val", "classes", "message"),
    [
        (
            range(1, 52),
            range(1, 52),
            "hmdb51",
            r"train.csv: labels run 1..51: 1-based; subtract one \(allowed are 0..50\)",
        ),
        (range(51), range(1, 52), "hmdb51", r"val.csv: labels run 1..51: 1-based"),
        (
            range(2, 53),
            range(2, 53),
            "hmdb51",
            r"train.csv: labels run 2..52: .*train.csv line 50 has 51, but allowed are 0..50",
        ),
        (range(1, 52), range(1, 52), None, r"labels run 1..51: 1-based; subtract one"),
        (range(2, 53), range(2, 53), None, r"labels run 2..52: they start at 0 unless data.classes names the classes"),
        ([0, 1, -1], [0], None, r"train.csv line 3 has -1"),
        ([0, 1, 10**9], [0], None, r"train.csv line 3 has 1000000000"),
    ],
)
def test_labels_that_count_from_elsewhere(
    tmp_path: Path, train: list[int], val: list[int], classes: str | None, message: str
) -> None:
    for split, labels in (("train", train), ("val", val)):
        (tmp_path / f"{split}.csv").write_text("".join(f"{n}.mp4,{label}\n" for n, label in enumerate(labels)))
    with pytest.raises(ValueError, match=message):
        read_annotations(Data(root=tmp_path, classes=classes))


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("v_Basketball_g07_c02.avi", "Basketball/g07"),
        ("v_HandStandPushups_g25_c01.avi", "HandStandPushups/g25"),
        ("v_biking_01_03.mpg", "biking/01"),
        ("v_trampoline_jumping_25_04.avi", "trampoline_jumping/25"),
        ("Return_of_the_King_7_shoot_bow_u_nm_np10_ba_med_2.avi", "Return_of_the_King_7_shoot_bow"),
        ("person03_handclapping_d4_uncomp.avi", "person03"),
        ("--abcDEF123_000012_000022.mp4", "--abcDEF123"),
        ("fi123.mp4", None),
        ("holiday_000012_000022.mp4", None),
    ],
)
def test_known_ways_of_naming_tell_the_source(tmp_path: Path, name: str, group: str | None) -> None:
    (tmp_path / "train.csv").write_text(f"{name},0\n")
    assert read_annotations(Data(root=tmp_path)).splits["train"][0].group == group


def test_group_patterns(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{n}_{n % 4}_x.mp4" for n in range(12) for label in "ab"))
    annotations = read_annotations(Data(root=tmp_path, split="group", group=r"_(\d+)_x\.mp4$", folds=4, fold=1))
    (held_out,) = {sample.group for sample in annotations.splits["val"]}
    assert {sample.group for sample in annotations.splits["train"]} == {"0", "1", "2", "3"} - {held_out}
    assert counts(annotations) == {"train": 18, "val": 6}
    for pattern, message in [
        (r"_(\d+", "no regular expression"),
        (r"_\d+_", "in parentheses"),
        (r"seq(\d+)", "does not fit a/0_0_x.mp4"),
        (None, "no source is known for a/0_0_x.mp4"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_annotations(Data(root=tmp_path, split="group", group=pattern))


def test_missing_videos_and_wrong_labels_are_fatal_and_come_first(tmp_path: Path) -> None:
    write(tmp_path, "a.mp4", "b.mp4")
    annotations = Annotations(
        ["walk", "run", "jump"],
        {
            "train": [Sample(tmp_path / "a.mp4", 0), Sample(tmp_path / "gone.mp4", 1)],
            "val": [Sample(tmp_path / "b.mp4", 3), Sample(tmp_path / "a.mp4", 0)],
        },
    )
    problems = find_problems(annotations)
    assert [(problem.fatal, str(problem).replace(str(tmp_path), "")) for problem in problems] == [
        (True, "train: 1 of 2 videos are missing: /gone.mp4"),
        (True, "val: 1 labels are not in 0..2: /b.mp4 has 3"),
        (False, "train: 1 of 3 classes have no video: jump"),
        (False, "leak: 1 of 2 videos of val are in train too: /a.mp4"),
    ]


def test_only_one_class_is_fatal(tmp_path: Path) -> None:
    write(tmp_path, *(f"walk/{n}.mp4" for n in range(5)))
    problem, *_ = find_problems(read_annotations(Data(root=tmp_path)))
    assert problem.fatal and str(problem) == "there is only one class: walk"


def test_same_video_under_other_names_is_a_leak(tmp_path: Path) -> None:
    write(tmp_path, *(f"{split}/{label}/{n}.mp4" for split in ("train", "val") for label in "ab" for n in range(3)))
    long, other = "x" * 100_000, "x" * 99_999 + "y"
    write(tmp_path, "train/a/copy.mp4", "val/a/copied.mp4", content=long)
    write(tmp_path, "val/a/alike.mp4", "train/a/twin1.mp4", content=other[::-1])
    write(tmp_path, "val/b/begins_alike.mp4", content=other)
    write(tmp_path, "train/b/empty.mp4", "val/b/empty.mp4", content="")
    (tmp_path / "val/b/linked.mp4").symlink_to(tmp_path / "train/b/1.mp4")
    (tmp_path / "val/b/hard.mp4").hardlink_to(tmp_path / "train/b/2.mp4")
    (problem,) = find_problems(read_annotations(Data(root=tmp_path)))
    assert str(problem).startswith("leak: 4 of 12 videos of val are in train too:")
    assert f"{tmp_path}/val/a/copied.mp4 = {tmp_path}/train/a/copy.mp4" in str(problem)


def test_contradicting_labels(tmp_path: Path) -> None:
    write(tmp_path, "HammerThrow/1.mp4", "Hammering/1.mp4", "elsewhere/1.mp4")
    (tmp_path / "train.csv").write_text(
        "HammerThrow/1.mp4,35\nHammering/1.mp4,34\nelsewhere/1.mp4,0\nelsewhere/1.mp4,1\n"
    )
    found = {}
    for order in ("ucf101", "ucf101_dvfl"):
        found[order] = [str(problem) for problem in find_problems(read_annotations(Data(root=tmp_path, classes=order)))]
        first, second = class_names(order)[:2]
        double = f"1 videos are listed with different labels: {tmp_path}/elsewhere/1.mp4 ({first} and {second})"
        assert double in found[order]
    astray = [text for text in found["ucf101_dvfl"] if text not in found["ucf101"]]
    assert len(astray) == 1
    assert astray[0].startswith("train: 2 of 4 videos lie in a folder named after another class")


UCF_GROUP = re.compile(r"v_(\w+)_(g\d+)_c\d+")


def count_leaks(train: list[str], val: list[str]) -> tuple[int, int, int]:
    """Shared groups, groups of val, videos of val in shared groups, by comparing every pair of groups."""
    known = {UCF_GROUP.search(name)[0].rsplit("_", 1)[0] for name in train}  # type: ignore[index]
    held_out = [UCF_GROUP.search(name)[0].rsplit("_", 1)[0] for name in val]  # type: ignore[index]
    return len({g for g in held_out if g in known}), len(set(held_out)), sum(g in known for g in held_out)


def test_leaks_of_the_dvfl_lists_of_ucf50(shared_data: Path) -> None:
    lists = shared_data / "labels/ucf50"
    annotations = read_annotations(Data(root=lists, classes="ucf50"))
    assert counts(annotations) == {"train": 5360, "val": 1321}
    assert count_leaks(*([s.path.name for s in annotations.splits[split]] for split in ("train", "val"))) == (
        38,
        277,
        88,
    )
    leaks = [str(problem) for problem in find_problems(annotations) if "leak" in str(problem)]
    assert len(leaks) == 1
    assert leaks[0].startswith("leak: 38 of 277 groups of val (88 of 1321 videos) are in train too: BaseballPitch/g21,")
    assert read_annotations(Data(root=lists)) == annotations  # the folders name the same classes


def test_leaks_of_the_dvfl_division_of_ucf101(shared_data: Path, tmp_path: Path) -> None:
    """Of each class, sorted, the first 80 % (rounded up) train: the rule that gives the counts of their lists."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for path in ("trainlist01.txt", "testlist01.txt"):
        for line in (shared_data / "labels/ucf101" / path).read_text().splitlines():
            by_class[line.split("/")[0]].append(line.split()[0])
    label = {name: index for index, name in enumerate(class_names("ucf101_dvfl"))}
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for name, videos in by_class.items():
        border = -(-len(videos) * 4 // 5)
        for split, part in (("train", sorted(videos)[:border]), ("val", sorted(videos)[border:])):
            lists[split] += [f"{split}/{video},{label[name]}\n" for video in part]
    for split, lines in lists.items():
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    annotations = read_annotations(Data(root=tmp_path, classes="ucf101_dvfl"))
    assert counts(annotations) == {"train": 10690, "val": 2630}
    leak = str(find_problems(annotations)[-1])
    assert leak.startswith("leak: 81 of 549 groups of val (223 of 2630 videos) are in train too")


def manifest(shared_data: Path, dataset: str) -> list[dict[str, str]]:
    with (shared_data / "clips/manifest.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["dataset"] == dataset]


def test_ut_interaction_leaves_sequences_out(shared_data: Path) -> None:
    root = shared_data / "clips/ut_interaction"
    rows = {root.parent / row["path"]: row for row in manifest(shared_data, "ut_interaction")}
    held_out: list[Path] = []
    for fold in range(1, 15):
        data = Data(root=root, split="group", group=r"_(\d+)_\d\.avi$", folds=14, fold=fold)
        annotations = read_annotations(data)
        assert all(rows[s.path]["class"] == annotations.classes[s.label] for s in annotations.splits["train"])
        sequences = {split: {rows[s.path]["group"] for s in samples} for split, samples in annotations.splits.items()}
        assert not sequences["train"] & sequences["val"]
        assert find_problems(annotations) == []
        held_out += [s.path for s in annotations.splits["val"]]
    assert sorted(held_out) == sorted(rows)


@pytest.mark.parametrize(
    ("dataset", "classes", "sizes"),
    [
        ("hockey_fights_small", 2, {"train": 800, "val": 100}),
        ("basketball_actions", 5, {"train": 183, "val": 46}),
        ("surveillance_fights", 2, {"train": 16, "val": 4}),
    ],
)
def test_real_folders(shared_data: Path, dataset: str, classes: int, sizes: dict[str, int]) -> None:
    root = shared_data / "clips" / dataset
    annotations = read_annotations(Data(root=root))
    assert (len(annotations.classes), counts(annotations)) == (classes, sizes)
    rows = {root.parent / row["path"]: row for row in manifest(shared_data, dataset)}
    assert {s.path: annotations.classes[s.label] for samples in annotations.splits.values() for s in samples} == {
        path: row["class"] for path, row in rows.items()
    }
    hashes = {split: {rows[s.path]["sha256"]: s.path for s in samples} for split, samples in annotations.splits.items()}
    leaks = [str(hashes["val"][same]) for same in hashes["train"].keys() & hashes["val"].keys()]
    copies = {split: len(samples) - len(hashes[split]) for split, samples in annotations.splits.items()}
    problems = [str(problem) for problem in find_problems(annotations)]
    assert len(problems) == bool(leaks) + sum(map(bool, copies.values()))
    assert all(leak in problems[0] for leak in leaks)
    for split, count in copies.items():
        assert any(f"{count} of {len(annotations.splits[split])} videos are copies" in p for p in problems) == (
            count > 0
        )


def test_group_column_of_a_list(shared_data: Path, tmp_path: Path) -> None:
    """surveillance_fights names its sources nowhere but in the manifest."""
    rows = [(r["path"], r["class"], r["group"]) for r in manifest(shared_data, "surveillance_fights")]
    (tmp_path / "all.csv").write_text("path,class,group\n" + "".join(f"{p},{c},{g or p}\n" for p, c, g in rows))
    (tmp_path / "surveillance_fights").symlink_to(shared_data / "clips/surveillance_fights")
    annotations = read_annotations(Data(root=tmp_path / "all.csv", split="group", folds=4))
    assert find_problems(annotations) == []
    assert not {s.group for s in annotations.splits["train"]} & {s.group for s in annotations.splits["val"]}


def test_annotations_survive_a_move_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "x", *(f"{label}/{n}.mp4" for n in range(6) for label in "ab"))
    before = read_annotations(Data(root=tmp_path / "x"))
    shutil.move(tmp_path / "x", tmp_path / "y z")
    after = read_annotations(Data(root=tmp_path / "y z"))
    assert names(tmp_path / "x", before.splits["val"]) == names(tmp_path / "y z", after.splits["val"])


def listed(root: Path, text: str, **settings: object) -> Annotations:
    """What a list of the videos a.mp4 … d.mp4 says."""
    write(root, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (root / "train.csv").write_text(text)
    return read_annotations(Data(root=root, **settings))


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("a.mp4,run;jump\nb.mp4,jump\nc.mp4,wave;run;run\n", ["jump", "run", "wave"]),
        ("a.mp4 1 0\nb.mp4 0\nc.mp4 2,1,1\n", ["0", "1", "2"]),
    ],
)
def test_videos_of_several_classes(tmp_path: Path, text: str, classes: list[str]) -> None:
    annotations = listed(tmp_path, text, multi_label=True)
    samples = annotations.splits["train"]
    assert annotations.classes == classes
    assert [sample.labels for sample in samples] == [(1, 0), (0,), (2, 1)]
    assert multi_hot(samples, 3).tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 1]]
    assert find_problems(annotations) == []


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("a.mp4,run;jump\n", {}, r"train.csv line 1: 'run;jump' are several labels: set data.multi_label"),
        ("a.mp4,0\nb.mp4,1,2\n", {}, "line 2: '1,2' are several labels"),
        ("a.mp4 0 1\n", {}, "line 1: '0 1' are several labels"),
        ("a.mp4,run\nb.mp4,run,jump\n", {"multi_label": True}, "line 2: 'run,jump': put a ;"),
        ("a.mp4,run\nb.mp4,;\n", {"multi_label": True}, "line 2: ';' names no class"),
        ("a.mp4,0\nb.mp4,1;7000\n", {"multi_label": True}, "line 2 has 7000, but allowed are 0..999"),
        ("a.mp4,zumba;yogga\n", {"multi_label": True, "classes": "kinetics400"}, r"'yogga' is none .* 'yoga'"),
        ("a.mp4,x\n", {"multi_label": True, "classes": "list.txt"}, "class 'x;y'.* rename it"),
    ],
)
def test_unclear_labels_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, settings: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("x;y\nx\n")
    with pytest.raises(ValueError, match=message) as caught:
        listed(tmp_path, text, **settings)
    assert "\n" not in str(caught.value)


def test_a_class_folder_with_a_semicolon_is_one_class(tmp_path: Path) -> None:
    write(tmp_path, "train/x;y/1.mp4", "train/z/1.mp4")
    assert [s.labels for s in read_annotations(Data(root=tmp_path)).splits["train"]] == [(0,), (1,)]


def test_problems_look_at_every_label(tmp_path: Path) -> None:
    write(tmp_path, "run/a.mp4", "run/b.mp4")
    samples = [Sample(tmp_path / "run/a.mp4", 1, more=(0,)), Sample(tmp_path / "run/b.mp4", 1, more=(2, 9))]
    again = Sample(tmp_path / "run/a.mp4", 1)
    problems = [str(p) for p in find_problems(Annotations(["run", "jump", "wave"], {"train": [*samples, again]}))]
    assert problems[0] == f"train: 1 labels are not in 0..2: {tmp_path}/run/b.mp4 has 9"
    assert any("2 of 3 videos lie in a folder named after another class" in problem for problem in problems)
    assert any("1 videos are listed with different labels" in problem for problem in problems)
    assert not any("have no video" in problem for problem in problems)


@pytest.mark.parametrize("divided", [False, True])
def test_nested_choice_tests_what_was_held_out_and_chooses_on_a_part_of_the_rest(tmp_path: Path, divided: bool) -> None:
    for root in (tmp_path / "here", tmp_path / "there/deeper"):
        for label, n in itertools.product("ab", range(20)):
            write(root, f"{('train', 'valid')[n % 4 == 0]}/{label}/{n}.mp4" if divided else f"{label}/{n}.mp4")
    plain = read_annotations(Data(root=tmp_path / "here"), seed=3)
    nested, moved = (
        read_annotations(Data(root=root, nested=True), seed=3)
        for root in (tmp_path / "here", tmp_path / "there/deeper")
    )
    assert nested.splits["test"] == plain.splits["val"]
    inner = nested.splits["train"] + nested.splits["val"]
    assert sorted(inner, key=str) == sorted(plain.splits["train"], key=str)
    assert len(nested.splits["val"]) in (len(inner) // 5, len(inner) // 5 + 1)
    for split, samples in nested.splits.items():
        assert names(tmp_path / "here", samples) == names(tmp_path / "there/deeper", moved.splits[split])


def test_nested_choice_keeps_groups_together(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{g}_{n}.mp4" for label in "ab" for g in range(10) for n in range(3)))
    found = read_annotations(Data(root=tmp_path, split="group", group=r"(\d+)_", nested=True))
    groups = [{sample.group for sample in samples} for samples in found.splits.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 10


def test_nested_choice_is_refused_where_nothing_is_left_to_nest(tmp_path: Path) -> None:
    write(tmp_path, *(f"{split}/{label}/{n}.mp4" for split in ("train", "val", "test") for label in "ab" for n in "12"))
    with pytest.raises(ValueError, match="already"):
        read_annotations(Data(root=tmp_path, nested=True))
    (tmp_path / "train").rename(tmp_path / "other")
    (tmp_path / "test").rename(tmp_path / "another")
    with pytest.raises(ValueError, match="needs training videos"):
        read_annotations(Data(root=tmp_path, nested=True))


@pytest.mark.parametrize("seed", range(6))
def test_one_clip_under_two_labels_is_seen_in_any_division(tmp_path: Path, seed: int) -> None:
    write(tmp_path, *(f"{label}/{n}.mp4" for n in range(10) for label in ("run", "walk")))
    write(tmp_path, "run/x.mp4", "walk/y.mp4", content="the same")
    write(tmp_path, "run/twin.mp4", "run/twin again.mp4", content="another")
    annotations = read_annotations(Data(root=tmp_path), seed)
    texts = "\n".join(str(problem) for problem in find_problems(annotations))
    assert re.search(r"1 videos are listed with different labels: \S+/[xy]\.mp4 \(\w+\) = \S+/[xy]\.mp4 \(\w+\)", texts)
    assert "x.mp4 (run)" in texts and "y.mp4 (walk)" in texts
    assert re.search(r"(leak|copies of others)[^\n]*twin", texts)


def test_copies_are_those_of_a_comparison_of_all_pairs(tmp_path: Path) -> None:
    contents = ["a" * 70_000 + "1", "a" * 70_000 + "2", "a" * 70_000 + "1", "b" * 70_001, "", "", "a" * 70_000 + "2"]
    for number, content in enumerate(contents):
        write(tmp_path, f"{number}.mp4", content=content)
    files = stat_all(sorted(tmp_path.iterdir()))
    marks = list(identify(files).values())
    for one, other in itertools.combinations(range(len(contents)), 2):
        assert (marks[one] == marks[other]) == (contents[one] == contents[other] != "")


def test_videos_that_lie_elsewhere_are_counted(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{n}.mp4" for n in range(5) for label in "ab"))
    write(tmp_path, "loose.mp4", "a/deep/er/1.mp4", "c/deeper/2.mp4", ".hidden/3.mp4", "a/notes.txt")
    annotations = read_annotations(Data(root=tmp_path))
    assert sum(counts(annotations).values()) == 10
    assert annotations.notes == [
        "3 videos are not used, for they do not lie at <class>/<video>: loose.mp4, a/deep/er/1.mp4, c/deeper/2.mp4",
        "not taken as classes, for no video lies directly in them: c/",
    ]
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / label / "0.mp4").rename(tmp_path / "train" / label / "0.mp4")
    (note,) = read_annotations(Data(root=tmp_path)).notes
    assert note.startswith("11 videos are not used, for they do not lie at <split>/<class>/<video>: loose.mp4")


def test_what_is_no_file_is_left_out_of_folders_and_fatal_in_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, *(f"{label}/{n}.mp4" for n in range(5) for label in "ab"))
    os.mkfifo(tmp_path / "a/pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        server.bind("b/socket.avi")
    (tmp_path / "b/frames.mp4").mkdir()
    (tmp_path / "b/null.mkv").symlink_to("/dev/null")
    (tmp_path / "b/gone.mp4").symlink_to("nowhere.mp4")
    annotations = read_annotations(Data(root=tmp_path))
    left_out = str(annotations.notes)
    for name in ("a/pipe.mp4 is a named pipe", "b/null.mkv is a device", "b/socket.avi is a socket"):
        assert name in left_out
    assert sum(counts(annotations).values()) == 11  # a link to nothing is a missing video
    assert "are missing" in str(find_problems(annotations)[0])
    (tmp_path / "all.csv").write_text("a/0.mp4,0\na/pipe.mp4,0\nb/1.mp4,1\nb/frames.mp4,1\nb/null.mkv,1\n" * 5)
    problems = find_problems(read_annotations(Data(root=tmp_path / "all.csv")))
    assert problems[0].fatal
    for name in ("pipe.mp4 is a named pipe", "frames.mp4 is a folder", "null.mkv is a device"):
        assert any(name in str(problem) for problem in problems if problem.fatal)


@pytest.mark.parametrize("format", ["folders", "kinetics", "ucf101", "hmdb51", "jester"])
def test_folders_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    write(tmp_path, *(f"{label}/{label}{n}_000001_000011.mp4" for n in range(5) for label in "ab"), "closed/c.mp4")
    ids = [f"{label}{n}" for label in "ab" for n in range(5)]
    (tmp_path / "k.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n" + "".join(f"{i[0]},{i},1,11,train\n" for i in ids)
    )
    (tmp_path / "classInd.txt").write_text("1 a\n2 b\n")
    for name in ("trainlist01.txt", "testlist01.txt"):
        (tmp_path / name).write_text("".join(f"{i[0]}/{i}_000001_000011.mp4\n" for i in ids))
    for name in ("trainlist.txt", "vallist.txt"):
        (tmp_path / name).write_text("".join(f"{i}_000001_000011 {'ab'.index(i[0])}\n" for i in ids))
    for label in "ab":
        lines = (f"{label}{n}_000001_000011.mp4 {1 + n % 2}\n" for n in range(5))
        (tmp_path / f"{label}_test_split1.txt").write_text("".join(lines))
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    annotations = read_annotations(Data(root=tmp_path, format=format))
    assert f"left out: {tmp_path}/closed cannot be read (permission denied)" in annotations.notes


def test_paths_of_the_settings_are_relative_to_the_root_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "here/a.mp4", "here/b.mp4", "here/c.mp4")
    for folder, first in (("here", 0), (".", 1)):
        (tmp_path / folder / "lists").mkdir()
        (tmp_path / folder / "lists/t.csv").write_text(f"a.mp4,{first}\nb.mp4,{1 - first}\n")
        (tmp_path / folder / "names.txt").write_text(f"{folder} one\n{folder} two\n")
    (tmp_path / "v.csv").write_text("c.mp4,0\n")
    monkeypatch.chdir(tmp_path)
    for root in (Path("here"), tmp_path / "here"):
        found = read_annotations(Data(root=root, train=Path("lists/t.csv"), val=Path("v.csv"), classes="names.txt"))
        assert found.classes == ["here one", "here two"]
        assert [s.label for s in found.splits["train"]] == [0, 1] and counts(found) == {"train": 2, "val": 1}


def test_home_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "r.yaml").write_text("data: {root: ~/set, train: ~/t.csv, splits: ~/lists}\n")
    data = resolve(tmp_path / "r.yaml", ["--data.val", "~/v.csv", "--data.test=~/e.csv"]).data
    assert data == Data(
        root=tmp_path / "set", train=tmp_path / "t.csv", splits=tmp_path / "lists", val=tmp_path / "v.csv",
        test=tmp_path / "e.csv",
    )  # fmt: skip
    for section in (Data, Distil, Run):
        for name, field in section.model_fields.items():  # a path that is added later, too
            if "Path" in str(field.annotation):
                assert getattr(section.model_validate({name: "~/x"}), name) == tmp_path / "x"
    write(tmp_path / "set", "b/1.mp4", "a/1.mp4")
    (tmp_path / "names.txt").write_text("b\na\n")
    assert read_annotations(Data(root=Path("~/set"), classes="~/names.txt")).classes == ["b", "a"]


KNOWN = ["walk", "run", "arm wave", "sit"]


def known_labels(annotations: Annotations) -> list[tuple[str, tuple[str, ...]]]:
    assert annotations.classes == KNOWN
    samples = [sample for split in annotations.splits.values() for sample in split]
    return sorted((sample.path.name, tuple(KNOWN[label] for label in sample.labels)) for sample in samples)


def test_named_labels_may_be_some_of_a_models_in_any_order(tmp_path: Path) -> None:
    write(tmp_path, "val/Arm_Wave/1.mp4", "val/walk/2.mp4")
    found = read_annotations(Data(root=tmp_path), known=KNOWN)
    assert known_labels(found) == [("1.mp4", ("arm wave",)), ("2.mp4", ("walk",))]
    (tmp_path / "l.csv").write_text("val/Arm_Wave/1.mp4,arm wave\nval/walk/2.mp4,walk\n")
    assert known_labels(read_annotations(Data(root=tmp_path, test=Path("l.csv")), known=KNOWN)) == known_labels(found)
    write(tmp_path, "val/wlak/3.mp4")
    with pytest.raises(
        ValueError, match=r"wlak: 'wlak' is none of the 4 classes of the model \(did you mean 'walk'\?\)"
    ):
        read_annotations(Data(root=tmp_path), known=KNOWN)


def test_numbers_are_ids_of_the_model_unless_a_class_list_names_them(tmp_path: Path) -> None:
    write(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "test.csv").write_text("a.mp4,3\nb.mp4,1\n")
    found = read_annotations(Data(root=tmp_path), known=KNOWN)
    assert known_labels(found) == [("a.mp4", ("sit",)), ("b.mp4", ("run",))]
    (tmp_path / "names.txt").write_text("sit\nrun\njump\nwalk\n")
    found = read_annotations(Data(root=tmp_path, classes="names.txt"), known=KNOWN)
    assert known_labels(found) == [("a.mp4", ("walk",)), ("b.mp4", ("run",))]
    (tmp_path / "test.csv").write_text("a.mp4,2\nb.mp4,1\n")
    with pytest.raises(ValueError, match="line 1: 'jump' is none of the 4 classes of the model"):
        read_annotations(Data(root=tmp_path, classes="names.txt"), known=KNOWN)
    (tmp_path / "test.csv").write_text("a.mp4,4\nb.mp4,1\n")
    with pytest.raises(ValueError, match=r"labels run 1\.\.4: 1-based; subtract one \(allowed are 0\.\.3\)"):
        read_annotations(Data(root=tmp_path), known=KNOWN)


def test_several_labels_are_a_models_too(tmp_path: Path) -> None:
    found = listed(tmp_path, "a.mp4,sit;walk\nb.mp4,arm wave\n", multi_label=True)
    assert found.classes == ["arm wave", "sit", "walk"]
    found = read_annotations(Data(root=tmp_path, multi_label=True), known=KNOWN)
    assert known_labels(found) == [("a.mp4", ("sit", "walk")), ("b.mp4", ("arm wave",))]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("split", ["stratified", "group"])
def test_a_model_changes_no_division(tmp_path: Path, nested: bool, split: str) -> None:
    write(tmp_path, *(f"{label}/{n % 7}_{n}.mp4" for n in range(21) for label in ("run", "sit", "walk")))
    data = Data(root=tmp_path, nested=nested, split=split, group=r"(\d+)_")
    plain, of_model = read_annotations(data, 4), read_annotations(data, 4, known=KNOWN)
    for name, samples in plain.splits.items():
        assert [s.path for s in of_model.splits[name]] == [s.path for s in samples]
        assert [KNOWN[s.label] for s in of_model.splits[name]] == [plain.classes[s.label] for s in samples]
    assert read_annotations(data, 4, known=plain.classes) == plain
