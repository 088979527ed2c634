"""The sheet of training clips against the batch that the training loop itself prepares."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidstill.config import resolve
from vidstill.data.annotations import read_annotations
from vidstill.data.dataset import TrainClips
from vidstill.data.loader import EpochBatches, train_loader
from vidstill.explain.browse import browse, first_batch
from vidstill.models.registry import create_model
from vidstill.objectives.recognise import Recognise

TINY = {"width": 8, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3]}


PLAIN = ["--augment.mixup", "0", "--augment.cutmix", "0", "--augment.smoothing", "0"]


@pytest.mark.parametrize("more", [["--augment.mixup", "0"], ["--augment.cutmix", "0"], ["--augment.erase", "1"], PLAIN])
def test_it_is_the_first_batch_of_the_loop(more: list[str], small: list[str]) -> None:
    run = resolve(None, [*small, *more])
    seen, count = first_batch(run)
    annotations = read_annotations(run.data, run.seed)
    clips = TrainClips(annotations.splits["train"], run.clip, run.augment, run.seed)
    loader = train_loader(clips, EpochBatches(len(clips), run.train.batch, run.seed), workers=0)
    objective = Recognise(create_model("vfl_net", len(annotations.classes), **TINY), False)
    batch = objective.prepare(next(iter(loader)), run, torch.device("cpu"), objective.batch_number(0), 0)
    mean, std = (torch.tensor(value)[:, None, None, None] for value in (run.clip.mean, run.clip.std))
    expected = (batch["clips"] * std + mean).permute(0, 2, 3, 4, 1).numpy()
    assert count == len(seen.clips) == len(expected) == run.train.batch
    first, _ = first_batch(run, 2)
    assert np.array_equal(first.clips, seen.clips[:2]) and first.captions == seen.captions[:2]
    assert np.abs(seen.clips - expected.clip(0, 255)).max() <= 0.51
    for caption, target in zip(seen.captions, batch["targets"], strict=True):
        likeliest = annotations.classes[int(target.argmax())]
        assert caption.startswith(likeliest if more is PLAIN else f"{likeliest} {target.max():.2f}")


def test_captions_without_blending_are_classes_and_files(small: list[str]) -> None:
    seen, _ = first_batch(resolve(None, [*small, "--augment.mixup", "0", "--augment.cutmix", "0"]))
    for caption in seen.captions:
        label, name = caption.split(" – ")
        assert name.endswith(".mp4") and not label.endswith(tuple("0123456789"))


def test_files(small: list[str], tmp_path: Path) -> None:
    written = browse(resolve(None, small), tmp_path / "sheet.png", rows=3)
    assert written == [tmp_path / "sheet.png", tmp_path / "sheet.gif"] == sorted(tmp_path.iterdir(), reverse=True)
    sheet, moving = map(Image.open, written)
    assert sheet.width > 4 * 96 and sheet.height > 3 * 96
    assert moving.n_frames == 4, "one for each frame of the clips"


@pytest.mark.parametrize(
    ("out", "rows", "message"), [("sheet.jpg", 3, "ends in .png"), ("sheet.png", 0, "give 1 or more")]
)
def test_wrong_names_and_numbers(out: str, rows: int, message: str, small: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        browse(resolve(None, small), tmp_path / out, rows=rows)
    assert not [*tmp_path.iterdir()]


def test_without_training_videos(embedded: Path, tmp_path: Path) -> None:
    videos = [*(embedded / "test").rglob("*.mp4")]
    lists = tmp_path / "only.csv"
    lists.write_text("".join(f"{path},{path.parent.name}\n" for path in videos))
    with pytest.raises(ValueError, match="no training videos among test"):
        first_batch(resolve(None, ["--data.root", str(embedded), "--data.test", str(lists)]))
