"""Files as the four code bases release them: names, wrappers and prefixes of the goldens, through every verb."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dualformer_model
import focal_model
import numpy as np
import pytest
import safetensors
import slowfast_model
import torch
import yaml
from PIL import Image

import vidstill
from vidstill import cli
from vidstill.evaluation.engine import scores_of
from vidstill.models.registry import VideoModel
from vidstill.reporting import comparison

GOLDENS = Path(__file__).parents[1] / "goldens"


@dataclass
class Release:
    """A file in released naming, a recipe of its network, and what the authors' code gives for a clip."""

    file: Path
    recipe: str
    classes: list[str]
    videos: Path  # of these classes, in folders
    clips: torch.Tensor
    outputs: np.ndarray  # logits, or scores where the network itself makes them
    tolerance: float


class CfgNode(dict[str, Any]):
    """As yacs pickles it."""


def write_focalnet(state: dict[str, torch.Tensor], path: Path) -> None:
    module = types.ModuleType("yacs.config")
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    sys.modules["yacs"], sys.modules["yacs.config"] = types.ModuleType("yacs"), module
    try:
        torch.save({"model": state, "optimizer": {}, "epoch": 1, "config": CfgNode(MODEL=CfgNode(TYPE="focal"))}, path)
    finally:
        del sys.modules["yacs"], sys.modules["yacs.config"]


def write_mmcv(state: dict[str, torch.Tensor], path: Path) -> None:
    """Of a run with token labels, which holds the annotation model too."""
    whole = {**state, **{f"teacher.{key}": value for key, value in list(state.items())[:9]}}
    whole = {f"module.{key}": value for key, value in whole.items()}
    torch.save({"meta": {"epoch": 30}, "state_dict": whole, "optimizer": {}}, path)


def write_slowfast(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save({"epoch": 195, "model_state": state, "optimizer_state": {}, "cfg": "TRAIN:\n  ENABLE: true\n"}, path)


def write_caffe2(state: dict[str, torch.Tensor], path: Path) -> None:
    """With the names that the release renames, as Python 2 pickled it."""
    golden = json.loads((GOLDENS / "slowfast_caffe2_names.json").read_text())
    blobs = {blob: state[key].numpy() for blob, key in golden["pairs"]}
    blobs |= {name: np.zeros(1, np.float32) for name in golden["ignored"]}
    path.write_bytes(pickle.dumps({"blobs": blobs}, 2))


def write_3dcnn(state: dict[str, torch.Tensor], path: Path) -> None:
    whole = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 9, "arch": "shufflenetv2", "state_dict": whole, "optimizer": {}, "best_prec1": 0.5}, path)


def write_lightning(state: dict[str, torch.Tensor], path: Path) -> None:
    whole = {f"model.{key}": value for key, value in state.items()}
    torch.save({"pytorch-lightning_version": "2.4.0", "state_dict": whole, "hyper_parameters": {"lr": 0.1}}, path)


Write = Callable[[dict[str, torch.Tensor], Path], None]
RELEASES: dict[str, tuple[Any, str, str, Write, dict[str, int]]] = {
    "focal": (focal_model, "focal_tiny_plain", "ckpt_epoch_119.pth", write_focalnet, {"frames": 4, "size": 32}),
    "dualformer": (dualformer_model, "dualformer_micro", "epoch_30.pth", write_mmcv, {"frames": 16, "size": 64}),
    "slowfast": (
        slowfast_model, "slowfast_base_tiny", "checkpoint_epoch_00196.pyth", write_slowfast, {"frames": 8, "size": 64},
    ),
    "caffe2": (slowfast_model, "slowfast_base_tiny", "SLOWFAST_8x8_R50.pkl", write_caffe2, {"frames": 8, "size": 64}),
    "3dcnn": (
        slowfast_model, "slowfast_e3d_shufflenetv2_tiny", "jester_shufflenetv2_0.5x_RGB_16_best.pth", write_3dcnn,
        {"frames": 16, "size": 64},
    ),
    "lightning": (focal_model, "focal_tiny_plain", "last.ckpt", write_lightning, {"frames": 4, "size": 32}),
}  # fmt: skip


def released(name: str, folder: Path, embedded: Path) -> Release:
    room, golden_name, file, write, clip = RELEASES[name]
    golden = json.loads((GOLDENS / f"{golden_name}.json").read_text())
    model: VideoModel = room.build(golden["config"])
    counters = {key: torch.zeros(shape, dtype=torch.long) for key, shape in golden.get("int_keys", {}).items()}
    write({**focal_model.filled(golden["keys"]), **counters}, folder / file)
    classes = sorted(path.name for path in (embedded / "train").iterdir())[: model.num_classes]
    for each in classes:
        (folder / "videos" / each).mkdir(parents=True)
        for video in sorted((embedded / "train" / each).iterdir())[: 2 if name == "focal" else 1]:
            shutil.copy(video, folder / "videos" / each)
    names = classes + [f"unseen {number}" for number in range(model.num_classes - len(classes))]
    (folder / "names.txt").write_text("\n".join(names))
    recipe = {
        "data": {"root": str(folder / "videos"), "classes": str(folder / "names.txt")},
        "model": {"name": model.name, "options": json.loads(json.dumps(model.options))},
        "clip": clip,
        "test": {"clips": 2, "crops": 1},
        "train": {"precision": "fp16", "devices": 8},  # of those who trained it
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    output = "eval_output" if room is slowfast_model else "logits"
    return Release(
        folder / file, str(folder / "recipe.yaml"), names, folder / "videos", room.clips(golden["input"]),
        np.load(GOLDENS / f"{golden_name}.npz")[output], 1e-4 * np.abs(golden["outputs"][output].get("max_abs", 1)),
    )  # fmt: skip


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest, embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return released(request.param, tmp_path_factory.mktemp(request.param), embedded)


@pytest.fixture(scope="module")
def focal(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return released("focal", tmp_path_factory.mktemp("one"), embedded)


def first_video(release: Release) -> str:
    return str(sorted(release.videos.rglob("*.mp4"))[0])


def test_it_gives_what_the_authors_code_gives(release: Release) -> None:
    model = vidstill.load(release.file, recipe=release.recipe)
    assert model.classes == release.classes and not model.training
    with torch.no_grad():
        outputs = model(release.clips)
    if model.name.startswith("slow"):
        outputs = scores_of(outputs, model.activation)
    np.testing.assert_allclose(outputs.reshape(release.outputs.shape), release.outputs, rtol=0, atol=release.tolerance)


def test_verbs_take_it(release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named, video = ["--recipe", release.recipe], first_video(release)
    cli.main(["predict", video, "--model", str(release.file), *named, "--json", "-"])
    (found,) = json.loads(capsys.readouterr().out)
    assert sorted(one["class"] for one in found["top"]) == sorted(release.classes)
    cli.main(["explain", "gradcam", video, "--model", str(release.file), *named, "--out", str(tmp_path / "x.png")])
    assert Image.open(tmp_path / "x.png").width > 64
    before = {path.name for path in release.file.parent.iterdir()}
    cli.main(["test", str(release.file), *named])
    page = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert page == release.file.parent / "tests" / f"{release.file.stem}-videos" / "report.html"
    assert {path.name for path in release.file.parent.iterdir()} == before | {"tests"}, "nothing else beside the file"
    rows = [json.loads(line) for line in (page.parent / "metrics.jsonl").read_text().splitlines()]
    assert (rows[0]["clips"], rows[0]["crops"], rows[0]["chosen_on_test"]) == (2, 1, False)


def test_imported_it_needs_no_recipe(release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "mine"
    cli.main(["import", str(release.file), "--recipe", release.recipe, "--out", str(out)])
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "best.json", "best.safetensors", "config.yaml", "import.txt"
    ]  # fmt: skip
    about = json.loads((out / "best.json").read_text())
    assert about["classes"] == release.classes
    made = about["provenance"]
    assert made["source"] == release.file.name and made["recipe"] == release.recipe and made["vidstill"]
    assert made["sha256"] == hashlib.sha256(release.file.read_bytes()).hexdigest()
    assert (out / "import.txt").read_text().startswith(f"{release.file}: ")
    mine, theirs = vidstill.load(out), vidstill.load(release.file, recipe=release.recipe)
    assert mine.input == theirs.input
    assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True))
    cli.main(["test", str(out), "--data.root", str(release.videos)])
    rows = [json.loads(line) for line in next(out.rglob("metrics.jsonl")).read_text().splitlines()]
    assert (rows[0]["clips"], rows[0]["crops"]) == (2, 1), "the recipe's views"
    with pytest.raises(SystemExit):
        cli.main(["import", str(release.file), "--recipe", release.recipe, "--out", str(out)])
    assert "holds a model (best.safetensors): choose another --out" in capsys.readouterr().err


def test_an_imported_file_may_have_other_classes(focal: Release, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("\n".join("abcdefg"))
    classes = ["--data.classes", str(tmp_path / "own.txt")]
    cli.main(["import", str(focal.file), "--recipe", focal.recipe, "--out", str(tmp_path / "x"), *classes])
    assert vidstill.load(tmp_path / "x").classes == list("abcdefg")


def test_a_recipe_without_classes_takes_as_many_as_the_file_has(focal: Release, tmp_path: Path) -> None:
    recipe = yaml.safe_load(Path(focal.recipe).read_text())
    del recipe["data"]["classes"]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(recipe))
    model = vidstill.load(focal.file, recipe=tmp_path / "x.yaml")
    assert model.num_classes == 7 and model.classes is None


def test_it_is_compared(
    focal: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        comparison, "isolated", lambda task, items, *_: [(n, task(item)) for n, item in enumerate(items)]
    )
    where = ["--out", str(tmp_path), "--device", "meta"]
    cli.main(["bench", str(focal.file), "--recipe", focal.recipe, *where])
    line = (tmp_path / "bench.csv").read_text().splitlines()[1].split(",")
    assert line[:2] == [focal.file.stem, "video_focalnet_tiny"]
    with pytest.raises(SystemExit):
        cli.main(["bench", "demo", "--recipe", focal.recipe, *where])
    assert "none is among what is to be compared" in capsys.readouterr().err


def test_it_teaches(focal: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its classes come in another order than the student's, which the folders give."""
    Path(focal.recipe).with_name("turned.txt").write_text("\n".join(reversed(focal.classes)))
    recipe = yaml.safe_load(Path(focal.recipe).read_text())
    recipe["data"]["classes"] = str(Path(focal.recipe).with_name("turned.txt"))
    (tmp_path / "turned.yaml").write_text(yaml.safe_dump(recipe))
    cli.main([
        "distill", "--teacher", str(focal.file), "--teacher-recipe", str(tmp_path / "turned.yaml"),
        "--data.root", str(focal.videos), "--data.folds", "2", "--out", str(tmp_path), "--name", "student",
        "--model.options", "{width: 8, depths: [1], focal_levels: [1], focal_windows: [3]}", "--clip.size", "32",
        "--clip.frames", "4", "--train.epochs", "1", "--train.workers", "0", "--test.clips", "1", "--test.crops", "1",
    ])  # fmt: skip
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(tmp_path / "student" / "report.html")
    told = json.loads((tmp_path / "student" / "best.json").read_text())["provenance"]["teachers"]
    assert [one["source"] for one in told] == [str(focal.file)]


def test_a_model_is_one_file(focal: Release, tmp_path: Path) -> None:
    model = vidstill.load(focal.file, recipe=focal.recipe)
    vidstill.save(model, tmp_path / "one.safetensors")
    (tmp_path / "one.json").unlink()
    again = vidstill.load(tmp_path / "one.safetensors")
    assert (again.classes, again.input, again.name) == (model.classes, model.input, model.name)
    with safetensors.safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert json.loads(file.metadata()["vidstill"])["architecture"]["name"] == model.name
    with pytest.raises(ValueError, match="says itself which network it is of"):
        vidstill.load(tmp_path / "one.safetensors", recipe=focal.recipe)
