"""Testing a trained model: what is tested, by which rules, and where the result goes."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import vidstill
from vidstill.config import ConfigError, resolve
from vidstill.models.weights import save
from vidstill.tasks.testing import test as run_test

CLASSES = ["bounce", "grow", "move_down", "move_left", "move_right", "move_up", "shrink", "turn"]


@pytest.fixture
def trained(small: list[str]) -> Path:
    return vidstill.train(resolve(None, [*small, "--train.epochs", "1"]))


@pytest.fixture
def own_of(small: list[str], embedded: Path, tmp_path: Path) -> Any:
    """A run on a copy of some splits of the embedded data, under other settings of the data."""

    def make(splits: dict[str, str], *settings: str) -> Path:
        root = tmp_path / "own"
        for split, name in splits.items():
            shutil.copytree(embedded / split, root / name, dirs_exist_ok=True)
        return vidstill.train(resolve(None, [*small, "--train.epochs", "1", "--data.root", str(root), *settings]))

    return make


@pytest.fixture
def undivided(embedded: Path, tmp_path: Path) -> Path:
    """Test clips in class folders without splits, of some classes only."""
    root = tmp_path / "others"
    for label in ("turn", "grow", "move_up"):
        for split in ("val", "test"):
            for path in (embedded / split / label).glob("*.mp4"):
                (root / label).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / label / f"{split}{path.name}")
    return root


def state(folder: Path) -> dict[str, bytes]:
    names = ("predictions.csv", "metrics.jsonl", "report.html", "config.yaml", "best.json")
    return {name: (folder / name).read_bytes() for name in names}


def test_row(folder: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (row,) = (row for row in rows if row["split"] == "test")
    return row


test_row.__test__ = False  # type: ignore[attr-defined]


def paths(folder: Path) -> list[str]:
    return [row[0] for row in csv.reader((folder / "predictions.csv").open())][1:]


def test_without_settings_the_runs_own_test_is_repeated(trained: Path) -> None:
    before = (trained / "predictions.csv").read_bytes()
    folder, result = run_test(trained)
    assert folder == trained and result.videos == 8
    assert (trained / "predictions.csv").read_bytes() == before
    assert test_row(trained)["tested_split"] == "test" and test_row(trained)["chosen_on_test"] is False


def test_other_views_of_the_own_videos_take_the_place_of_the_first_test(trained: Path) -> None:
    folder, _ = run_test(trained, clips=3)
    assert folder == trained and test_row(trained)["clips"] == 3


def test_undivided_videos_of_some_classes_are_all_tested_and_kept_apart(trained: Path, undivided: Path) -> None:
    before = state(trained)
    folder, result = run_test(trained, ["--data.root", str(undivided)])
    assert state(trained) == before
    assert folder == trained / "tests" / "others" and (folder / "report.html").exists()
    assert sorted(paths(folder)) == sorted(map(str, undivided.rglob("*.mp4"))) and result.videos == 6
    assert test_row(folder)["tested_split"] == "all"
    by_hand = vidstill.evaluate(
        vidstill.load(trained), vidstill.read_annotations(resolve(None, ["--data.root", str(undivided)]).data,
                                                          known=CLASSES).splits["train"], clips=2, crops=1)  # fmt: skip
    assert {str(sample.path) for sample in by_hand.samples} <= set(paths(folder))
    assert {CLASSES[sample.label] for sample in by_hand.samples} == {"turn", "grow", "move_up"}


def test_how_the_run_divides_its_data_says_nothing_of_other_data(own_of: Any, undivided: Path) -> None:
    run = own_of({"train": "."}, "--data.split", "group", "--data.group", r"/(\d+)\.mp4", "--data.folds", "2")
    assert test_row(run)["chosen_on_test"] is False, "one epoch is no choice"
    folder, result = run_test(run, ["--data.root", str(undivided)])
    assert result.videos == 6 and folder != run


def test_a_second_test_by_other_settings_keeps_the_first(trained: Path, undivided: Path) -> None:
    one, _ = run_test(trained, ["--data.root", str(undivided)])
    again, _ = run_test(trained, ["--data.root", str(undivided)])
    other, _ = run_test(trained, ["--data.root", str(undivided), "--test.crops", "3"])
    named, _ = run_test(trained, ["--data.root", str(undivided), "--name", "mine"])
    assert one == again and other == trained / "tests" / "others-2" and named == trained / "tests" / "mine"


def test_the_own_data_named_again_are_the_own_data(trained: Path, embedded: Path) -> None:
    folder, result = run_test(trained, ["--data.root", str(embedded), "--data.format", "folders"])
    assert folder == trained and result.videos == 8


def test_clip_settings_count(trained: Path, embedded: Path) -> None:
    before = state(trained)
    folder, result = run_test(trained, ["--clip.frames", "6", "--clip.sampling", "dense", "--clip.size", "40"])
    assert state(trained) == before and folder.parent == trained / "tests"
    model = vidstill.load(trained)
    clip = model.input.model_copy(update={"frames": 6, "sampling": "dense", "size": 40})
    samples = vidstill.read_annotations(resolve(None, ["--data.root", str(embedded)]).data).splits["test"]
    expected = vidstill.evaluate(model, samples, clip=clip, clips=2, crops=1)
    torch.testing.assert_close(torch.tensor(result.probabilities), torch.tensor(expected.probabilities))  # type: ignore[attr-defined]
    plain = vidstill.evaluate(model, samples, clips=2, crops=1)
    assert not torch.allclose(torch.tensor(plain.probabilities), torch.tensor(expected.probabilities))


def test_training_videos_alone_are_no_test(trained: Path, embedded: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name}\n" for path in sorted((embedded / "train").rglob("*.mp4"))]
    (tmp_path / "train.csv").write_text("".join(rows))
    with pytest.raises(ConfigError, match=r"only training videos are named.*--data\.test"):
        run_test(trained, ["--data.root", str(tmp_path), "--data.train", "train.csv"])


def test_training_videos_among_the_tested_are_counted(
    trained: Path, embedded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        run_test(trained, ["--data.root", str(embedded / "train")])
    assert "16 of the tested videos are training videos of this run" in caplog.text


def test_a_class_that_the_model_does_not_know_is_an_error(trained: Path, undivided: Path) -> None:
    (undivided / "turn").rename(undivided / "turns")
    with pytest.raises(ValueError, match="did you mean 'turn'"):
        run_test(trained, ["--data.root", str(undivided)])


def test_a_model_file_alone_is_tested_beside_it(
    embedded: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which videos, and with which views, nothing beside it says."""
    model = vidstill.create_model("vfl_net", 8, width=8)
    model.classes, model.input = CLASSES, model.input.model_copy(update={"frames": 2, "size": 32})
    path = save(model, tmp_path / "models" / "small" if (tmp_path / "models").mkdir() is None else "")
    folder, result = run_test(path, ["--data.root", str(embedded), "--test.clips", "1", "--test.crops", "1"])
    assert folder == tmp_path / "models" / "tests" / embedded.name and result.videos == 8
    with pytest.raises(ConfigError, match=r"small\.safetensors stands alone, .* --data\.root VIDEOS"):
        run_test(path, ["--test.clips", "1"])
    with caplog.at_level("INFO", "vidstill"):
        run_test(path, ["--data.root", str(embedded)], crops=1)
    assert "views of its recipe: 4 × 1;" in caplog.text


@pytest.mark.parametrize("nested", ["false", "true"])
def test_a_figure_on_the_videos_that_chose_the_epoch_is_marked(
    small: list[str], embedded: Path, tmp_path: Path, nested: str, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val"):
        shutil.copytree(embedded / split, tmp_path / "data" / split)
    settings = ["--data.root", str(tmp_path / "data"), "--data.nested", nested, "--data.folds", "2"]
    folder = vidstill.train(resolve(None, [*small, *settings]))
    row = test_row(folder)
    assert row["chosen_on_test"] is (nested == "false")
    assert row["tested_split"] == ("val" if nested == "false" else "test")
    assert ("the videos that chose it" in (folder / "train.log").read_text()) is (nested == "false")
    assert run_test(folder)[0] == folder and test_row(folder)["chosen_on_test"] is (nested == "false")


def test_the_folder_of_a_run_holds_wherever_it_is_read(
    small: list[str], embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(embedded.parent)
    folder = vidstill.train(resolve(None, [*small, "--train.epochs", "1", "--data.root", embedded.name]))
    monkeypatch.chdir(tmp_path)
    assert run_test(folder)[1].videos == 8
    monkeypatch.chdir(embedded.parent)
    vidstill.train(resolve(None, [*small, "--train.epochs", "1", "--data.root", embedded.name]))  # the same run
