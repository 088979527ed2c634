"""Videos of several classes, from the list to the report, on clips that show two of four colours."""

import csv
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

import vidstill
from vidstill.cli import main
from vidstill.config import Clip, resolve
from vidstill.data.annotations import Sample
from vidstill.data.dataset import TrainClips
from vidstill.objectives.recognise import Recognise
from vidstill.video.encode import write_video

COLOURS = {"blue": (50, 60, 230), "green": (40, 200, 60), "red": (230, 40, 40), "white": (240, 240, 240)}
PAIRS = list(combinations(COLOURS, 2))


def colours(rng: np.random.Generator, names: tuple[str, ...]) -> np.ndarray:
    """(6,32,32,3): a square for each name in a corner of its own."""
    frames = rng.integers(80, 110, (6, 32, 32, 3), dtype=np.uint8)
    for name, corner in zip(names, rng.permutation(4), strict=False):
        y, x = 16 * (corner // 2) + 2, 16 * (corner % 2) + 2
        frames[:, y : y + 12, x : x + 12] = COLOURS[name]
    return frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 6), ("test", 12)):
        rows = [(f"{split}{n}.mp4", PAIRS[n % 6]) for n in range(count)]
        for name, names in rows:
            write_video(root / name, colours(rng, names), 6)
        (root / f"{split}.csv").write_text("".join(f"{name},{';'.join(names)}\n" for name, names in rows))
    return root


@pytest.fixture(scope="module")
def settings(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [
        "--data.root", str(videos), "--data.multi_label", "--out", str(tmp_path_factory.mktemp("runs")),
        "--model.options", "{width: 8, depths: [1, 1], focal_levels: [1, 1], focal_windows: [3, 3], drop_path_rate: 0, "
        "init_std: 0.15}", "--clip.size", "32", "--clip.frames", "2", "--augment.jitter", "0", "--augment.grey", "0",
        "--augment.scale", "[0.8, 1]", "--optim.name", "adamw", "--optim.lr", "0.01", "--optim.reference_batch", "null",
        "--train.batch", "8", "--train.epochs", "8", "--train.workers", "0", "--train.accelerator", "cpu",
        "--test.clips", "1", "--test.crops", "1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(settings: list[str]) -> Path:
    """With mixup, CutMix and smoothing, as a recipe without a word on them has it."""
    main(["train", *settings])
    return resolve(None, settings).folder


def map_by_hand(path: Path) -> float:
    """Mean over the classes of the mean precision at which each of their videos comes in."""
    (_, _, _, _, *names), *rows = csv.reader(path.open())
    figures = []
    for column, name in enumerate(names, 4):
        ranked = sorted(rows, key=lambda row: -float(row[column]))
        places = [place for place, row in enumerate(ranked, 1) if name in row[1].split(";")]
        figures.append(sum(hits / place for hits, place in enumerate(places, 1)) / len(places))
    return sum(figures) / len(figures)


def test_a_run_learns_and_every_figure_is_the_map_of_its_predictions(
    trained: Path, videos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    expected = map_by_hand(trained / "predictions.csv")
    assert expected > 0.75, "chance is 0.5"
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["mAP"] == pytest.approx(expected, abs=1e-9)
    assert not any("top1" in row for row in rows)
    validated = [row["mAP"] for row in rows if row["split"] == "val"]
    best = json.loads((trained / "best.json").read_text())
    assert best["activation"] == "sigmoid"
    assert best["metrics"]["mAP"] == max(validated)
    assert best["provenance"]["epoch"] == validated.index(max(validated))
    said = f"mAP {100 * expected:.1f} %"
    main(["test", str(trained)])
    assert said in capsys.readouterr().out
    main(["test", "--from", str(trained / "predictions.csv"), "--out", str(tmp_path / "again.csv")])
    assert said in capsys.readouterr().out
    page = (trained / "report.html").read_text()
    assert f"<span>mAP</span><b>{100 * expected:.1f} %</b>" in page
    assert "<h2>Confusion</h2>" not in page


def test_prediction_ranks_by_the_same_sigmoids(trained: Path, videos: Path, tmp_path: Path) -> None:
    header, first, *_ = csv.reader((trained / "predictions.csv").open())
    main(["predict", first[0], "--model", str(trained), "--json", str(tmp_path / "labels.json")])
    (prediction,) = json.loads((tmp_path / "labels.json").read_text())
    scores = {entry["class"]: entry["score"] for entry in prediction["top"]}
    assert scores == pytest.approx(
        {name: float(score) for name, score in zip(header[4:], first[4:], strict=True)}, abs=1e-3
    )
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert sum(scores.values()) > 1.05


def test_batches_are_multi_hot_and_their_targets_blended(videos: Path) -> None:
    samples = [Sample(videos / "train0.mp4", 0, more=(1,)), Sample(videos / "train5.mp4", 3, more=(2,))]
    run = resolve(None, ["--clip.size", "32", "--clip.frames", "2", "--augment.smoothing", "0"])
    batch = TrainClips(samples, Clip(frames=2, size=32), run.augment, 0, classes=4).__getitems__([(0, 0), (0, 1)])
    hot = [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    assert batch["labels"].tolist() == hot
    model = vidstill.create_model("vfl_net", 4, width=8)
    model.classes = list(COLOURS)
    for number in range(4):
        targets = Recognise(model, True).prepare(batch, run, torch.device("cpu"), number, 0)["targets"]
        assert targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(1), torch.full((2,), 2.0))
        torch.testing.assert_close(targets[:, 0], targets[:, 1])


def test_without_the_option_several_labels_are_an_error(
    settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *settings, "--data.multi_label", "false", "--name", "other"])
    assert ended.value.code == 1
    assert "line 1: 'blue;green' are several labels: set data.multi_label" in capsys.readouterr().err
