"""Data sets in the layout in which they come: ActivityNet, Kinetics, KTH, HVU, Charades, and others' lists of them."""

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidstill.config import Data
from vidstill.data.annotations import Annotations, find_problems, read_annotations
from vidstill.data.official.present import uncut
from vidstill.labels import class_names
from vidstill.video.decode import probe, read_frames
from vidstill.video.encode import write_video

JSON = "activity_net.v1-3.min.json"


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Seconds → a file that lasts so long."""
    folder = tmp_path_factory.mktemp("clips")
    for seconds in (1, 3):
        write_video(folder / f"{seconds}.mp4", [np.full((32, 32, 3), 9 * i, np.uint8) for i in range(5 * seconds)], 5)
    return {seconds: folder / f"{seconds}.mp4" for seconds in (1, 3)}


def lay(root: Path, source: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / name)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def pictures(folder: Path, count: int, name: str = "img_{:05d}.jpg") -> None:
    """Frame folder whose picture i is all of grey level 6 i."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((16, 16, 3), 6 * number, np.uint8)).save(folder / name.format(number + 1), quality=95)


def brief(annotations: Annotations, root: Path) -> dict[str, list[tuple[str, str, float, float | None]]]:
    return {
        split: [
            (s.path.relative_to(root).as_posix(), annotations.classes[s.label], s.start, s.end) for s in samples
        ]
        for split, samples in annotations.splits.items()
    }  # fmt: skip


def notes(annotations: Annotations) -> str:
    return " | ".join(annotations.notes)


def refused(**settings: object) -> str:
    with pytest.raises(ValueError) as caught:
        read_annotations(Data.model_validate(settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def activitynet(**more: object) -> dict[str, object]:
    database = {
        "aaaaaaaaaaa": {"subset": "training", "duration": 9.0, "url": "", "annotations": [
            {"segment": [0.5, 2.25], "label": "Archery"}, {"segment": [3, 8.5], "label": "Archery"},
            {"segment": [4, 4], "label": "Archery"},
        ]},
        "bbbbbbbbbbb": {"subset": "validation", "duration": 9.0, "url": "", "annotations": [
            {"segment": [1.0, 2.0], "label": "Zumba"}]},
        "ccccccccccc": {"subset": "validation", "duration": 9.0, "url": "", "annotations": [
            {"segment": [1.0, 2.0], "label": "Zumba"}]},
        "ddddddddddd": {"subset": "testing", "duration": 9.0, "url": "", "annotations": []},
    }  # fmt: skip
    return {"database": database, "taxonomy": [{"nodeName": "Archery"}], "version": "VERSION 1.3", **more}


def test_each_segment_of_activitynet_is_a_sample_of_its_stretch(tmp_path: Path) -> None:
    (tmp_path / JSON).write_text(json.dumps(activitynet()))
    touch(tmp_path, "videos/v_aaaaaaaaaaa.mp4", "videos/bbbbbbbbbbb.mkv")
    annotations = read_annotations(Data(root=tmp_path))
    assert brief(annotations, tmp_path) == {
        "train": [
            ("videos/v_aaaaaaaaaaa.mp4", "Archery", 0.5, 2.25),
            ("videos/v_aaaaaaaaaaa.mp4", "Archery", 3.0, 8.5),
        ],
        "val": [("videos/bbbbbbbbbbb.mkv", "Zumba", 1.0, 2.0)],
    }
    assert annotations.classes == class_names("activitynet200")
    assert "val: 1 of 2 listed videos are not in" in notes(annotations) and "v_ccccccccccc" in notes(annotations)
    assert "1 videos are not used, for they have no labels" in notes(annotations)
    assert "1 segments without extent are left out: aaaaaaaaaaa at 4 s" in notes(annotations)


@pytest.mark.slow
def test_the_whole_of_activitynet_by_its_action_json(shared_data: Path, tmp_path: Path) -> None:
    labels = shared_data / "labels/activitynet13"
    content = json.loads((labels / "anet_anno_action.json").read_text())
    with (labels / "video_info_new.csv").open() as file:
        subsets = {row["video"]: row["subset"] for row in csv.DictReader(file)}
    touch(tmp_path, *(f"{name}.mp4" for name in content))
    annotations = read_annotations(Data(root=tmp_path, splits=labels))
    expected = Counter(
        (subsets[name], item["label"])
        for name, entry in content.items()
        for item in entry["annotations"]
        if item["segment"][0] < item["segment"][1]
    )
    found = {"train": "training", "val": "validation"}
    assert expected == Counter(
        (found[split], annotations.classes[sample.label])
        for split, samples in annotations.splits.items()
        for sample in samples
    )
    assert "12 segments without extent" in notes(annotations)


def test_real_stretches_of_activitynet(shared_data: Path) -> None:
    data = Data(
        root=shared_data / "clips/activitynet", train=shared_data / "labels/activitynet13/anet_anno_action.json"
    )
    annotations = read_annotations(data)
    (lifting,) = (s for s in annotations.splits["val"] if annotations.classes[s.label] == "Clean and jerk")
    assert lifting.path.name == "v_GGSY1Qvo990.mp4"
    assert probe(lifting.video).frames == pytest.approx((16.198647 - 5.823598) * 19.62, abs=1.01)


def test_frame_folders_of_activitynet_have_the_rate_of_their_extraction(tmp_path: Path) -> None:
    rows = ["v_aaaaaaaaaaa,40,4.0,10,9.5,training,40", "v_bbbbbbbbbbb,40,4.0,10,9.5,validation,40"]
    (tmp_path / "video_info_new.csv").write_text(
        "video,numFrame,seconds,fps,rfps,subset,featureFrame\n" + "\n".join(rows) + "\n"
    )
    segment = {"duration_second": 4.0, "annotations": [{"segment": [1.0, 2.0], "label": "Archery"}]}
    content = {"v_aaaaaaaaaaa": segment, "v_bbbbbbbbbbb": segment}
    (tmp_path / "anet_anno_action.json").write_text(json.dumps(content))
    for name in content:
        pictures(tmp_path / "rawframes" / name, 40)
    (tmp_path / "rawframes/v_bbbbbbbbbbb/fps").write_text("20")
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.notes == []
    (first,), (second,) = annotations.splits["train"], annotations.splits["val"]
    assert (first.fps, second.fps) == (9.5, 20.0)
    assert read_frames(second.video, [0]).mean() == pytest.approx(6 * 20, abs=1.5)
    assert read_annotations(Data(root=tmp_path, fps=15)).splits["train"][0].fps == 15


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (activitynet(version="VERSION 1.2"), r"v1-3.min.json: its version is 'VERSION 1.2', with other classes"),
        ({"database": [], "taxonomy": [], "version": "1.3"}, "database is a list; ActivityNet's has an object"),
        (activitynet(database={"a": {"subset": "training"}}), "a has no list of annotations; wanted is"),
        (activitynet(database={"a": {"subset": "x", "annotations": []}}), "a has the subset 'x', but allowed are"),
        (
            activitynet(database={"a": {"subset": "training", "annotations": [{"label": "Archery"}]}}),
            "a has the annotation {'label': 'Archery'}; wanted is",
        ),
        (
            activitynet(),
            "no video that .* lists with a label is in .*: looked for v_aaaaaaaaaaa.* and aaaaaaaaaaa\\.\\*",
        ),
    ],
)
def test_activitynet_of_another_form_or_version(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / JSON).write_text(json.dumps(content))
    assert re.search(message, refused(root=tmp_path))


def kinetics(*rows: str) -> str:
    return "label,youtube_id,time_start,time_end,split,is_cc\n" + "\n".join(rows) + "\n"


def test_kinetics_as_cvdf_unpacks_it_with_its_replacements(tmp_path: Path, clips: dict[int, Path]) -> None:
    lay(tmp_path, clips[1], "val/bbbbbbbbbbb_000004_000014.mp4", "train/ccccccccccc_000000_000010.mp4")
    touch(tmp_path, "train/aaaaaaaaaaa_000001_000011.mp4")  # corrupted
    replaced = "replacement/replacement_for_corrupted_k400/aaaaaaaaaaa_000001_000011.mp4"
    lay(tmp_path, clips[1], replaced)
    for split, rows in {
        "train": ['"arm wrestling",aaaaaaaaaaa,1,11,train,0', "zumba,ccccccccccc,0,10,train,0"],
        "val": ["zumba,bbbbbbbbbbb,4,14,val,0"],
        "test": ["zumba,ddddddddddd,4,14,test,0"],
    }.items():
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/{split}.csv").write_text(kinetics(*rows))
    annotations = read_annotations(Data(root=tmp_path))
    assert brief(annotations, tmp_path) == {
        "train": [(replaced, "arm wrestling", 0, None), ("train/ccccccccccc_000000_000010.mp4", "zumba", 0, None)],
        "val": [("val/bbbbbbbbbbb_000004_000014.mp4", "zumba", 0, None)],
    }
    assert "1 videos are taken from the folder of replacements" in notes(annotations)


def test_whole_kinetics_videos_are_read_at_their_times_and_cut_ones_whole(
    tmp_path: Path, clips: dict[int, Path]
) -> None:
    lay(tmp_path, clips[3], "aaaaaaaaaaa.mp4")
    lay(tmp_path, clips[1], "bbbbbbbbbbb.mp4", "ccccccccccc_000001_000002.mp4")
    rows = ["zumba,aaaaaaaaaaa,1,2,train", "yoga,bbbbbbbbbbb,7,8,train", "yoga,ccccccccccc,1,2,train"]
    (tmp_path / "kinetics700.csv").write_text(kinetics(*rows))
    annotations = read_annotations(Data(root=tmp_path))
    assert brief(annotations, tmp_path)["train"] == [
        ("aaaaaaaaaaa.mp4", "zumba", 1.0, 2.0),
        ("bbbbbbbbbbb.mp4", "yoga", 0, None),
        ("ccccccccccc_000001_000002.mp4", "yoga", 0, None),
    ]
    whole = annotations.splits["train"][0]
    np.testing.assert_array_equal(read_frames(whole.video, range(5)), read_frames(whole.path, range(5, 10)))


def test_few_headers_tell_whole_videos_where_all_are_alike(
    tmp_path: Path, clips: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidstill.data.official import present

    names = [f"{number:03}.mp4" for number in range(100)]
    lay(tmp_path, clips[3], *names)
    opened: list[Path] = []
    measure = present._seconds
    monkeypatch.setattr(present, "_seconds", lambda path: opened.append(path) or measure(path))  # type: ignore[func-returns-value]
    assert uncut({tmp_path / name: 1.0 for name in names}) == {tmp_path / name for name in names}
    assert uncut({tmp_path / name: 2.0 for name in names}) == set()
    assert len(opened) < 100
    assert uncut({tmp_path / name: 1.0 + int(name[:3]) % 2 for name in names}) == {tmp_path / n for n in names[::2]}


def test_the_test_list_of_kinetics700_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\naaaaaaaaaaa,1,11,test\n")
    assert "test.csv: has no column label: the labels of this test list are not published" in refused(
        root=tmp_path, test="test.csv"
    )


def test_archives_of_hmdb51_and_ucf101_unpacked_into_one_folder(tmp_path: Path) -> None:
    hmdb, ucf = tmp_path / "hmdb51", tmp_path / "ucf"
    for label in ("brush_hair", "wave"):
        folder = hmdb / "test_train_splits/testTrainMulti_7030_splits"
        folder.mkdir(parents=True, exist_ok=True)
        files = [f"{source}_{label}_u_nm_np1_ba_goo_0.avi" for source in ("April", "May", "June")]
        (folder / f"{label}_test_split1.txt").write_text(
            "".join(f"{f} {use} \n" for f, use in zip(files, "120", strict=True))
        )
        touch(hmdb, *(f"{label}/{file}" for file in files))
    annotations = read_annotations(Data(root=hmdb))
    assert {split: len(samples) for split, samples in annotations.splits.items()} == {"train": 2, "test": 2}
    assert find_problems(annotations) == []
    touch(ucf, *(f"UCF-101/{c}/v_{c}_g{g:02}_c01.avi" for c in ("Archery", "Biking") for g in (1, 8)))
    (ucf / "ucfTrainTestlist").mkdir()
    (ucf / "ucfTrainTestlist/classInd.txt").write_text("1 Archery\n2 Biking\n")
    (ucf / "ucfTrainTestlist/trainlist01.txt").write_text(
        "Archery/v_Archery_g08_c01.avi 1\nBiking/v_Biking_g08_c01.avi 2"
    )
    (ucf / "ucfTrainTestlist/testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\nBiking/v_Biking_g01_c01.avi")
    annotations = read_annotations(Data(root=ucf))
    assert {split: len(samples) for split, samples in annotations.splits.items()} == {"train": 2, "test": 2}
    assert find_problems(annotations) == []
    (note,) = read_annotations(Data(root=ucf / "UCF-101", split="group", folds=2)).notes
    assert note.startswith("UCF101 without its official lists") and str(ucf / "ucfTrainTestlist") in note


def test_a_group_of_the_25_of_ucf50_is_left_out(tmp_path: Path) -> None:
    names = [
        f"{c}/v_{c}_g{g:02}_c0{n}.avi" for c in ("BaseballPitch", "Basketball") for g in range(1, 26) for n in (1, 2)
    ]
    touch(tmp_path, *names)
    assert "protocol leaves each of its 25 groups out" in notes(read_annotations(Data(root=tmp_path)))
    left_out = []
    for fold in (1, 2, 3, 24, 25):
        annotations = read_annotations(Data(root=tmp_path, split="group", folds=25, fold=fold, group=r"_(g\d+)_"))
        assert annotations.notes == []
        (group,) = {sample.group for sample in annotations.splits["val"]}
        left_out.append(group)
        assert len(annotations.splits["val"]) == 4
    assert len(set(left_out)) == 5


def test_ucf11_has_folders_of_groups_in_its_classes(tmp_path: Path) -> None:
    names = [f"{c}/v_{p}_{g:02}/v_{p}_{g:02}_01.mpg" for c, p in (("biking", "biking"), ("basketball", "shooting"))
             for g in range(1, 6)]  # fmt: skip
    touch(tmp_path, *names, "biking/Annotation/v_biking_01_01.xgtf")
    annotations = read_annotations(Data(root=tmp_path, split="group"))
    assert annotations.classes == ["basketball", "biking"] and sum(map(len, annotations.splits.values())) == 10
    assert {s.group for s in annotations.splits["val"]}.isdisjoint(s.group for s in annotations.splits["train"])


def test_the_whole_of_kth_by_its_ranges(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "labels/kth/00sequences.txt"
    shutil.copy(source, tmp_path)
    names = [
        line.split()[0]
        for line in source.read_text().splitlines()
        if line.startswith("person") and "missing" not in line
    ]
    touch(tmp_path, *(f"{name.split('_')[1]}/{name}_uncomp.avi" for name in names))
    annotations = read_annotations(Data(root=tmp_path))
    assert sum(map(len, annotations.splits.values())) == 2391  # as its makers count
    persons = {split: {s.group for s in samples} for split, samples in annotations.splits.items()}
    assert {split: len(found) for split, found in persons.items()} == {"train": 8, "val": 8, "test": 9}
    assert not any("leak" in str(problem) for problem in find_problems(annotations))


def test_a_range_of_kth_is_these_frames(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "clips/kth/boxing/person01_boxing_d1_uncomp.avi", tmp_path)
    (tmp_path / "00sequences.txt").write_text("person01_boxing_d1\t\tframes\t1-95, 96-185, 186-245, 246-360\n")
    samples = read_annotations(Data(root=tmp_path)).splits["val"]
    assert [probe(sample.video).frames for sample in samples] == [95, 90, 60, 115]
    np.testing.assert_array_equal(
        read_frames(samples[2].video, [0, 59]), read_frames(samples[2].path, [185, 244])
    )  # fmt: skip


HVU = "Tags,youtube_id,time_start,time_end\n"


@pytest.mark.parametrize("tables", [("HVU_Train_V1.0.csv", "HVU_Val_V1.0.csv"), ("hvu_train.csv", "hvu_val.csv")])
def test_tags_of_hvu(tmp_path: Path, clips: dict[int, Path], tables: tuple[str, str]) -> None:
    # as the makers' downloader calls a clip and as OpenMMLab's does; whole; gone
    lay(tmp_path, clips[1], "videos/aaaaaaaaaaa_000005_000006_.mp4", "videos/bbbbbbbbbbb_000057_000067.mp4")
    lay(tmp_path, clips[3], "videos/ccccccccccc.mp4")
    rows = ["yoga|room,aaaaaaaaaaa,5.7,6.7", "zumba|room|floor,bbbbbbbbbbb,5.7,6.7", "yoga,ddddddddddd,0.0,1.0"]
    (tmp_path / tables[0]).write_text(HVU + "\n".join(rows) + "\n")
    (tmp_path / tables[1]).write_text(HVU + "yoga,ccccccccccc,0.5,1.5\n")
    assert refused(root=tmp_path) == "HVU has several tags for a video: set data.multi_label"
    annotations = read_annotations(Data(root=tmp_path, multi_label=True))
    assert annotations.classes == ["floor", "room", "yoga", "zumba"]
    assert [s.labels for s in annotations.splits["train"]] == [(2, 1), (3, 1, 0)]
    assert brief(annotations, tmp_path)["val"] == [("videos/ccccccccccc.mp4", "yoga", 0.5, 1.5)]
    assert "ddddddddddd" in notes(annotations)
    (tmp_path / "HVU_Tags_Categories_V1.0.csv").write_text(
        "Tag,Category\nzumba,action\nyoga,action\nroom,scene\nfloor,scene\n"
    )
    assert read_annotations(Data(root=tmp_path, multi_label=True)).classes == ["zumba", "yoga", "room", "floor"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("yoga,aaaaaaaaaaa,x,6", "line 2: 'x' to '6' are no seconds"),
        ("yoga,aaaaaaaaaaa,7,6", "line 2: wanted are tags, an id, and an end after the start"),
        (",aaaaaaaaaaa,5,6", "line 2: wanted are tags, an id"),
        ("yoga,aaaaaaaaaaa,5,6", "looked for aaaaaaaaaaa_000005_000006.mp4 and aaaaaaaaaaa.mp4 at any depth"),
    ],
)
def test_hvu_that_is_not_understood(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "HVU_Train_V1.0.csv").write_text(HVU + row + "\n")
    assert message in refused(root=tmp_path, multi_label=True)


CHARADES = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"


def charades(root: Path, *actions: str) -> None:
    folder = root / "Charades"
    folder.mkdir(exist_ok=True)
    (folder / "Charades_v1_classes.txt").write_text("c000 Holding some clothes\nc001 Putting clothes somewhere\n")
    for split in ("train", "test"):
        rows = [
            f'{split[:2].upper()}{number}GV,HR43,Kitchen,6,7,Yes,"Cooks, then; eats.",food,She eats.,{text},24.83\n'
            for number, text in enumerate(actions)
        ]
        (folder / f"Charades_v1_{split}.csv").write_text(CHARADES + "".join(rows))


def test_charades_has_the_classes_of_all_actions_of_a_video(tmp_path: Path) -> None:
    charades(tmp_path, "c001 11.90 21.20;c000 0.00 12.60;c001 22.00 23.00", "c000 0.00 2.00", "")
    touch(tmp_path, *(f"Charades_v1_480/{s}{number}GV.mp4" for s in ("TR", "TE") for number in range(3)))
    assert refused(root=tmp_path) == "Charades has several actions in a video: set data.multi_label"
    annotations = read_annotations(Data(root=tmp_path, multi_label=True))
    assert annotations.classes == ["Holding some clothes", "Putting clothes somewhere"]
    assert [[s.labels for s in samples] for samples in annotations.splits.values()] == [[(1, 0), (0,)]] * 2
    assert not any(s.video.is_stretch for samples in annotations.splits.values() for s in samples)
    assert notes(annotations) == "2 listed videos have no action and are left out"


def test_charades_that_is_not_understood(tmp_path: Path) -> None:
    charades(tmp_path, "c000 0.00 2.00;c157 1.0 2.0")
    assert "Charades_v1_train.csv line 2: 'c157 1.0 2.0' is no action; wanted is c092" in refused(
        root=tmp_path, multi_label=True
    )
    (tmp_path / "Charades/Charades_v1_classes.txt").unlink()
    assert "Charades_v1_classes.txt: the class names of Charades" in refused(root=tmp_path, multi_label=True)


def database(nested: bool) -> dict[str, object]:
    videos = {"training": {"v_A_g01": "A", "v_B_g01": "B", "gone": "B"}, "validation": {"v_A_g02": "A"}}
    entries = {
        subset: {name: {"annotations": {"label": label}, "n_frames": 9} for name, label in labels.items()}
        for subset, labels in videos.items()
    }
    if not nested:
        entries = {n: {"subset": subset, **e} for subset, found in entries.items() for n, e in found.items()}
        entries["held out"] = {"subset": "testing", "annotations": {}}
    return {"labels": ["B", "A"], "database": entries}


@pytest.mark.parametrize("nested", [False, True])
def test_lists_of_3d_resnets_with_frames(tmp_path: Path, nested: bool) -> None:
    for name in ("jpg/A/v_A_g01", "jpg/B/v_B_g01", "jpg/A/v_A_g02"):
        pictures(tmp_path / name, 9, "image_{:05d}.jpg")
        (tmp_path / name / "n_frames").write_text("9")
    for fold in (1, 2, 3):
        (tmp_path / f"ucf101_0{fold}.json").write_text(json.dumps(database(nested)))
    annotations = read_annotations(Data(root=tmp_path, fold=2, fps=25))
    assert annotations.classes == ["B", "A"]
    assert brief(annotations, tmp_path) == {
        "train": [("jpg/A/v_A_g01", "A", 0, None), ("jpg/B/v_B_g01", "B", 0, None)],
        "val": [("jpg/A/v_A_g02", "A", 0, None)],
    }
    assert {s.frames for samples in annotations.splits.values() for s in samples} == {9}
    assert "1 of 3 listed videos are not in" in notes(annotations) and "B/gone" in notes(annotations)
    assert ("1 videos are not used, for they have no label" in notes(annotations)) == (not nested)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"labels": {"A": 0}, "database": {"v": {"subset": "training"}}},
            "list.json: has no list of labels; wanted is",
        ),
        ({"labels": ["A"], "database": {"v": {"subset": "x"}}}, "v has no subset training, validation or testing"),
        ({"labels": ["A"], "database": {"v": {"subset": "training", "annotations": [3]}}}, "v has the annotations [3]"),
        ({"labels": ["A"], "database": ["subset"]}, "database is no object"),
    ],
)
def test_lists_of_3d_resnets_that_are_not_understood(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "list.json").write_text(json.dumps(content))
    assert message in refused(root=tmp_path)


def test_several_lists_of_3d_resnets_and_none_of_the_fold(tmp_path: Path) -> None:
    for name in ("kinetics.json", "hmdb51_1.json"):
        (tmp_path / name).write_text(json.dumps(database(nested=False)))
    assert "hmdb51_1.json, kinetics.json are 2 lists, of which 0 are of data.fold 2: give one as data.train" in refused(
        root=tmp_path, fold=2
    )


def test_lists_of_openmmlab_lead_to_the_folders_of_its_tools(tmp_path: Path) -> None:
    for split in ("train", "val"):
        names = [f"{c}/{split}{n}.mp4" for n in (1, 2) for c in ("arm_wrestling", "zumba")]
        touch(tmp_path, *(f"videos_{split}/{name}" for name in names))
        lines = [f"{name} {number % 2}\n" for number, name in enumerate(names)]
        (tmp_path / f"kinetics400_{split}_list_videos.txt").write_text("".join(lines))
        frames = [line.replace(".mp4", " 300") for line in lines]
        (tmp_path / f"kinetics400_{split}_list_rawframes.txt").write_text("".join(frames))
    expected = [(f"videos_val/{c}/val{n}.mp4", c, 0, None) for n in (1, 2) for c in ("arm_wrestling", "zumba")]
    found = read_annotations(Data(root=tmp_path))
    assert set(found.splits) == {"train", "val"} and brief(found, tmp_path)["val"] == expected
    given = read_annotations(
        Data(
            root=tmp_path, train=Path("kinetics400_train_list_videos.txt"), val=Path("kinetics400_val_list_videos.txt")
        )
    )
    assert brief(given, tmp_path) == brief(found, tmp_path)
    assert find_problems(found) == []


def test_lists_of_openmmlab_by_fold_with_frames(tmp_path: Path) -> None:
    for fold in (1, 2):
        for split in ("train", "val"):
            names = [f"{c}/{split}{fold}" for c in ("brush_hair", "wave")]
            for name in names:
                pictures(tmp_path / "rawframes" / name, 3)
            lines = [f"{name} 3 {label}\n" for label, name in enumerate(names)]
            (tmp_path / f"hmdb51_{split}_split_{fold}_rawframes.txt").write_text("".join(lines))
    annotations = read_annotations(Data(root=tmp_path, fold=2, fps=30))
    assert brief(annotations, tmp_path)["train"] == [
        ("rawframes/brush_hair/train2", "brush_hair", 0, None),
        ("rawframes/wave/train2", "wave", 0, None),
    ]
    assert find_problems(annotations) == []
    assert "no list of OpenMMLab there for data.fold 4" in refused(root=tmp_path, fold=4)


@pytest.mark.parametrize("fps", [None, 30.0, 29.97])
def test_lists_with_offsets_are_stretches_of_these_frames(tmp_path: Path, fps: float | None) -> None:
    for name in ("a", "b"):
        pictures(tmp_path / "rawframes" / name, 40)
    (tmp_path / "anet_train_clip.txt").write_text("a 0 20 0\na 20 13 1\nb 7 33 1\n")
    samples = read_annotations(Data(root=tmp_path, fps=fps)).splits["train"]
    assert [probe(sample.video).frames for sample in samples] == [20, 13, 33]
    for sample, offset, count in zip(samples, (0, 20, 7), (20, 13, 33), strict=True):
        levels = read_frames(sample.video, [0, count - 1]).mean((1, 2, 3))
        assert levels == pytest.approx([6 * offset, 6 * (offset + count - 1)], abs=1.5)


def test_frame_lists_of_several_labels_have_no_offsets(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pictures(tmp_path / name, 4)
    (tmp_path / "train.csv").write_text("a 4 0 1\nb 4 1 0\n")
    annotations = read_annotations(Data(root=tmp_path, multi_label=True, fps=25))
    assert [(s.labels, s.frames, s.video.is_stretch) for s in annotations.splits["train"]] == [
        ((0, 1), 4, False),
        ((1, 0), 4, False),
    ]


def test_omnisource_trains_on_all_that_is_video(tmp_path: Path) -> None:
    lists = tmp_path / "annotations"
    for folder in ("kinetics_200", "insvideo_200", "kinetics_raw_200", "webimage_200"):
        (lists / folder).mkdir(parents=True)
    (lists / "k200_actions.txt").write_text("abseiling\nzumba\n")
    (lists / "kinetics_200/k200_train.txt").write_text("aaaaaaaaaaa.mp4 1\n")
    (lists / "kinetics_200/k200_val.txt").write_text("bbbbbbbbbbb.mp4 0\n")
    (lists / "insvideo_200/slowonly_8x8_insvideo_200_wodup.txt").write_text("000/abseil/B00arxogubl.mp4 0\n")
    pieces = [{"video_dir": "pref_/___dTOdxzXY", "label": 1, "num_clips": 7, "positive_clip_inds": [0, 3]}]
    source = lists / "kinetics_raw_200/slowonly_8x8_kinetics_raw_200.json"
    source.write_text(json.dumps(pieces))
    names = [
        "kinetics_200_train/aaaaaaaaaaa.mp4",
        "insvideo_200/000/abseil/B00arxogubl.mp4",
        "kinetics_raw_200_train/pref_/___dTOdxzXY/part_0.mp4",
        "kinetics_raw_200_train/pref_/___dTOdxzXY/part_3.mp4",
    ]
    touch(tmp_path, *names, "kinetics_200_val/bbbbbbbbbbb.mp4")
    annotations = read_annotations(Data(root=tmp_path))
    labels = ["zumba", "abseiling", "zumba", "zumba"]
    assert brief(annotations, tmp_path) == {
        "train": [(name, label, 0, None) for name, label in zip(names, labels, strict=True)],
        "val": [("kinetics_200_val/bbbbbbbbbbb.mp4", "abseiling", 0, None)],
    }
    assert "1 of k200_train, 1 of insvideo_200, 2 of kinetics_raw_200_train" in notes(annotations)
    assert "are no videos" in notes(annotations)
    source.write_text(json.dumps([{"video_dir": "x"}]))
    assert 'wanted is [{"video_dir", "label", "num_clips", "positive_clip_inds": […]}' in refused(root=tmp_path)
