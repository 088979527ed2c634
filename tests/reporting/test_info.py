"""What `vidstill info` tells of data, models, recipes and names."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vidstill
from vidstill.cli import main
from vidstill.config import ConfigError
from vidstill.models.catalogue import configurations
from vidstill.models.weights import load
from vidstill.reporting.info import info
from vidstill.reporting.tables import Table
from vidstill.video.encode import write_video


def tables(told: list[str | Table]) -> list[Table]:
    return [one for one in told if not isinstance(one, str)]


def rows(table: Table) -> dict[str, str]:
    """Of a table of two columns."""
    names, values = table.values()
    return dict(zip((cell.shown for cell in names), (cell.shown for cell in values), strict=True))


def test_of_data(embedded: Path) -> None:
    told = info(str(embedded), workers=1)
    splits, videos, classes = tables(told)
    assert [cell.value for cell in splits["videos"]] == [
        len([*(embedded / split.shown).rglob("*.mp4")]) for split in splits["split"]
    ]
    assert rows(videos)["codec"] == "h264" and rows(videos)["size"] == "48×48" and rows(videos)["frames"] == "12"
    assert [cell.shown for cell in classes["class"]] == sorted(path.name for path in (embedded / "train").iterdir())
    assert "balanced: every class has 2 training videos" in told
    assert any("vidstill check" in line for line in told if isinstance(line, str))


def test_of_a_list_of_many_classes(tmp_path: Path) -> None:
    """Only some are listed, the largest and the smallest; what is missing is said."""
    lines = [f"{n}_{k}.mp4,{n}\n" for n in range(50) for k in range(n + 1)]
    (tmp_path / "train.csv").write_text("".join(lines))
    told = info(str(tmp_path), sample=2, workers=1)
    classes = tables(told)[-1]
    listed = [int(cell.shown) for cell in classes["class"]]
    assert listed == [*range(49, 39, -1), *range(9, -1, -1)]
    said = [line for line in told if isinstance(line, str)]
    assert f"missing: {len(lines)} files are not there" in said
    assert rows(tables(told)[1])["headers read"] == f"0 of 2 tried, spread evenly over {len(lines):,} videos"
    assert sum(line.startswith("unreadable") for line in said) == 2
    assert "imbalance 50.0 : 1: 49 has 50 training videos, 0 1" in said


def test_of_a_trained_model(teacher: Path) -> None:
    model = load(teacher)
    for what in (teacher, teacher / "best.json"):
        about, parts = tables(info(str(what)))
        assert "vfl_net" in about and rows(about)["options"] == "width 12, init_std 0.15"
        assert rows(about)["scores"].startswith(f"8 classes, softmax: {model.classes[0]}, ")
        cells = zip(parts["part"], parts["parameters"], strict=True)
        outer = [cell.value for name, cell in cells if not name.shown.startswith(" ") and cell.value]
        assert sum(outer) == sum(parameter.numel() for parameter in model.parameters())
    with pytest.raises(ConfigError, match="has its own settings"):
        info(str(teacher), ["--clip.size", "32"])


@pytest.mark.parametrize("recipe", ["k400_slowfast_shufflenetv2_w025", "k400_shufflenet_3d_w2"])
def test_of_a_recipe_it_says_what_the_table_of_models_says(recipe: str) -> None:
    about, _ = tables(info(recipe))
    known = configurations(recipe)[recipe]
    facts = rows(about)
    assert f"{known.figure} % top-1, {known.views} views; {known.source}" in facts["published"]
    assert facts["multiply-adds"].startswith(f"{known.gmacs:.3f}"[:5])
    assert facts["parameters"].startswith(f"{known.parameters / 1e6:.3f}"[:4])
    assert facts["scores"].startswith("400 classes, softmax: abseiling, ") and "more" in facts["scores"]


def test_of_a_name_with_options() -> None:
    (wide, _), (narrow, _) = (tables(info("vfl_net", more)) for more in ([], ["--model.options", "{width: 8}"]))
    assert rows(narrow)["options"] == "width 8" and rows(narrow)["parameters"] != rows(wide)["parameters"]
    assert "ucf101_vfl_net" in rows(wide)["recipes"]


def test_of_something_else() -> None:
    with pytest.raises(ValueError, match=r"no folder .* did you mean vfl_net\?"):
        info("vfl_nett")


@pytest.mark.slow
def test_tables_fit_a_terminal_of_80_columns(
    embedded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for what in (str(embedded), "k400_slowfast_shufflenet_w2_g3", "vfl_net"):
        main(["info", what, "--workers", "1"])
        shown = capsys.readouterr().out
        assert shown and max(len(line) for line in shown.splitlines() if "vidstill check" not in line) <= 80


def test_a_single_video_is_told_about(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((20, 48, 64, 3), np.uint8), 8)
    (table,) = info(str(tmp_path / "a.mp4"))
    assert isinstance(table, dict)
    told = dict(zip(*([cell.shown for cell in column] for column in table.values()), strict=True))
    assert told == {"length": "2.50 s, 20 frames", "rate": "8 frames per second", "size": "64x48", "codec": "h264"}


def test_a_released_file_needs_its_recipe(tmp_path: Path) -> None:
    path, recipe = tmp_path / "x.pyth", "k400_slowfast_shufflenetv2_w025"
    torch.save({"model_state": vidstill.create_model("slowfast_shufflenetv2", 400, width=0.25).state_dict()}, path)
    with pytest.raises(ValueError, match=f"its weights fit --recipe {recipe}"):
        info(str(path))
    told, _ = info(str(path), recipe=recipe)
    assert not isinstance(told, str)
    shown = " ".join(cell.shown for cells in told.values() for cell in cells)
    assert "400 classes, softmax: abseiling" in shown and str(path) in shown
