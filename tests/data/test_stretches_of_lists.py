"""Lists whose samples are stretches of videos, and lists of frame folders: from the list to the batch."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidstill.config import Augment, Clip, Data, Run
from vidstill.data.annotations import find_problems, read_annotations
from vidstill.data.check import check_data
from vidstill.data.dataset import TrainClips
from vidstill.data.lists import read_rows
from vidstill.data.rows import stem, videos_in, walk
from vidstill.data.views import read_views
from vidstill.video.decode import Video, read_frames
from vidstill.video.encode import write_video

CLIP = Clip(frames=4, interval=2, size=32, sampling="dense")


@pytest.fixture
def long_videos(tmp_path: Path) -> Path:
    """Two videos of 4 s at 10 fps whose grey level is six times the frame's number."""
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", (np.full((48, 64, 3), 6 * n, np.uint8) for n in range(40)), 10)
    return tmp_path


def write(folder: Path, text: str) -> Data:
    (folder / "all.csv").write_text(text)
    return Data(root=folder / "all.csv", folds=2)


def test_samples_are_the_stretches(long_videos: Path) -> None:
    data = write(
        long_videos, "path,label,start,end\na.mp4,walk,0,1.5\na.mp4,run,1.5,\nb.mp4,walk,0:00.5,00:00:02\nb.mp4,run,,\n"
    )
    annotations = read_annotations(data)
    samples = sorted((s for split in annotations.splits.values() for s in split), key=lambda s: str(s.video))
    root = long_videos
    assert [str(s.video) for s in samples] == [
        f"{root}/a.mp4#t=0,1.5",
        f"{root}/a.mp4#t=1.5,",
        f"{root}/b.mp4",
        f"{root}/b.mp4#t=0.5,2",
    ]
    clips = TrainClips(samples, CLIP, Augment(crop="scaled", scales=(32, 32), flip=0, jitter=0, grey=0), seed=0)
    for epoch in range(5):
        levels = clips.__getitems__([(epoch, index) for index in range(4)])["clips"].float().mean((2, 3, 4)) / 6
        for (first, last), shown in zip(((0, 14), (15, 39), (0, 39), (5, 19)), levels.round(), strict=True):
            assert first <= shown.min() <= shown.max() <= last
    views = read_views(samples[1].video, CLIP, clips=3)
    assert (views.pixels().float().mean((1, 2, 3, 4)) / 6).min() >= 15


@pytest.mark.parametrize(
    "header",
    [
        "path,label,start,end",
        "label,path,t-start,t-end",
        "video,class,start_time,end_time",
        "filename;label;time_start;time_end",
        "path,label,begin,stop",
    ],
)
def test_names_of_the_columns(tmp_path: Path, header: str) -> None:
    separator = ";" if ";" in header else ","
    first = re.split("[,;]", header)
    fields = {"path": "a.mp4", "video": "a.mp4", "filename": "a.mp4", "label": "walk", "class": "walk"}
    line = separator.join(fields.get(name, "1.5" if re.search("start|begin", name) else "2:03.25") for name in first)
    (tmp_path / "l.csv").write_text(f"{header}\n{line}\n")
    (row,) = read_rows(tmp_path / "l.csv", tmp_path)
    assert (row.name, row.label, row.start, row.end) == ("a.mp4", "walk", 1.5, 123.25)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("3,2", r"line 2: a stretch from 3 to 2 s: the end must come after the start"),
        ("x,2", r"line 2: 'x' is no time: give seconds \(12\.5\) or h:mm:ss\.ff"),
        ("-1,2", r"line 2: '-1' is no time"),
        ("1:75,200", r"line 2: '1:75' is no time"),
        ("1,1", "the end must"),
    ],
)
def test_times_that_are_none(tmp_path: Path, times: str, message: str) -> None:
    (tmp_path / "l.csv").write_text(f"path,label,start,end\na.mp4,walk,{times}\n")
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "l.csv", tmp_path)


@pytest.mark.parametrize("columns", ["start_frame,end_frame", "Begin Frame,n", "start,duration"])
def test_columns_that_would_be_taken_for_nothing(tmp_path: Path, columns: str) -> None:
    (tmp_path / "l.csv").write_text(f"path,label,{columns}\na.mp4,walk,5,9\n")
    with pytest.raises(ValueError, match=r"l\.csv line 1: column .* stretches are given in seconds"):
        read_rows(tmp_path / "l.csv", tmp_path)


def test_decimal_commas_are_no_separators(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path;label;start;end\na.mp4;walk;0,5;1,5\n")
    with pytest.raises(ValueError, match=r"line 2: '0,5' is no time"):
        read_rows(tmp_path / "l.csv", tmp_path)


def test_stretches_of_a_file_stay_in_one_part(long_videos: Path) -> None:
    for name in "cdefgh":
        (long_videos / f"{name}.mp4").symlink_to(long_videos / "a.mp4")
    lines = [
        f"{name}.mp4,{label},{start},{start + 1}" for name in "abcdefgh" for label in ("x", "y") for start in (0, 2)
    ]
    annotations = read_annotations(write(long_videos, "path,label,start,end\n" + "\n".join(lines)))
    parts = [{sample.path.name for sample in samples} for samples in annotations.splits.values()]
    assert len(parts) == 2
    assert not parts[0] & parts[1]


def test_what_check_says_of_stretches(long_videos: Path, tmp_path: Path) -> None:
    data = write(
        long_videos,
        "path,label,start,end\na.mp4,x,0,2\na.mp4,y,1,3\nb.mp4,x,3,9\nb.mp4,y,5,6\nb.mp4,x,1,1.2\na.mp4,y,0,2\n",
    )
    problems = [str(problem) for problem in find_problems(read_annotations(data))]
    assert any("overlap" in p and "a.mp4#t=0,2 and " in p for p in problems)
    assert any("listed with different labels" in p and "a.mp4#t=0,2 (x and y)" in p for p in problems)
    found = check_data(Run(data=data, clip=CLIP), workers=1, out=tmp_path / "broken.csv").findings
    said = {str(f.sample.video).rpartition("/")[2]: (f.kind, f.reason) for f in found}
    assert said == {
        "b.mp4#t=5,6": ("broken", "the stretch begins at 5 s, the video ends after 4.00 s"),
        "b.mp4#t=3,9": ("beyond", "the stretch ends at 9 s, the video after 4.00 s"),
        "b.mp4#t=1,1.2": ("short", "2 frames, a clip takes 7"),
    }


def frames(folder: Path, count: int = 12) -> Path:
    folder.mkdir(parents=True)
    for n in range(count):
        Image.fromarray(np.full((48, 64, 3), 10 * n, np.uint8)).save(folder / f"img_{n + 1:05}.jpg")
    return folder


def test_class_folders_of_frame_folders(tmp_path: Path) -> None:
    for name in ("walk/v1.5", "walk/b", "run/c", "run/d"):
        frames(tmp_path / name)
    assert [p.name for p in videos_in(tmp_path / "walk")] == ["b", "v1.5"]
    assert [stem(p) for p in walk(tmp_path)] == ["c", "d", "b", "v1.5"]
    annotations = read_annotations(Data(root=tmp_path, folds=2, fps=12))
    assert annotations.classes == ["run", "walk"]
    assert not find_problems(annotations)
    (sample, *_) = annotations.splits["train"]
    assert sample.video.fps == 12
    noted = read_annotations(Data(root=tmp_path, folds=2)).notes
    assert noted == ["4 frame folders without a rate: 25 fps are assumed; set data.fps"]


def test_rawframe_lists(tmp_path: Path) -> None:
    for name in "ab":
        frames(tmp_path / "rgb" / name)
    (tmp_path / "train.csv").write_text("rgb/a 12 0\nrgb/b 14 1\n")
    data = Data(root=tmp_path, fps=10)
    samples = read_annotations(data).splits["train"]
    assert [(s.path.name, s.label, s.frames, s.fps) for s in samples] == [("a", 0, 12, 10), ("b", 1, 14, 10)]
    found = check_data(Run(data=data, clip=Clip(frames=4)), workers=1, out=tmp_path / "broken.csv")
    assert [(f.kind, f.reason) for f in found.findings] == [("harmless", "12 frames decode, 14 are declared")]


def test_a_damaged_frame_folder_is_found(tmp_path: Path) -> None:
    for name in ("walk/a", "walk/b", "run/c", "run/d"):
        frames(tmp_path / name)
    (tmp_path / "walk" / "a" / "img_00003.jpg").unlink()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "run" / "c" / "img_00007.jpg")
    found = check_data(Run(data=Data(root=tmp_path, folds=2, fps=10)), workers=1, out=tmp_path / "o.csv").findings
    said = {f.sample.path.name: (f.kind, f.reason) for f in found if f.kind != "short"}
    assert said["a"][0] == "broken"
    assert "1 of the frames up to img_00012.jpg are missing, the first is number 3" in said["a"][1]
    assert said["c"][0] == "damaged"
    assert "is 20x20, the first frame is 64x48" in said["c"][1]


def test_a_stretch_of_a_frame_folder(tmp_path: Path) -> None:
    folder = frames(tmp_path / "a")
    levels = read_frames(Video(folder, 0.2, 0.6, fps=10), range(4)).mean((1, 2, 3)) / 10
    assert levels.round().tolist() == [2, 3, 4, 5]
