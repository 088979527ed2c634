"""Sets whose lists name videos by number or id: rows as their makers wrote them, on trees of empty files."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from vidstill.config import Data
from vidstill.data.annotations import Annotations, find_problems, read_annotations
from vidstill.labels import class_names


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def frames(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(1, 4):
            cv2.imwrite(str(root / name / f"{number:05}.jpg"), np.full((16, 24, 3), 40 * number, np.uint8))


def found(annotations: Annotations, root: Path) -> dict[str, list[tuple[str, str]]]:
    return {
        split: [(sample.path.relative_to(root).as_posix(), annotations.classes[sample.label]) for sample in samples]
        for split, samples in annotations.splits.items()
    }


def no_fatal(annotations: Annotations) -> bool:
    return not any(problem.fatal for problem in find_problems(annotations))


SSV2 = {
    "train": [
        {"id": "78687", "label": "holding potato next to vicks", "template": "Holding [something] next to [something]",
         "placeholders": ["potato", "vicks"]},
        {"id": "42326", "label": "spreading margarine onto bread", "template": "Spreading [something] onto [something]",
         "placeholders": ["margarine", "bread"]},
    ],
    "validation": [
        {"id": "36585", "label": "plastic falling like a feather or paper",
         "template": "[Something] falling like a feather or paper", "placeholders": ["plastic"]},
    ],
    "test": [{"id": "1420"}],
}  # fmt: skip
FOUND = {
    "train": [
        ("20bn-something-something-v2/78687.webm", "Holding something next to something"),
        ("20bn-something-something-v2/42326.webm", "Spreading something onto something"),
    ],
    "val": [("20bn-something-something-v2/36585.webm", "Something falling like a feather or paper")],
}
IDS = {name: str(number) for number, name in enumerate(class_names("ssv2"))}


@pytest.mark.parametrize("names", ["something-something-v2-{}.json", "labels/{}.json", "x/y/labels/{}.json"])
def test_something_something_v2(tmp_path: Path, names: str) -> None:
    write(tmp_path, {names.format(part): entries for part, entries in (SSV2 | {"labels": IDS}).items()})
    write(tmp_path, dict.fromkeys((path for rows in FOUND.values() for path, _ in rows), ""))
    write(tmp_path, {"20bn-something-something-v2/1420.webm": ""})
    annotations = read_annotations(Data(root=tmp_path))
    assert found(annotations, tmp_path) == FOUND and annotations.classes == class_names("ssv2")
    assert no_fatal(annotations) and not annotations.notes
    (tmp_path / names.format("labels")).unlink()
    if names.startswith("something"):  # the shipped list is the same
        assert found(read_annotations(Data(root=tmp_path)), tmp_path) == FOUND


def test_answers_of_the_test_list_count_when_asked_for(tmp_path: Path) -> None:
    write(tmp_path, {f"labels/{part}.json": entries for part, entries in (SSV2 | {"labels": IDS}).items()})
    write(
        tmp_path, {"labels/test-answers.csv": "1420;Throwing something\n", "20bn-something-something-v2/1420.webm": ""}
    )
    annotations = read_annotations(Data(root=tmp_path))
    assert set(annotations.splits) == {"train", "val"} and "to test on them give" in annotations.notes[0]
    annotations = read_annotations(Data(root=tmp_path, format="ssv2", test=Path("labels/test-answers.csv")))
    assert found(annotations, tmp_path)["test"] == [("20bn-something-something-v2/1420.webm", "Throwing something")]
    assert not annotations.notes


def test_lists_of_single_frames_beside_the_makers_are_not_taken_for_videos(tmp_path: Path) -> None:
    write(tmp_path, {f"something-something-v2-{part}.json": entries for part, entries in SSV2.items()})
    line = 'original_vido_id video_id frame_id path labels\n78687 0 0 78687/78687_000001.jpg ""\n'
    write(tmp_path, dict.fromkeys(("train.csv", "val.csv"), line))
    assert found(read_annotations(Data(root=tmp_path)), tmp_path) == FOUND


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("labels", {"Holding something": "1", "Opening something": "2"}, "labels.json: give each class a number"),
        ("labels", [], "labels.json: give each class"),
        ("train", [{"id": "3"}], 'train.json entry 1: needs "id" and "template"'),
        ("train", "[{", "train.json line 1: not JSON"),
        ("validation", [{"id": "3", "template": "Holding [somthing]"}], "'Holding somthing' is none of the 174"),
    ],
)
def test_errors_of_something_something_v2(tmp_path: Path, part: str, content: object, message: str) -> None:
    lists = SSV2 | {"labels": IDS, part: content}
    write(tmp_path, {f"something-something-v2-{name}.json": entries for name, entries in lists.items()})
    with pytest.raises(ValueError, match=message) as caught:
        read_annotations(Data(root=tmp_path))
    assert "\n" not in str(caught.value)


V1 = {
    "labels": "Holding something\nTurning something upside down\n"
    "Putting something, something and something on the table\n",
    "train": "100218;Putting something, something and something on the table\n24413;Holding something\n",
    "validation": "7;Turning something upside down\n",
    "test": "9\n",
}


def test_something_something_v1_is_of_frames_at_12_per_second(tmp_path: Path) -> None:
    write(tmp_path, {f"something-something-v1-{part}.csv": text for part, text in V1.items()})
    folders = [f"20bn-something-something-v1/{number}" for number in (100218, 24413, 7)]
    frames(tmp_path, *folders)
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == V1["labels"].splitlines()
    assert found(annotations, tmp_path) == {
        "train": [(folders[0], annotations.classes[2]), (folders[1], annotations.classes[0])],
        "val": [(folders[2], annotations.classes[1])],
    }
    assert {sample.video.fps for sample in annotations.splits["train"]} == {12} and no_fatal(annotations)
    assert {sample.fps for sample in read_annotations(Data(root=tmp_path, fps=24)).splits["val"]} == {24}


JESTER = {
    "labels": "Swiping Left\nSwiping Right\nThumb Up\n",
    "train": "34870;Thumb Up\n56557;Swiping Left\n",
    "validation": "9223;Swiping Right\n",
}


@pytest.mark.parametrize("names", ["jester-v1-{}.csv", "annotations/jester-v1-{}.csv", "labels/{}.csv"])
@pytest.mark.parametrize("of_frames", [True, False])
def test_jester_of_its_makers(tmp_path: Path, names: str, of_frames: bool) -> None:
    write(tmp_path, {names.format(part): text for part, text in JESTER.items()})
    paths = [f"20bn-jester-v1/{number}{'' if of_frames else '.mp4'}" for number in (34870, 56557, 9223)]
    if of_frames:
        frames(tmp_path, *paths)
    else:
        write(tmp_path, dict.fromkeys(paths, ""))
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["Swiping Left", "Swiping Right", "Thumb Up"]  # their order, not the alphabet's
    assert found(annotations, tmp_path) == {
        "train": [(paths[0], "Thumb Up"), (paths[1], "Swiping Left")],
        "val": [(paths[2], "Swiping Right")],
    }
    assert {sample.fps for sample in annotations.splits["train"]} == {12 if of_frames else None}
    assert no_fatal(annotations)


def test_real_validation_list_of_jester_is_that_of_efficient_3dcnns(shared_data: Path, tmp_path: Path) -> None:
    lists = shared_data / "labels/jester"
    shutil.copy(lists / "jester-v1-validation.csv", tmp_path / "jester-v1-train.csv")
    shutil.copy(lists / "jester-v1-validation.csv", tmp_path)
    shutil.copy(lists / "jester-v1-labels.csv", tmp_path)
    frames(tmp_path, "20bn-jester-v1/9223")
    ours = read_annotations(Data(root=tmp_path))
    theirs = read_annotations(Data(root=tmp_path, splits=lists, format="jester"), known=ours.classes)
    assert [sample.label for sample in ours.splits["val"]] == [sample.label for sample in theirs.splits["val"]]
    assert ours.classes == class_names("jester") and ours.splits["val"][0].path == tmp_path / "20bn-jester-v1/9223"
    assert theirs.splits["val"][0].path == ours.splits["val"][0].path and theirs.splits["val"][0].fps == 12


def test_a_line_that_is_no_answer(tmp_path: Path) -> None:
    write(tmp_path, {f"jester-v1-{part}.csv": text for part, text in (JESTER | {"train": "\n34870\n"}).items()})
    with pytest.raises(ValueError, match=r"jester-v1-train.csv line 2: '34870' is not id;label"):
        read_annotations(Data(root=tmp_path))
    (tmp_path / "jester-v1-train.csv").unlink()
    with pytest.raises(ValueError, match=r"no .*jester-v1-train.csv: the lists of train and of validation"):
        read_annotations(Data(root=tmp_path))


VOCABULARY = [["Back", "15som", "05Twis", "FREE"], ["Reverse", "Dive", "NoTwis", "PIKE"]]


def dive(name: str, label: int) -> dict[str, object]:
    return {"vid_name": name, "label": label, "start_frame": 0, "end_frame": 48}


@pytest.mark.parametrize("version", ["V2_", ""])
def test_diving48(tmp_path: Path, version: str) -> None:
    lists = {f"Diving48_{version}train.json": [dive("-mmq0PT-u8k_00155", 0), dive("2x00lRzlTVQ_00000", 1)]}
    write(tmp_path, lists | {f"Diving48_{version}test.json": [dive("_8Vy3dlHg2w_00001", 1)]})
    write(tmp_path, {"Diving48_vocab.json": VOCABULARY})
    names = ["-mmq0PT-u8k_00155", "2x00lRzlTVQ_00000", "_8Vy3dlHg2w_00001"]
    write(tmp_path, {f"rgb/{name}.mp4": "" for name in names})
    frames(tmp_path, f"rawframes/{names[0]}")  # extracted by somebody: the file is the better one
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["Back_15som_05Twis_FREE", "Reverse_Dive_NoTwis_PIKE"]
    assert found(annotations, tmp_path) == {
        "train": [(f"rgb/{names[0]}.mp4", annotations.classes[0]), (f"rgb/{names[1]}.mp4", annotations.classes[1])],
        "test": [(f"rgb/{names[2]}.mp4", annotations.classes[1])],
    }
    assert no_fatal(annotations) and not annotations.notes


def test_diving48_of_both_versions_is_v2(tmp_path: Path) -> None:
    for version, label in (("V2_", 1), ("", 0)):
        for part in ("train", "test"):
            write(tmp_path, {f"Diving48_{version}{part}.json": [dive(f"{part}_00000", label)]})
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == class_names("diving48") and "V1" in annotations.notes[0]
    assert [sample.label for samples in annotations.splits.values() for sample in samples] == [1, 1]
    (tmp_path / "Diving48_V2_test.json").unlink()
    with pytest.raises(ValueError, match=r"no .*Diving48_V2_test.json: Diving48's lists are"):
        read_annotations(Data(root=tmp_path))
    write(tmp_path, {"Diving48_V2_test.json": [dive("a", 48)]})
    with pytest.raises(ValueError, match=r"Diving48_V2_test.json entry 1: label 48, but allowed are 0..47"):
        read_annotations(Data(root=tmp_path))


MOMENTS = {
    "moments_categories.txt": "applauding,1\nblocking,0\nadult+male+singing,2\n",
    "trainingSet.csv": "blocking/getty-karate-video_4.mp4,blocking,4,0\n"
    "applauding/getty-karate-video_4.mp4,applauding,3,0\n",
    "validationSet.csv": "adult+male+singing/flickr-0-1_22.mp4,adult+male+singing,3,1\n",
}


def test_moments_in_time(tmp_path: Path) -> None:
    write(tmp_path, MOMENTS)
    paths = [
        "training/blocking/getty-karate-video_4.mp4",
        "training/applauding/getty-karate-video_4.mp4",  # one name in two classes
        "validation/adult+male+singing/flickr-0-1_22.mp4",
    ]
    write(tmp_path, {path: path for path in paths})
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["blocking", "applauding", "adult+male+singing"]  # by their ids
    assert found(annotations, tmp_path) == {
        "train": [(paths[0], "blocking"), (paths[1], "applauding")],
        "val": [(paths[2], "adult+male+singing")],
    }
    assert no_fatal(annotations)


MULTIPLE = {
    "moments_categories.txt": "crafting,0\npaying,1\nwalking,2\n",
    "trainingSet.txt": "crafting/0-0-1-6-2-8_1.mp4,0\npaying/0-0-1_2.mp4,1,2\n",
    "validationSet.txt": "walking/5_1.mp4,2,0,1\n",
}


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_multi_moments_in_time(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, {name.replace("Set.txt", f"Set{suffix}"): text for name, text in MULTIPLE.items()})
    paths = ["videos/crafting/0-0-1-6-2-8_1.mp4", "videos/paying/0-0-1_2.mp4", "videos/walking/5_1.mp4"]
    write(tmp_path, {path: path for path in paths})
    with pytest.raises(ValueError, match=r"several classes: set data\.multi_label") as caught:
        read_annotations(Data(root=tmp_path))
    assert "\n" not in str(caught.value)
    annotations = read_annotations(Data(root=tmp_path, multi_label=True))
    assert annotations.classes == ["crafting", "paying", "walking"]
    labels = {split: [sample.labels for sample in samples] for split, samples in annotations.splits.items()}
    assert labels == {"train": [(0,), (1, 2)], "val": [(2, 0, 1)]}
    assert [s.path.relative_to(tmp_path).as_posix() for s in annotations.splits["train"]] == paths[:2]
    assert no_fatal(annotations)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trainingSet.txt", "crafting/1.mp4\n", "trainingSet.txt line 1: 'crafting/1.mp4' has no class"),
        ("validationSet.txt", "crafting/1.mp4,0,7\n", "validationSet.txt line 1: '7' is no id of"),
        ("moments_categories.txt", "crafting,0\npaying,0\n", "line 2: 'paying,0' is no class with a number of its own"),
    ],
)
def test_errors_of_moments(tmp_path: Path, name: str, text: str, message: str) -> None:
    write(tmp_path, MULTIPLE | {name: text})
    with pytest.raises(ValueError, match=message):
        read_annotations(Data(root=tmp_path, format="multi_moments", multi_label=True))
    (tmp_path / "validationSet.txt").unlink()
    (tmp_path / "trainingSet.txt").write_text(MULTIPLE["trainingSet.txt"])
    (tmp_path / "moments_categories.txt").write_text(MULTIPLE["moments_categories.txt"])
    with pytest.raises(ValueError, match=r"no .*validationSet.txt: the lists of training and of validation"):
        read_annotations(Data(root=tmp_path, multi_label=True))
