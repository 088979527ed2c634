"""Models side by side: what trained and registered ones achieve and cost, as table, chart and page."""

from __future__ import annotations

import csv
import functools
import io
import logging
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vidstill.data.isolated import Lost, isolated
from vidstill.evaluation.cost import Cost, find_device, measure, processor
from vidstill.evaluation.metrics import headline
from vidstill.files import atomic
from vidstill.models.catalogue import CATALOGUE, matching
from vidstill.models.registry import create_model, list_models
from vidstill.models.weights import describe, load
from vidstill.reporting.charts import Point, pareto_chart, standalone
from vidstill.reporting.report import read_rows, read_settings, style_sheet, write_page

log = logging.getLogger(__name__)

SEED = re.compile(r"-s\d+$")  # what tells the folders of one run with several seeds apart
PATIENCE = 3600.0  # seconds for one model
UNSTEADY = 0.2  # distance of the quartiles over the median; a quiet machine stays below a tenth
NOTHING = "–"
DETAILS = ("network", "tested on", "weights MB", "clip")  # columns for which a terminal is too narrow

# Sorts by the column whose head is pressed, then the other way round; what has no value stays last.
SORTING = """<script>
for (const table of document.querySelectorAll("table.sortable")) table.tHead.addEventListener("click", ({target}) => {
  const head = target.closest("th"), sign = head.ariaSort === "ascending" ? -1 : 1
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort")
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending")
  const value = row => row.cells[head.cellIndex].dataset.value
  const known = [...table.tBodies[0].rows].filter(row => value(row) !== undefined)
  const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b
  known.sort((a, b) => sign * compare(value(a), value(b)))
  table.tBodies[0].prepend(...known)
})
</script>"""


class Cell(NamedTuple):
    """Of a table: as it is shown and as it is sorted."""

    shown: str
    value: float | str | None


@dataclass
class Row:
    """A model of the comparison: a run, the runs of one recipe with several seeds, or a registered network."""

    name: str
    model: str
    source: Path | None = None  # None: the registered network, with random weights
    top1: list[float] = field(default_factory=list)  # of the test, per cent, one of each seed
    mean_ap: list[float] = field(default_factory=list)  # instead, where videos have several classes
    tested: str = ""  # on what
    teacher: str = ""
    cost: Cost | None = None

    @property
    def results(self) -> list[float]:
        return self.top1 or self.mean_ap

    @property
    def deviation(self) -> float:
        """Sample standard deviation over the seeds."""
        return statistics.stdev(self.results) if len(self.results) > 1 else 0.0

    @property
    def published(self) -> dict[str, float]:
        """Of the registered network, per cent by data set."""
        return CATALOGUE[self.model].top1() if self.source is None else {}


@dataclass
class _Run:
    """A trained model and what its folder says of it."""

    path: Path
    about: dict[str, Any]  # best.json
    settings: dict[str, Any]  # config.yaml, or nothing
    test: dict[str, Any]  # the test's row of metrics.jsonl, or nothing


def bench(
    runs: Sequence[str | Path] = (),
    models: str | None = None,
    *,
    out: Path = Path("bench"),
    device: str = "cpu",
    frames: int | None = None,
    size: int | None = None,
    threads: int | None = None,
    repeats: int = 10,
    bf16: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> tuple[list[Row], Path]:
    """Compare run folders (or model files) and the registered models that match `models`; without both, all of those.

    Every model is measured alone in a process of its own, one clip at a time, in its form for inference; `frames` and
    `size` take the place of those that it was trained with. Runs are one row where their folders differ by a trailing
    `-s0`, `-s1`, … or their settings by the seed. Writes bench.csv, bench.md, bench.html and pareto.svg into `out`;
    returns the rows and the page. Raises ValueError for a folder without a model, an unknown model, device or number.
    """
    find_device(device)
    for name, value in (("frames", frames), ("size", size), ("threads", threads), ("repeats", repeats)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value}: give 1 or more")
    rows = _trained(runs) + (_registered(models or "*") if models or not runs else [])
    options = {"device": device, "frames": frames, "size": size, "repeats": repeats, "bf16": bf16}
    for n, row in enumerate(rows):
        report({"what": "measuring", "done": n, "total": len(rows), "detail": row.name})
        ((_, outcome),) = isolated(_cost, [(row.source or row.model, threads, options)], [PATIENCE], 1)
        if not isinstance(outcome, Lost):
            row.cost = outcome
            if (scatter := _scatter(outcome)) > UNSTEADY:
                log.warning("%s: its times scatter by %.0f%%: measure on a quiet machine", row.name, 100 * scatter)
        elif len(rows) == 1:
            raise ValueError(f"{row.name} cannot be measured: {outcome.reason}")
        else:
            log.warning("%s cannot be measured: %s", row.name, outcome.reason)
        if row.source and not row.results:
            log.warning("%s has no test result: `vidstill test %s` makes one", row.name, row.source)
    report({"what": "measuring", "done": len(rows), "total": len(rows)})
    return rows, _write(rows, out, _conditions(rows, device, repeats, bf16))


def table(rows: Sequence[Row]) -> dict[str, list[Cell]]:
    """Columns by title; those in which no row has anything are left out."""
    cells = [_cells(row) for row in rows]
    columns = {title: [line[title] for line in cells] for title in cells[0]}
    return {title: column for title, column in columns.items() if any(cell.shown != NOTHING for cell in column)}


def _trained(paths: Sequence[str | Path]) -> list[Row]:
    """A row for each group of runs that differ in nothing but the seed."""
    runs: dict[Path, _Run] = {}
    for path in map(Path, paths):
        about, weights = describe(path)
        if not isinstance(about.get("architecture"), dict) or not isinstance(about.get("input"), dict):
            raise ValueError(f"{weights.with_suffix('.json')} does not describe a model: train it again")
        folder = weights.parent
        rows = read_rows(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
        settings = read_settings(folder / "config.yaml") if (folder / "config.yaml").exists() else {}
        test = next((row for row in reversed(rows) if row.get("split") == "test" and headline(row)), {})
        runs[weights.resolve()] = _Run(path, about, settings, test)
    groups: list[list[_Run]] = []
    for run in runs.values():
        if (group := next((group for group in groups if _alike(run, group[0])), None)) is not None:
            group.append(run)
        else:
            groups.append([run])
    homes = [_home(group[0].path) for group in groups]
    several = [len(group) > 1 for group in groups]
    names = _names([_without_seed(home) if more else home for home, more in zip(homes, several, strict=True)])
    return [_row(name, group) for name, group in zip(names, groups, strict=True)]


def _row(name: str, group: Sequence[_Run]) -> Row:
    first, tests = group[0], [run.test for run in group if run.test]
    classes = len(first.about.get("classes") or ())
    top1, mean_ap = ([100 * test[key] for test in tests if key in test] for key in ("top1", "mAP"))
    tested = f"{tests[0].get('videos', '?')} videos, {classes} classes" if tests else ""
    return Row(
        name,
        first.about["architecture"].get("name", NOTHING),
        first.path,
        top1,
        mean_ap,
        f"{tested}, mAP" if mean_ap else tested,
        ", ".join(_teachers(first)),
    )


def _alike(one: _Run, other: _Run) -> bool:
    """The same network on the same classes, under names or with settings that differ by the seed alone."""
    if any(one.about.get(part) != other.about.get(part) for part in ("architecture", "classes")):
        return False
    if any(one.about["input"].get(part) != other.about["input"].get(part) for part in ("frames", "size")):
        return False
    if _without_seed(_home(one.path)) == _without_seed(_home(other.path)):
        return True
    return bool(one.settings) and _recipe(one.settings) == _recipe(other.settings)


def _recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the seed and without where things lie: embedded data are made from the seed, too."""
    kept = {name: value for name, value in settings.items() if name not in ("name", "out", "seed")}
    if kept.get("data", {}).get("format") == "synthetic":
        kept["data"] = {**kept["data"], "root": None}
    return kept


def _teachers(run: _Run) -> list[str]:
    """Names of the folders or files whose models taught this one, as the model file or the settings tell."""
    if run.settings.get("objective") != "distil":
        return []
    provenance = run.about.get("provenance", {})
    told = provenance.get("teachers") or run.settings.get("distil", {}).get("teacher") or []
    sources = [one["source"] if isinstance(one, dict) else one for one in ([told] if isinstance(told, str) else told)]
    return _names([_home(Path(source)) for source in sources])


def _without_seed(home: Path) -> Path:
    return home.with_name(SEED.sub("", home.name))


def _home(path: Path) -> Path:
    """What a model goes by: the folder of a run, else its file."""
    whole = path.resolve()
    return whole.parent if whole.stem == "best" else whole


def _names(homes: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    names: list[str] = []
    for depth in range(1, max((len(home.parts) for home in homes), default=0) + 1):
        names = [str(Path(*home.parts[-depth:])) for home in homes]
        if len(set(names)) == len(names):
            break
    return names


def _registered(pattern: str) -> list[Row]:
    if not (found := list(matching(pattern))):
        raise ValueError(f"no model matches {pattern!r}; known: {', '.join(CATALOGUE)}")
    return [Row(name, name) for name in found]


def _cost(job: tuple[Path | str, int | None, dict[str, Any]]) -> Cost:
    """Of a saved or a registered model, in a process that does nothing else."""
    source, threads, options = job
    if threads is not None:
        torch.set_num_threads(threads)
    list_models()  # loads the code of the models, which is not what is measured
    make = functools.partial(load, source) if isinstance(source, Path) else functools.partial(create_model, source)
    return measure(make, **options)


def _scatter(cost: Cost) -> float:
    if cost.ms is None or cost.ms_low is None or cost.ms_high is None:
        return 0.0
    return (cost.ms_high - cost.ms_low) / cost.ms


def _cells(row: Row) -> dict[str, Cell]:
    def amount(name: str, unit: str = "", scale: float = 1.0) -> Cell:
        value = getattr(row.cost, name, None)
        return Cell(NOTHING, None) if value is None else Cell(f"{_digits(scale * value)}{unit}", value)

    def text(value: str) -> Cell:
        return Cell(value, value) if value else Cell(NOTHING, None)

    def mean(values: list[float]) -> Cell:
        if not values:
            return Cell(NOTHING, None)
        spread = f" ± {row.deviation:.1f} (n = {len(values)})" if len(values) > 1 else ""
        return Cell(f"{statistics.mean(values):.1f}{spread}", statistics.mean(values))

    cost = row.cost
    low, high = (cost.ms_low, cost.ms_high) if cost else (None, None)
    quartiles = "" if low is None or high is None else f" ({_digits(low)}–{_digits(high)})"
    return {
        "name": text(row.name),
        "top-1 %": mean(row.top1),
        "mAP %": mean(row.mean_ap),
        "published top-1 %": text("; ".join(f"{name} {share:.1f}" for name, share in row.published.items())),
        "parameters": amount("parameters", " M", 1e-6),
        "GMACs": amount("gmacs"),
        "ms per clip": amount("ms", quartiles),
        "memory MB": amount("memory_mb"),
        "weights MB": amount("weights_mb"),
        "clip": text(f"{cost.frames} × {cost.size}²" if cost else ""),
        "tested on": text(row.tested),
        "teacher": text(row.teacher),
        "network": text(row.model if row.source else ""),
    }


def _digits(value: float) -> str:
    """Three digits, more of large numbers."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else f"{value:.0f}"


def _conditions(rows: Sequence[Row], device: str, repeats: int, bf16: bool) -> str:
    threads = max((row.cost.threads for row in rows if row.cost), default=0)
    cores = f", {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else ""
    return (
        f"{processor(device)}{cores}, PyTorch {torch.__version__}, {'bfloat16' if bf16 else 'float32'}, form for "
        f"inference, one clip at a time, each model in its own process. Time: median of {repeats} forwards after a "
        "warm-up (quartiles). Memory: what loading and running the model added to "
        f"{'the process' if device == 'cpu' else 'what PyTorch held on the GPU'}. GMACs: 10⁹ multiply-adds of matrix "
        "products and convolutions. ±: standard deviation over n seeds."
    )


def _write(rows: Sequence[Row], out: Path, conditions: str) -> Path:
    """bench.csv, bench.md, pareto.svg and the page, whose path is returned."""
    out.mkdir(parents=True, exist_ok=True)
    across = {"ms per clip": _series(rows, "ms"), "GMACs": _series(rows, "gmacs")}
    charts = [pareto_chart(series, title) for title, series in across.items() if series]
    texts = {"bench.csv": _csv(rows), "bench.md": f"{_markdown(rows)}\n\n{conditions}\n"}
    if charts:
        texts["pareto.svg"] = standalone(charts, style_sheet())
    for name, text in texts.items():
        with atomic(out / name) as file:
            file.write(text.encode(errors="replace"))
    what = "Above and to the left is better; the line joins the models that none beats at the same cost."
    if not charts:
        what = "No model has both an accuracy and a cost."
    parts = [
        f"<header><h1>Models compared</h1><p>{escape(conditions.partition(', form')[0])}</p></header>",
        f"<h2>Accuracy and cost</h2><p>{what}</p>",
        '<div class="pair">'
        + ("".join(f'<div class="card">{chart}</div>' for chart in charts) or pareto_chart({}, ""))
        + "</div>",
        "<h2>Table</h2><p>A press on a head sorts.</p>",
        _html(rows),
        f"<footer>{escape(conditions)}</footer>",
        SORTING,
    ]
    return write_page(out / "bench.html", "Models compared", parts)


def _series(rows: Sequence[Row], cost: str) -> dict[str, list[Point]]:
    """Points by what they were tested on: accuracies on other videos do not compare. Of the published ones only those
    on the data set that most of the models have."""
    known = Counter(name for row in rows for name in row.published)
    common = max(known, key=lambda name: known[name], default=None)
    series: dict[str, list[Point]] = {}
    for row in rows:
        if row.cost is None:
            continue
        if (x := getattr(row.cost, cost)) is None:
            continue
        if row.results:
            series.setdefault(row.tested, []).append(Point(row.name, x, statistics.mean(row.results), row.deviation))
        elif common in row.published:
            series.setdefault(f"{common}, published", []).append(Point(row.name, x, row.published[common]))
    return series


def _csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    own = ["name", "network", "n", "top1", "top1_deviation", "mAP", "mAP_deviation", "tested", "published", "teacher"]
    writer = csv.DictWriter(file, [*own, *(field.name for field in fields(Cost))], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        line = {
            "name": row.name, "network": row.model, "n": len(row.results), "tested": row.tested,
            "published": "; ".join(f"{name} {share}" for name, share in row.published.items()), "teacher": row.teacher,
        }  # fmt: skip
        if row.results:
            figure = "top1" if row.top1 else "mAP"
            line |= {figure: statistics.mean(row.results)}
            line |= {f"{figure}_deviation": row.deviation} if len(row.results) > 1 else {}
        writer.writerow(line | (asdict(row.cost) if row.cost else {}))
    return file.getvalue()


def _markdown(rows: Sequence[Row]) -> str:
    columns = table(rows)
    lines = [
        list(columns),
        ["---:" if _numeric(column) else "---" for column in columns.values()],
        *zip(*([cell.shown.replace("|", "\\|") for cell in column] for column in columns.values()), strict=True),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(rows: Sequence[Row]) -> str:
    columns = table(rows)
    kinds = ["number" if _numeric(column) else "name" for column in columns.values()]
    heads = "".join(
        f'<th class="{kind}"><button>{escape(title)}</button></th>' for title, kind in zip(columns, kinds, strict=True)
    )
    lines = []
    for cells in zip(*columns.values(), strict=True):
        parts = []
        for cell, kind in zip(cells, kinds, strict=True):
            value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
            parts.append(f'<td class="{kind}"{value}>{escape(cell.shown)}</td>')
        lines.append(f"<tr>{''.join(parts)}</tr>")
    drawn = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="card scroll"><table class="sortable">{drawn}</table></div>'


def _numeric(column: Sequence[Cell]) -> bool:
    return any(isinstance(cell.value, int | float) for cell in column)
