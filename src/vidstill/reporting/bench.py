"""The page, the table and the chart of models side by side."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import torch

from vidstill.evaluation.cost import Cost, machine_load, processor
from vidstill.files import atomic
from vidstill.reporting import tables
from vidstill.reporting.charts import Point, pareto_chart, standalone
from vidstill.reporting.comparison import Row, compare
from vidstill.reporting.page import chart_style, write_page
from vidstill.reporting.tables import Cell, Table, amount, digits, text

DETAILS = ("network", "tested on", "weights MB", "clip", "threads")  # columns for which a terminal is too narrow
ALONE = 960, 500  # extent of a chart that has the page to itself
MARK = "†"  # of a figure that belongs to the epoch which is best on the tested videos


def bench(
    sources: Sequence[str | Path] = (),
    models: str | None = None,
    *,
    recipe: str | None = None,
    out: Path = Path("bench"),
    device: str = "cpu",
    frames: int | None = None,
    size: int | None = None,
    threads: int | None = None,
    repeats: int = 10,
    bf16: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> tuple[list[Row], Path]:
    """`compare`, whose arguments and errors these are, and write bench.csv, bench.md, bench.html and pareto.svg.

    Returns the rows and the page, in the folder `out`.
    """
    when, load = datetime.now().astimezone(), machine_load()
    rows = compare(
        sources, models, recipe=recipe, device=device, frames=frames, size=size, threads=threads, repeats=repeats,
        bf16=bf16, report=report,
    )  # fmt: skip
    machine = f"{when:%Y-%m-%d %H:%M %Z}, {'nothing measured' if device == 'meta' else processor(device)}"
    if load and device != "meta":
        machine += f", load {load[0]:.1f} on {load[1]} cores"
    return rows, _write(rows, out, machine, _conditions(device, repeats, bf16))


def table(rows: Sequence[Row]) -> Table:
    """Columns by title; those in which no row has anything are left out."""
    cells = [_cells(row) for row in rows]
    return tables.without_empty({title: [line[title] for line in cells] for title in cells[0]})


def notes(rows: Sequence[Row]) -> list[str]:
    """What has to be said of figures in the table."""
    if not any(row.chosen_on_test for row in rows):
        return []
    return [
        f"{MARK} best of the run's epochs on these very videos, which flatters it; an honest figure needs "
        "--data.nested true"
    ]


def _cells(row: Row) -> dict[str, Cell]:
    def mean(values: list[float]) -> Cell:
        if not values:
            return text("")
        spread = f" ± {row.deviation:.1f} (n = {len(values)})" if len(values) > 1 else ""
        mark = f" {MARK}" if row.chosen_on_test else ""
        return Cell(f"{statistics.mean(values):.1f}{spread}{mark}", statistics.mean(values))

    def cost(name: str, unit: str = "", scale: float = 1.0, more: str = "") -> Cell:
        return amount(getattr(row.cost, name, None), unit, scale, more)

    low, high = (row.cost.ms_low, row.cost.ms_high) if row.cost else (None, None)
    interval = "" if low is None or high is None else f" ({digits(low)}–{digits(high)})"
    timed = row.cost is not None and row.cost.ms is not None
    return {
        "name": text(row.name),
        "top-1 %": mean(row.top1),
        "mAP %": mean(row.mean_ap),
        "published top-1 %": text(row.published.figure if row.published else ""),
        "parameters": cost("parameters", " M", 1e-6),
        "GMACs": cost("gmacs"),
        "ms per clip": cost("ms", more=interval),
        "threads": Cell(str(row.cost.threads), row.cost.threads) if row.cost and timed else text(""),
        "memory MB": cost("memory_mb"),
        "weights MB": cost("weights_mb"),
        "clip": text(f"{row.cost.frames} × {row.cost.size}²" if row.cost else ""),
        "tested on": text(row.tested),
        "teacher": text(row.teacher),
        "network": text(row.model if row.model != row.name else ""),
    }


def _conditions(device: str, repeats: int, bf16: bool) -> str:
    counted = (
        f"PyTorch {torch.__version__}. GMACs: 10⁹ multiply-adds of matrix products and convolutions. ±: standard "
        "deviation over n seeds. Published: by the authors, with this network and clip."
    )
    if device == "meta":
        return counted
    memory = "the process" if device == "cpu" else "what PyTorch held on the GPU"
    return (
        f"{'bfloat16' if bf16 else 'float32'}, form for inference, one clip at a time, each model in its own process. "
        f"Time: median of {repeats} forwards after a warm-up, with its 95 % interval (of order statistics; below 6 "
        f"forwards their range). Memory: what loading and running the model added to {memory}. {counted}"
    )


def _write(rows: Sequence[Row], out: Path, machine: str, conditions: str) -> Path:
    """bench.csv, bench.md, pareto.svg and the page, whose path is returned."""
    out.mkdir(parents=True, exist_ok=True)
    across = {"ms per clip": _series(rows, "ms"), "GMACs": _series(rows, "gmacs")}
    across = {title: series for title, series in across.items() if series}
    extent = () if len(across) > 1 else ALONE
    charts = [pareto_chart(series, title, *extent) for title, series in across.items()]
    footnotes = [*notes(rows), f"{machine}; {conditions}"]
    drawn = table(rows)
    texts = {"bench.csv": _csv(rows), "bench.md": "\n\n".join([tables.to_markdown(drawn), *footnotes]) + "\n"}
    if charts:
        texts["pareto.svg"] = standalone(charts, chart_style())
    for name, content in texts.items():
        with atomic(out / name) as file:
            file.write(content.encode(errors="replace"))
    if not charts:
        (out / "pareto.svg").unlink(missing_ok=True)  # of other rows
    what = "Above and to the left is better; the line joins the models that none beats at the same cost."
    if not charts:
        what = "No model has both an accuracy and a cost."
    cards = "".join(f'<div class="card">{chart}</div>' for chart in charts) or pareto_chart({}, "")
    parts = [
        f"<header><h1>Models compared</h1><p>{escape(machine)}</p></header>",
        f'<h2>Accuracy and cost</h2><p>{what}</p><div class="pair">{cards}</div>',
        "<h2>Table</h2><p>A press on a head sorts.</p>",
        tables.to_html(drawn),
        *(f'<p class="note">{escape(note)}</p>' for note in notes(rows)),
        f"<footer>{escape(conditions)}</footer>",
        tables.SORTING,
    ]
    return write_page(out / "bench.html", "Models compared", parts)


def _series(rows: Sequence[Row], cost: str) -> dict[str, list[Point]]:
    """Points by what they were tested on: accuracies on other videos do not compare. Of the published ones only those
    on the data set that most of the models have."""
    known = Counter(row.published.data for row in rows if row.published)
    common = max(known, key=lambda name: known[name], default=None)
    series: dict[str, list[Point]] = {}
    for row in rows:
        if (x := getattr(row.cost, cost, None)) is None:
            continue
        if row.results:
            best = f", {MARK} best epoch on them" if row.chosen_on_test else ""
            point = Point(row.name, x, statistics.mean(row.results), row.deviation)
            series.setdefault(row.tested + best, []).append(point)
        elif row.published and row.published.top1 is not None and row.published.data == common:
            name = row.name.removeprefix(f"{common.lower()}_")  # the legend says it
            series.setdefault(f"{common}, published", []).append(Point(name, x, row.published.top1))
    return series


def _csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    own = ["name", "network", "n", "top1", "top1_deviation", "mAP", "mAP_deviation", "tested", "chosen_on_test",
           "published", "teacher"]  # fmt: skip
    writer = csv.DictWriter(file, [*own, *(field.name for field in fields(Cost))], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        line = {
            "name": row.name, "network": row.model, "n": len(row.results), "tested": row.tested,
            "chosen_on_test": "yes" if row.chosen_on_test else "", "teacher": row.teacher,
            "published": row.published.figure if row.published else "",
        }  # fmt: skip
        if row.results:
            figure = "top1" if row.top1 else "mAP"
            line |= {figure: statistics.mean(row.results)}
            line |= {f"{figure}_deviation": row.deviation} if len(row.results) > 1 else {}
        writer.writerow(line | (asdict(row.cost) if row.cost else {}))
    return file.getvalue()
