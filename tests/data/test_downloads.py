"""Downloads as people have them: wrapped, side by side, without lists. Each is read right, or is an error that says
what was looked for and what is there; none becomes a few wrong classes."""

from pathlib import Path

import pytest

from vidstill.config import Data
from vidstill.data.annotations import find_problems, read_annotations

UCF_LISTS = {
    "classInd.txt": "1 Archery\n2 Biking\n",
    "trainlist01.txt": "Archery/v_Archery_g08_c01.avi 1\nBiking/v_Biking_g08_c01.avi 2\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\n",
}
UCF = ["Archery/v_Archery_g08_c01.avi", "Biking/v_Biking_g08_c01.avi", "Archery/v_Archery_g01_c01.avi"]


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def write_lists(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in UCF_LISTS.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("lists", "clips"),
    [
        ("ucfTrainTestlist", "UCF-101/{}"),
        ("ucfTrainTestlist", "videos/{}"),
        ("UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "UCF101/UCF-101/{}"),  # each archive in its folder
        ("UCF101/ucfTrainTestlist", "UCF101/UCF-101/{}"),  # all in one folder
        ("UCF101/splits/ucfTrainTestlist", "UCF101/UCF-101/{}"),
        (".", "{}"),
    ],
)
def test_ucf101_however_it_was_unpacked(tmp_path: Path, lists: str, clips: str) -> None:
    write_lists(tmp_path / lists)
    write(tmp_path, *(clips.format(name) for name in UCF))
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["Archery", "Biking"]
    assert [sample.path for samples in annotations.splits.values() for sample in samples] == [
        tmp_path / clips.format(name) for name in UCF
    ]
    assert find_problems(annotations) == []


def test_flat_videos_beside_lists_are_those_of_the_lists(tmp_path: Path) -> None:
    write_lists(tmp_path / "ucfTrainTestlist")
    write(tmp_path, *(f"videos/{Path(name).name}" for name in UCF))
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["Archery", "Biking"] and find_problems(annotations) == []


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
@pytest.mark.parametrize(
    "folders",
    [("videos",), ("videos", "ucfTrainTestlist"), ("rgb", "flow"), ("train", "test"), ("train", "validation", "clips")],
)
def test_folders_that_are_no_classes(tmp_path: Path, folders: tuple[str, ...], suffix: str) -> None:
    """Lists that are missing, or of an unknown kind."""
    for folder in folders:
        files = ["read.me"] if folder == "ucfTrainTestlist" else [f"{n}.{suffix}" for n in range(4)]
        write(tmp_path, *(f"{folder}/{file}" for file in files))
    with pytest.raises(ValueError, match=rf"its videos lie in .*{folders[0]}/.* are no names of classes") as caught:
        read_annotations(Data(root=tmp_path))
    assert "Looked for" in str(caught.value) and "\n" not in str(caught.value)
    beside = "ucfTrainTestlist" if "ucfTrainTestlist" in folders else "nothing"
    assert str(caught.value).endswith(f"beside them lies {beside}")


@pytest.mark.parametrize("format", ["auto", "folders"])
@pytest.mark.parametrize("wrap", [".", "hmdb51_org", "data/hmdb51/clips"])
def test_class_folders_in_the_folder_of_an_archive(tmp_path: Path, wrap: str, format: str) -> None:
    write(tmp_path, *(f"{wrap}/{label}/{n}.avi" for label in ("wave", "walk") for n in range(5)), "readme.txt")
    annotations = read_annotations(Data(root=tmp_path, format=format))
    assert annotations.classes == ["walk", "wave"] and len(annotations.splits["train"]) == 8
    assert all(sample.path.is_file() for sample in annotations.splits["val"])


def test_lists_in_the_folder_of_an_archive(tmp_path: Path) -> None:
    write(tmp_path, "set/a.mp4", "set/b.mp4", "set/c.mp4")
    (tmp_path / "set/train.csv").write_text("a.mp4,walk\nb.mp4,wave\n")
    (tmp_path / "set/val.csv").write_text("c.mp4,walk\n")
    annotations = read_annotations(Data(root=tmp_path))
    assert [sample.path for sample in annotations.splits["train"]] == [tmp_path / f"set/{n}.mp4" for n in "ab"]


def test_a_wrapping_folder_beside_videos_is_none(tmp_path: Path) -> None:
    write(tmp_path, "loose.mp4", "set/walk/1.mp4", "set/wave/1.mp4")
    with pytest.raises(ValueError, match=r"cannot tell .*: class folders lie in set/: give one of these as data\.root"):
        read_annotations(Data(root=tmp_path))


def test_lists_and_extras_beside_class_folders_are_no_classes(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{n}.avi" for label in ("wave", "walk") for n in range(5)), "annotations/boxes.json")
    annotations = read_annotations(Data(root=tmp_path))
    assert annotations.classes == ["walk", "wave"]
    assert annotations.notes == ["not taken as classes, for no video lies directly in them: annotations/"]
    (tmp_path / "sit").mkdir()  # empty: a class whose videos are still to come
    assert read_annotations(Data(root=tmp_path)).classes == ["sit", "walk", "wave"]


@pytest.mark.parametrize("archive", ["UCF101.rar", "20bn-jester-v1-00", "k400.tar.gz", "Moments_in_Time_Raw.zip"])
def test_archives_that_were_not_unpacked(tmp_path: Path, archive: str) -> None:
    write(tmp_path, archive)
    with pytest.raises(ValueError, match=rf"cannot tell .*: it holds archives, {archive}: unpack them there"):
        read_annotations(Data(root=tmp_path))
    write_lists(tmp_path / "lists")
    annotations = read_annotations(Data(root=tmp_path))
    problems = [str(problem) for problem in find_problems(annotations)]
    assert problems[0].startswith("train: 2 of 2 videos are missing")
    assert any(f"no video at all is in {tmp_path}: it holds archives, {archive}" in text for text in problems)


@pytest.mark.parametrize("root", ["photos", "photos/walk"])
def test_class_folders_of_loose_pictures(tmp_path: Path, root: str) -> None:
    """What is in them comes before the long list of what was looked for."""
    write(tmp_path, *(f"photos/{name}/{n:05}.jpg" for name in ("run", "walk") for n in range(1, 4)))
    with pytest.raises(ValueError, match=r"are the frames of one video: give each video a folder of frames") as caught:
        read_annotations(Data(root=tmp_path / root))
    assert str(caught.value).index("<class>/<video>/img_00001.jpg") < str(caught.value).index("Looked for")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.csv", "<!DOCTYPE html>\n<html>Sign in</html>\n", "train.csv: a web page, not the file itself"),
        (
            "train.csv",
            "label,youtube_id,time_start,time_end,split\n",
            "csv: lists no labelled video: is it whole",
        ),
        (
            "train.csv",
            'label,youtube_id,time_start,time_end,split\n"run,' + 200_000 * "a",
            "train.csv line 1: .* is a quotation mark left open",
        ),
        ("train.csv", "label,youtube_id\nrun,aaaaaaaaaaa\n", "train.csv: has no column time_start; wanted are label,"),
        ("00sequences.txt", "404: Not Found", "00sequences.txt: lists no labelled video"),
        ("activity_net.v1-3.min.json", "{}", "json: lists no labelled video"),
        ("Diving48_V2_train.json", '[{"vid_name": ', "json line 1: not JSON: .* is it whole"),
    ],
)
def test_downloads_that_are_none(tmp_path: Path, name: str, text: str, message: str) -> None:
    write(tmp_path, "a.mp4")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_annotations(Data(root=tmp_path))


def test_a_table_of_another_kind_beside_the_action_json(tmp_path: Path) -> None:
    write(tmp_path, "v_a.mp4")
    (tmp_path / "anet_anno_action.json").write_text(
        '{"v_a": {"duration_second": 9, "annotations": [{"segment": [1, 2], "label": "Archery"}]}}'
    )
    (tmp_path / "video_info_new.csv").write_text("id,fps\nv_a,25\n")
    with pytest.raises(ValueError, match=r"video_info_new\.csv: has no column video"):
        read_annotations(Data(root=tmp_path))


@pytest.mark.parametrize(("name", "kind"), [("a.mp4", "a video"), ("a.tar.gz", "an archive")])
def test_a_file_that_is_no_list(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"is {kind}: give the folder of the videos, or a list of them"):
        read_annotations(Data(root=tmp_path / name))
