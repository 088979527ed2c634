"""The embedded data set: only motion tells the class, and the same arguments give the same clips."""

import json
from pathlib import Path

import numpy as np
import pytest

from vidstill.data.synthetic import CLASSES, SPLITS, box_mask, displacements, draw_clip, make_synthetic, read_boxes
from vidstill.video.decode import count_frames, probe

FRAMES, SIZE = 12, 24


def test_there_are_at_least_eight_motions() -> None:
    assert len(CLASSES) >= 8
    assert list(CLASSES) == sorted(CLASSES), "the order in which class folders are read"


def test_the_same_arguments_draw_the_same_pixels() -> None:
    one, again, other = (draw_clip("turn", n, frames=4, size=32, seed=3)[0] for n in (5, 5, 6))
    assert (one == again).all()
    assert (one != other).any()


@pytest.mark.parametrize("label", CLASSES)
def test_a_motion_starts_where_the_scene_puts_it_and_moves(label: str) -> None:
    path = displacements(label, 24, np.random.default_rng(0))
    assert (path[0] == 0).all()
    assert np.abs(path).max() > 0.1


def test_reversed_motions_are_each_other_backwards() -> None:
    """Left and right, up and down, grow and shrink differ in the sign of time alone."""
    for one, other in (("move_left", "move_right"), ("move_up", "move_down"), ("grow", "shrink")):
        a, b = (displacements(label, 10, np.random.default_rng(1)) for label in (one, other))
        np.testing.assert_allclose(a, -b)


def nearest_mean_accuracy(train: np.ndarray, test: np.ndarray, labels: np.ndarray, test_labels: np.ndarray) -> float:
    """A linear classifier in closed form: ridge regression on the class indicators."""
    targets = np.eye(labels.max() + 1)[labels]
    a, b = (np.c_[x, np.ones(len(x))] for x in (train, test))
    weights = np.linalg.solve(a.T @ a + 10 * np.eye(a.shape[1]), a.T @ targets)
    return float((np.argmax(b @ weights, 1) == test_labels).mean())


def test_no_single_frame_tells_the_class_but_motion_does() -> None:
    """The same classifier on one frame and on the way of the brightest spot: chance and far above it."""
    classes, clips = ("move_left", "move_right", "move_up", "move_down"), 60

    def features(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        still, moving, labels = [], [], []
        for label, name in enumerate(classes):
            for number in range(clips):
                pixels, _ = draw_clip(name, number, split=split, frames=FRAMES, size=SIZE)
                grey = pixels.mean(-1) / 255
                still.append(grey[number % FRAMES].reshape(-1))
                weights = np.exp(12 * grey).sum((1, 2), keepdims=True)
                share = np.exp(12 * grey) / weights
                turns = np.exp(2j * np.pi * np.arange(SIZE) / SIZE)
                x, y = (share * turns).sum((1, 2)), (share * turns[:, None]).sum((1, 2))
                steps = [np.angle(z[1:] * z[:-1].conj()) for z in (x, y)]
                moving.append(np.concatenate([np.median(step, keepdims=True) for step in steps]))
                labels.append(label)
        return np.stack(still), np.stack(moving), np.array(labels)

    still, moving, labels = features("train")
    test_still, test_moving, test_labels = features("test")
    chance, videos = 1 / len(classes), len(test_labels)
    band = 3 * np.sqrt(chance * (1 - chance) / videos)
    assert nearest_mean_accuracy(moving * 20, test_moving * 20, labels, test_labels) > 0.6, "the classifier has power"
    assert nearest_mean_accuracy(still, test_still, labels, test_labels) < chance + band


def test_the_state_of_the_moving_shape_is_uniform_in_every_class() -> None:
    """Where it is and how large it is in a late frame: the same distribution whatever the class."""
    for label in CLASSES:
        boxes = np.stack([draw_clip(label, n, frames=9, size=32)[1][8] for n in range(80)])
        centre = boxes.reshape(-1, 2, 2).mean(1) / 32
        for axis in (0, 1):
            share = np.histogram(centre[:, axis] % 1, bins=4, range=(0, 1))[0] / len(boxes)
            assert np.abs(share - 0.25).max() < 0.2, (label, axis)


def test_folders_card_and_boxes(embedded: Path) -> None:
    card = json.loads((embedded / "card.json").read_text())
    assert card["complete"] and card["classes"] == list(CLASSES)
    boxes = read_boxes(embedded)
    for split in SPLITS:
        for label in CLASSES:
            videos = sorted((embedded / split / label).glob("*.mp4"))
            assert len(videos) == {"train": 2, "val": 1, "test": 1}[split]
            assert count_frames(videos[0]) == 12
            assert (probe(videos[0]).width, probe(videos[0]).codec) == (48, "h264")
            inside = boxes[videos[0].relative_to(embedded).as_posix()]
            assert inside.shape == (12, 4)
            assert 0 < box_mask(inside, 48).mean() < 0.9


def test_a_finished_folder_is_left_alone_and_an_interrupted_one_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    size = {"train": 1, "val": 1, "test": 1, "frames": 3, "size": 32}
    make_synthetic(folder, **size)
    video = folder / "train" / CLASSES[0] / "00.mp4"
    before = video.stat().st_mtime_ns
    make_synthetic(folder, **size)
    assert video.stat().st_mtime_ns == before
    video.unlink()
    make_synthetic(folder, **size)
    assert count_frames(video) == 3


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        make_synthetic(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.slow
def test_a_network_of_single_frames_stays_at_chance(tmp_path: Path) -> None:
    """The demo's network, trained as long on one frame of each clip and tested on eight."""
    import vidstill
    from vidstill.config import resolve

    folder = vidstill.train(
        resolve("demo", ["--out", str(tmp_path), "--data.root", str(tmp_path / "data"), "--clip.frames", "1",
                         "--test.clips", "8"])
    )  # fmt: skip
    tested = next(row for row in map(json.loads, reversed((folder / "metrics.jsonl").read_text().splitlines())))
    chance = 1 / len(CLASSES)
    assert tested["top1"] < chance + 3 * np.sqrt(chance * (1 - chance) / tested["videos"])
