"""Runs and registered models side by side: what is one row, what is shown, what is refused."""

import csv
import dataclasses
import json
import logging
import statistics
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from vidstill import cli
from vidstill.config import resolve
from vidstill.data.isolated import Lost
from vidstill.evaluation.cost import Cost
from vidstill.models.catalogue import CATALOGUE, configurations
from vidstill.models.registry import create_model
from vidstill.models.weights import save
from vidstill.reporting import bench as page_module
from vidstill.reporting import comparison as module
from vidstill.reporting.bench import bench, notes, table
from vidstill.reporting.comparison import doubts

COST = Cost(
    parameters=1_234_567, weights_mb=4.9, gmacs=2.5, ms=12.3, ms_low=12.0, ms_high=13.0, memory_mb=30.0, frames=4,
    size=32, threads=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Nothing is measured: every model costs the same. What was asked for is kept."""
    jobs: list[Any] = []

    def at_once(task: Any, items: list[Any], seconds: list[float], workers: int) -> list[Any]:
        jobs.extend(items)
        return [(place, COST) for place in range(len(items))]

    monkeypatch.setattr(module, "isolated", at_once)
    monkeypatch.setattr(module, "machine_load", lambda: (0.1, 2))
    return jobs


def a_run(folder: Path, seed: int = 0, top1: float | None = 0.8, width: int = 8, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    model = create_model("vfl_net", 2, width=width)
    model.classes = ["a", "b"]
    provenance = settings.pop("provenance", {})
    save(model, folder / "best", provenance=provenance)
    run = resolve("ucf101_vfl_net").model_dump(mode="json") | {"seed": seed, "name": folder.name} | settings
    (folder / "config.yaml").write_text(yaml.safe_dump(run))
    rows = [{"split": "val", "top1": 0.99}] + ([{"split": "test", "videos": 40, "top1": top1}] if top1 else [])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_seeds_by_the_name_of_the_folder_are_one_row(tmp_path: Path) -> None:
    shares = [0.8, 0.85, 0.9]
    runs = [a_run(tmp_path / f"wide-s{n}", 0, share, lr=n) for n, share in enumerate(shares)]
    rows, _ = bench([*runs, a_run(tmp_path / "other", top1=0.7, optim={"lr": 9})], out=tmp_path / "out")
    assert [row.name for row in rows] == ["wide", "other"]
    assert rows[0].top1 == pytest.approx([80, 85, 90])
    first, second = lines(tmp_path / "out" / "bench.csv")
    assert float(first["top1"]) == pytest.approx(85)
    assert float(first["top1_deviation"]) == pytest.approx(100 * statistics.stdev(shares))
    assert (first["n"], second["n"], second["top1_deviation"]) == ("3", "1", "")
    assert table(rows)["top-1 %"][0].shown == "85.0 ± 5.0 (n = 3)"


@pytest.mark.parametrize(("changed", "count"), [
    ({}, 1), ({"out": "elsewhere"}, 1), ({"train": {"epochs": 3}}, 2), ({"data": {"root": "other"}}, 2),
])  # fmt: skip
def test_seeds_by_the_settings_are_one_row(tmp_path: Path, changed: dict[str, Any], count: int) -> None:
    runs = [a_run(tmp_path / "one", 0), a_run(tmp_path / "two", 1, **changed)]
    assert len(bench(runs, out=tmp_path / "out")[0]) == count


def test_embedded_data_lie_where_the_seed_put_them(tmp_path: Path) -> None:
    data = [{"format": "synthetic", "root": f"data{n}"} for n in range(2)]
    runs = [a_run(tmp_path / f"{n}" / "demo", n, data=data[n]) for n in range(2)]
    assert len(bench(runs, out=tmp_path / "out")[0]) == 1


def test_other_networks_are_other_rows_whatever_their_names(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / "x-s0"), a_run(tmp_path / "x-s1", width=16)]
    assert [row.name for row in bench(runs, out=tmp_path / "out")[0]] == ["x-s0", "x-s1"]


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / which / "demo", optim={"lr": n}) for n, which in enumerate("ab")]
    assert [row.name for row in bench(runs, out=tmp_path / "out")[0]] == ["a/demo", "b/demo"]


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    (row,) = bench([run, run / "best.safetensors", f"{run}/"], out=tmp_path / "out")[0]
    assert (row.name, len(row.top1)) == ("run", 1)


def test_without_a_test_there_is_a_dash_and_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vidstill"):
        rows, _ = bench([a_run(tmp_path / "run", top1=None), a_run(tmp_path / "other", width=16)], out=tmp_path)
    assert [cell.shown for cell in table(rows)["top-1 %"]] == ["–", "80.0"]
    assert f"run has no test result: `vidstill test {tmp_path / 'run'}` makes one" in caplog.text
    (tmp_path / "run" / "config.yaml").unlink()  # which tells its videos
    bench([tmp_path / "run"], out=tmp_path)
    assert f"`vidstill test {tmp_path / 'run'} --data.root VIDEOS` makes one" in caplog.text


def test_times_that_scatter_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unsteady = dataclasses.replace(COST, ms_high=20.0)
    monkeypatch.setattr(module, "isolated", lambda *_: [(0, unsteady)])
    with caplog.at_level(logging.WARNING, "vidstill"):
        bench([a_run(tmp_path / "run")], out=tmp_path)
    assert "run: its times scatter by 65 %" in caplog.text


@pytest.mark.parametrize(("changed", "told"), [
    ({}, None),
    ({"one_thread_ms": 14.0, "threads": 2}, None),
    ({"one_thread_ms": 5.3, "threads": 2, "ms": 688.0, "ms_low": 685.0, "ms_high": 688.0},
     "688 ms on 2 threads, 5.3 ms on one: leave out --threads"),
    ({"cpu_share": 0.96}, None),
    ({"cpu_share": 0.47}, "waited for a core 53 % of the time"),
    ({"ms": None, "ms_low": None, "ms_high": None, "cpu_share": 0.1}, None),
])  # fmt: skip
def test_what_makes_a_time_doubtful(changed: dict[str, Any], told: str | None) -> None:
    found = doubts(dataclasses.replace(COST, **changed))
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


@pytest.mark.parametrize(("load", "device", "warned"), [
    ((7.1, 2), "cpu", True), ((1.9, 2), "cpu", False), ((7.1, 2), "meta", False), (None, "cpu", False),
])  # fmt: skip
def test_a_loaded_machine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, load: Any, device: str,
    warned: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "machine_load", lambda: load)
    monkeypatch.setattr(page_module, "machine_load", lambda: load)
    with caplog.at_level(logging.WARNING, "vidstill"):
        _, page = bench(models="vfl_net", out=tmp_path, device=device)
    assert ("load 7.1 on 2 cores: other work runs here" in caplog.text) == warned
    for text in (page.read_text(), (tmp_path / "bench.md").read_text()):
        assert ("load 7.1 on 2 cores" in text or "load 1.9 on 2 cores" in text) == (
            load is not None and device == "cpu"
        )
        assert f"{datetime.now().astimezone():%Y-%m-%d}" in text


def test_without_settings_a_run_stands_alone(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / name) for name in ("one", "two")]
    for run in runs:
        (run / "config.yaml").unlink()
    assert len(bench(runs, out=tmp_path / "out")[0]) == 2


@pytest.mark.parametrize(("told", "shown"), [
    ({"provenance": {"teachers": [{"source": "runs/big", "top1": 0.9}, {"source": "t/best.safetensors"}]}}, "big, t"),
    ({"distil": {"teacher": ["runs/big"]}}, "big"),
    ({"distil": {"teacher": "big.safetensors"}}, "big.safetensors"),
    ({}, ""),
])  # fmt: skip
def test_the_teacher_is_named(tmp_path: Path, told: dict[str, Any], shown: str) -> None:
    rows, _ = bench([a_run(tmp_path / "run", objective="distil", **told)], out=tmp_path / "out")
    assert rows[0].teacher == shown
    assert ("teacher" in table(rows)) == bool(shown)


def test_all_registered_models_where_nothing_is_given(tmp_path: Path) -> None:
    """Without a published figure: those are of other clips and widths."""
    rows, page = bench(out=tmp_path / "out")
    assert [row.name for row in rows] == sorted(CATALOGUE)
    assert not any(row.top1 or row.published for row in rows)
    assert "No model has both an accuracy and a cost" in page.read_text()


def test_models_join_the_runs_only_when_asked_for(tmp_path: Path, measured: list[Any]) -> None:
    run = a_run(tmp_path / "run")
    assert len(bench([run], out=tmp_path / "out")[0]) == 1
    rows, _ = bench([run], "*focalnet_small", out=tmp_path / "out", frames=16, threads=1, bf16=True)
    assert [row.name for row in rows] == ["run", "video_focalnet_small"]
    row, options = measured[-2]
    assert (row.source, options["threads"], options["frames"], options["size"], options["bf16"]) == (
        run, 1, 16, None, True,
    )  # fmt: skip
    assert (measured[-1][0].model, measured[-1][0].source) == ("video_focalnet_small", None)


def test_recipes_by_name_and_pattern_bring_what_was_published(tmp_path: Path) -> None:
    rows, page = bench(["k400_slowfast_shufflenetv2_w*", "k400_slow_r50", "demo"], out=tmp_path / "out")
    widths = ["w025", "w1", "w2"]
    assert [row.name for row in rows] == [
        *(f"k400_slowfast_shufflenetv2_{width}" for width in widths), "k400_slow_r50", "demo",
    ]  # fmt: skip
    shown = [cell.shown for cell in table(rows)["published top-1 %"]]
    assert shown == ["K400 28.79", "K400 38.54", "K400 48.0", "K400 74.8", "–"]
    assert (
        "K400, published" in page.read_text()
        and "slowfast_shufflenetv2_w2" in (tmp_path / "out/pareto.svg").read_text()
    )


def test_a_published_figure_stands_beside_its_own_clip_only(tmp_path: Path) -> None:
    own = configurations("k400_slow_r50")["k400_slow_r50"]
    for clip, kept in (({}, True), ({"size": own.size}, True), ({"size": 224}, False), ({"frames": 16}, False)):
        (row,), _ = bench(["k400_slow_r50"], out=tmp_path / "out", **clip)  # type: ignore[arg-type]
        assert (row.published is not None) == kept, clip


@pytest.mark.parametrize("recipe", ["k400_slowfast_shufflenetv2_w2", "jester_slowfast_shufflenetv2_w025", "demo"])
def test_a_recipe_costs_what_its_row_of_the_table_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """Built here, counted by the real task."""
    monkeypatch.setattr(module, "isolated", lambda task, items, *_: [(n, task(item)) for n, item in enumerate(items)])
    (row,), _ = bench([recipe], out=tmp_path / "out", device="meta")
    known = configurations(recipe)[recipe]
    assert row.cost and (row.cost.frames, row.cost.size) == (known.frames, known.size)
    assert (row.cost.parameters, row.cost.gmacs) == (known.parameters, pytest.approx(known.gmacs, rel=1e-3))


def test_a_recipe_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "isolated", lambda task, items, *_: [(n, task(item)) for n, item in enumerate(items)])
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"model: {{name: vfl_net, options: {{width: 8}}}}\nclip: {{frames: 4, size: 32}}\ntest: {{size: 64}}\n"
        f"data: {{classes: {tmp_path / 'names.txt'}}}\n"
    )
    (row,), _ = bench([recipe], out=tmp_path / "out", device="meta")
    assert row.cost and (row.cost.frames, row.cost.size) == (4, 64)
    assert row.cost.parameters == sum(p.numel() for p in create_model("vfl_net", 3, width=8).parameters())


def test_a_folder_goes_before_a_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (row,), _ = bench([a_run(Path("demo"))], out=tmp_path / "out")
    assert row.source == Path("demo") and row.recipe is None


@pytest.mark.parametrize(("told", "marked"), [(True, True), (False, False), (None, False)])
def test_figures_of_the_epoch_chosen_on_the_test_are_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], told: bool | None, marked: bool
) -> None:
    run = a_run(tmp_path / "run")
    row = {"split": "test", "videos": 40, "top1": 0.9, "tested_split": "val"}
    row |= {} if told is None else {"chosen_on_test": told}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    out = tmp_path / "out"
    cli.main(["bench", str(run), "--out", str(out)])
    printed = capsys.readouterr().out
    for text in (printed, (out / "bench.md").read_text(), (out / "bench.html").read_text()):
        assert ("90.0 †" in text) == marked
        assert ("best of the run's epochs on these very videos" in text.replace("&#x27;", "'")) == marked
    assert ("† best epoch on them" in (out / "bench.html").read_text()) == marked
    assert lines(out / "bench.csv")[0]["chosen_on_test"] == ("yes" if marked else "")


def test_a_single_flattered_seed_marks_its_row(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / f"x-s{n}", n) for n in range(2)]
    with (runs[1] / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"split": "test", "videos": 40, "top1": 0.8, "chosen_on_test": True}) + "\n")
    rows, _ = bench(runs, out=tmp_path / "out")
    assert table(rows)["top-1 %"][0].shown == "80.0 ± 0.0 (n = 2) †"
    assert len(notes(rows)) == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere"], "nowhere is neither a run folder nor a model file nor a recipe"),
    (["k400_slowfast_r51"], "did you mean k400_slowfast_r50?"),
    (["--models", "*resnet*"], "no model matches '*resnet*'; known: "),
    (["--device", "cuda:99"], "this machine has"),
    (["--device", "abacus"], "take cpu, cuda, cuda:N or meta"),
    (["--repeats", "0"], "repeats 0: give 1 or more"),
])  # fmt: skip
def test_what_is_refused_takes_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", *arguments, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_and_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no model at .*empty: .*best\.safetensors is missing"):
        bench([tmp_path / "empty"])
    run = a_run(tmp_path / "run")
    for text in ("{ not json", "[]", '{"architecture": 3}'):
        (run / "best.json").write_text(text)
        with pytest.raises(ValueError, match="does not describe a model") as error:
            bench([run])
        assert "\n" not in str(error.value)


def test_a_model_that_cannot_be_measured_costs_its_own_row_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "isolated", lambda task, items, *_: [(0, Lost("5 frames: give a multiple of 2"))])
    run = a_run(tmp_path / "run")
    with pytest.raises(ValueError, match="run cannot be measured: 5 frames: give a multiple of 2"):
        bench([run], out=tmp_path / "out")
    rows, page = bench([run], "vfl_net", out=tmp_path / "out")
    assert "vfl_net cannot be measured" in caplog.text
    assert "ms per clip" not in table(rows)
    assert "No model has both an accuracy and a cost" in page.read_text()
    assert not (tmp_path / "out" / "pareto.svg").exists()


def test_the_outputs_agree_and_need_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(tmp_path / "<b>|run")
    out = tmp_path / "out"
    cli.main(["bench", str(run), "--models", "vfl_net", "--out", str(out)])
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "bench.html")
    page, markdown = (out / "bench.html").read_text(), (out / "bench.md").read_text()
    assert "&lt;b&gt;|run" in page and "<b>" not in page
    assert "src=" not in page and "href=" not in page and "url(" not in page
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and len({line.replace("\\|", "").count("|") for line in rows}) == 1
    for text in ("12.3 (12.0–13.0)", "2.50", "1.23 M", "4 × 32²"):
        assert text in page and text in markdown
    assert 'data-value="12.3"' in page and "| 1 |" in markdown and "95 % interval" in markdown
    picture = ElementTree.fromstring((out / "pareto.svg").read_text())
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(picture.findall("{*}svg")) == 2, "over time and over multiply-adds"


@pytest.mark.slow
def test_a_real_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (row,) = bench([a_run(tmp_path / "run")], out=tmp_path / "out", frames=4, size=32, threads=1, repeats=3)[0]
    assert row.cost is not None
    assert row.cost.threads == 1 and (row.cost.frames, row.cost.size) == (4, 32)
    assert row.cost.parameters == sum(p.numel() for p in create_model("vfl_net", 2, width=8).parameters())
    assert row.cost.ms and row.cost.ms_low and row.cost.ms_high
    assert 0 < row.cost.ms_low <= row.cost.ms <= row.cost.ms_high
    assert row.cost.memory_mb and row.cost.memory_mb > row.cost.weights_mb


def test_without_computing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows, page = bench([a_run(tmp_path / "run")], "dualformer_tiny", out=tmp_path / "out", device="meta")
    assert all(row.cost and row.cost.ms is None and row.cost.memory_mb is None for row in rows)
    assert "ms per clip" not in table(rows)
    assert rows[1].cost and rows[1].cost.gmacs == pytest.approx(CATALOGUE["dualformer_tiny"].gmacs, rel=0.01)
    assert (page.parent / "pareto.svg").read_text().count("<svg") == 2, "one chart, of GMACs, in its frame"
    assert "var(" not in (page.parent / "pareto.svg").read_text(), "what viewers of SVG files do not know"


def test_map_has_a_column_of_its_own(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / "run"), a_run(tmp_path / "several", width=16, top1=None)]
    with (runs[1] / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"split": "test", "videos": 40, "mAP": 0.625}) + "\n")
    rows, _ = bench(runs, out=tmp_path / "out")
    assert [[cell.shown for cell in table(rows)[title]] for title in ("top-1 %", "mAP %")] == [
        ["80.0", "–"],
        ["–", "62.5"],
    ]
    first, second = csv.DictReader((tmp_path / "out/bench.csv").open())
    assert (first["top1"], first["mAP"], second["top1"], second["mAP"]) == ("80.0", "", "", "62.5")
    assert first["tested"] != second["tested"]


def test_a_recipe_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no recipe file nothing\.yaml"):
        bench(["nothing.yaml"], out=tmp_path / "out")
