"""Folders of numbered pictures, read as videos; Pillow decodes what is compared with."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from making import scene
from PIL import Image

from vidstill.video import frame_folder
from vidstill.video.decode import (
    FramesMissing,
    Video,
    VideoError,
    count_frames,
    iter_frames,
    probe,
    read_frames,
)
from vidstill.video.frame_folder import is_frame_folder

CLIP = scene(12, 96, 130)


def write(folder: Path, clip: np.ndarray = CLIP, name: str = "img_{:05}.jpg", first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(clip, first):
        Image.fromarray(pixels).save(folder / name.format(number))
    return folder


def plain(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "name", ["img_{:05}.jpg", "image_{:05}.jpg", "{:05}.jpg", "frame{:06}.jpeg", "{:04}.png", "{}.png", "{:03}.bmp"]
)
def test_every_way_of_naming(tmp_path: Path, name: str, first: int) -> None:
    folder = write(tmp_path / "v1.5", name=name, first=first)
    assert is_frame_folder(folder)
    info = probe(folder)
    assert (info.frames, info.height, info.width, info.fps) == (12, 96, 130, 25)
    assert probe(Video(folder, fps=12)).seconds == 1
    read = read_frames(folder, range(12))
    expected = np.stack([np.asarray(Image.open(folder / name.format(n + first)).convert("RGB")) for n in range(12)])
    assert np.array_equal(read, expected)
    assert np.array_equal(read_frames(folder, [7, 0, 7]), expected[[7, 0, 7]])
    assert np.array_equal(np.stack([frame.pixels for frame in iter_frames(folder)]), expected)
    assert count_frames(folder) == 12


def test_only_the_wanted_pictures_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, opened = write(tmp_path / "a"), list[str]()
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or read_bytes(path))
    read_frames(folder, [3, 8, 3])
    assert opened == ["img_00004.jpg", "img_00009.jpg"]


@pytest.mark.parametrize("size", [(24, 24), (10, 14), (40, 50), (96, 130)])
@pytest.mark.parametrize("box", [(0, 0, 130, 96), (9, 7, 121, 83), (33, 41, 64, 72)])
def test_crops_decoded_smaller_are_those_of_whole_pictures(
    tmp_path: Path, box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    """Against the crop of the whole frame, shrunk by averaging areas, which decoding at a fraction does."""
    folder = write(tmp_path / "a")
    x1, y1, x2, y2 = box
    read = read_frames(folder, [2, 5], box=box, size=size).astype(float)
    crop = plain(folder)[[2, 5], y1:y2, x1:x2]
    shrinks = min((y2 - y1) / size[0], (x2 - x1) / size[1]) >= 2
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    expected = np.stack([cv2.resize(frame, size[::-1], interpolation=how) for frame in crop]).astype(float)
    assert np.abs(read - expected).mean() < (6 if shrinks else 0.01)


def test_tests_see_the_pixels_of_the_plain_way(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", scene(4, 192, 260))
    expected = [cv2.resize(frame, (65, 48), interpolation=cv2.INTER_LINEAR) for frame in plain(folder)]
    assert np.array_equal(read_frames(folder, range(4), short_side=48), np.stack(expected))
    assert np.array_equal(np.stack([f.pixels for f in iter_frames(folder, short_side=48)]), np.stack(expected))


def test_optical_flow_may_lie_beside_the_frames(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    expected = plain(folder)
    for axis in "xy":
        write(folder, CLIP[:11], f"flow_{axis}_{{:05}}.jpg")
    assert np.array_equal(read_frames(folder, range(12)), expected)


def test_a_gap_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "img_00004.jpg").unlink()
    (folder / "img_00005.jpg").unlink()
    with pytest.raises(VideoError, match=r"2 of the frames up to img_00012\.jpg are missing, the first is number 4"):
        probe(folder)


def test_frames_that_begin_late_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"the first frame is img_00009\.jpg: frames are counted from 0 or 1"):
        read_frames(write(tmp_path / "a", first=9), [0])


def test_two_series_are_refused(tmp_path: Path) -> None:
    folder = write(write(tmp_path / "a"), name="image_{:05}.jpg")
    with pytest.raises(VideoError, match="several series of pictures"):
        probe(folder)


def test_one_frame_twice_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    Image.fromarray(CLIP[0]).save(folder / "img_1.jpg")
    with pytest.raises(VideoError, match="are one frame"):
        probe(folder)


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    Image.fromarray(CLIP[5, :90]).save(folder / "img_00006.jpg")
    with pytest.raises(VideoError, match=r"img_00006\.jpg: is 130x90, the first frame is 130x96"):
        read_frames(folder, [5])
    with pytest.raises(FramesMissing) as missing:
        count_frames(folder)
    assert missing.value.available == 5


@pytest.mark.parametrize("kept", [0, 2, 300, -200])
def test_a_damaged_picture_is_named(tmp_path: Path, kept: int) -> None:
    folder = write(tmp_path / "a")
    picture = folder / "img_00006.jpg"
    picture.write_bytes(picture.read_bytes()[:kept])
    with pytest.raises(VideoError, match=r"img_00006\.jpg: a damaged picture"):
        read_frames(folder, [0, 5])
    assert len(read_frames(folder, [0, 4])) == 2


def test_frames_beyond_the_last(tmp_path: Path) -> None:
    with pytest.raises(FramesMissing, match="holds 12 frames; frame 12 was asked for") as missing:
        read_frames(write(tmp_path / "a"), [0, 12])
    assert missing.value.available == 12


def test_other_folders_are_none(tmp_path: Path) -> None:
    write(tmp_path / "thumbs")
    (tmp_path / "thumbs" / "a.mp4").touch()
    (tmp_path / "empty").mkdir()
    assert not any(map(is_frame_folder, (tmp_path, tmp_path / "thumbs", tmp_path / "empty", tmp_path / "gone")))
    for name in ("thumbs", "empty"):
        with pytest.raises(VideoError, match="is a folder, and holds no numbered pictures"):
            read_frames(tmp_path / name, [0])


def test_folders_are_scanned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a")
    read_frames(folder, [0])
    monkeypatch.setattr(frame_folder.Image, "open", None)  # what a scan would call
    assert len(read_frames(folder, [1])) == 1
