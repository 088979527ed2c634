"""report.html: one self-contained page that shows how a run went, from whatever its folder holds so far."""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
from collections.abc import Callable, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from vidstill.config import parse_yaml
from vidstill.evaluation.metrics import ClassRow, Metrics, MultiLabelMetrics, headline, reliability
from vidstill.evaluation.views import Evaluation, read_predictions
from vidstill.files import atomic
from vidstill.reporting.charts import NAMED, Series, confusion_chart, data_uri, line_chart, reliability_chart
from vidstill.video.decode import FramesMissing, VideoError, probe, read_frames

PAGE = Path(__file__).with_name("report.html")
MISTAKES, FRAMES, FRAME_SIDE = 12, 4, 112
CONFUSIONS = 12  # pairs of classes listed beside the matrix
SHOWN_CLASSES = 24  # weakest and strongest classes shown where there are too many for one list

Rows = list[dict[str, Any]]


def write_report(folder: Path) -> Path:
    """Write `report.html` of a run folder: what config.yaml, metrics.jsonl, best.json and predictions.csv tell.

    Each of them may be missing, as may the tested videos. Returns the path of the page. Raises WriteError.
    """
    problems: list[str] = []

    def read(name: str, reader: Callable[[Path], Any], absent: Any) -> Any:
        try:
            return reader(folder / name) if (folder / name).exists() else absent
        except ValueError as error:
            problems.append(f"{name} cannot be read: {error}")
            return absent

    rows: Rows = read("metrics.jsonl", read_rows, [])
    best: dict[str, Any] = read("best.json", _read_json, {})
    settings: dict[str, Any] = read("config.yaml", read_settings, {})
    scored: Evaluation | None = read("predictions.csv", read_predictions, None)
    tested = next((row for row in reversed(rows) if row.get("split") == "test"), {})
    parts = [_header(folder, best), *(f'<p class="card">{escape(problem)}</p>' for problem in problems)]
    metrics = scored.metrics if scored and scored.samples else None
    parts += [_headline(metrics, tested, rows, settings), _training(rows, best)]
    if scored and isinstance(metrics, MultiLabelMetrics):
        parts += [_classes(metrics.classes, "average precision"), _mistakes(scored)]
    elif scored and isinstance(metrics, Metrics):
        parts += [_confusion(metrics), _classes(metrics.classes, "right"), _mistakes(scored)]
        parts.append(_calibration(scored, metrics))
    parts += [_unreadable(tested), _settings(settings), _footer(best)]
    return write_page(folder / "report.html", folder.resolve().name, parts)


def write_page(path: Path, title: str, parts: Sequence[str]) -> Path:
    """A page in the house style around pieces of HTML; empty ones are left out. Raises WriteError."""
    page = Template(PAGE.read_text(encoding="utf-8"))
    with atomic(path) as file:
        text = page.substitute(title=escape(title), body="\n".join(filter(None, parts)))
        file.write(text.encode(errors="replace"))  # a path may hold bytes that are no text
    return path


def chart_style() -> str:
    """The rules for charts, for one that stands in a file of its own: literal colours, since many viewers of such files
    know no variables."""
    style = PAGE.read_text(encoding="utf-8")
    rules = style.partition("/* charts */")[2].partition("/* end of charts */")[0]
    light, dark = (
        dict(re.findall(r"(--\w+): (#\w+)", root)) for root in re.findall(r":root {(.*?)}", style, re.DOTALL)
    )

    def coloured(colours: dict[str, str]) -> str:
        return re.sub(r"var\((--\w+)\)", lambda name: colours[name[1]], rules)

    ground = "svg { font-family: system-ui, sans-serif }"
    return f"{ground}{coloured(light)}@media (prefers-color-scheme: dark) {{{coloured(dark)}}}"


def _header(folder: Path, best: dict[str, Any]) -> str:
    architecture, clip = best.get("architecture", {}), best.get("input", {})
    told = [architecture.get("name"), _parameters(folder / "best.safetensors")]
    if "num_classes" in architecture:
        told.append(f"{architecture['num_classes']} classes")
    if clip:
        told.append(
            f"{clip.get('sampling')} clips of {clip.get('frames')} frames at {clip.get('size')} × {clip.get('size')}"
        )
    return f"<header><h1>{escape(folder.resolve().name)}</h1><p>{escape(' · '.join(filter(None, told)))}</p></header>"


def _headline(
    metrics: Metrics | MultiLabelMetrics | None, tested: dict[str, Any], rows: Rows, settings: dict[str, Any]
) -> str:
    """The figures of the test; before it, those of the best validation."""
    if metrics is None:
        judged = [(found, row.get("split") == "val") for row in rows if (found := headline(row))]
        if not judged:
            return '<p class="card">Neither validated nor tested yet.</p>'
        (name, value), validated = max(judged, key=lambda found: found[0][1])
        seen = "one view per video; not tested yet" if validated else "predictions.csv is missing"
        return _tiles([(f"validation {name}" if validated else name, f"{value:.1%}", seen)])
    count = ("videos tested", f"{metrics.videos:,}".replace(",", "\u2009"), _views(tested, settings))
    if isinstance(metrics, MultiLabelMetrics):
        present = sum(row.videos > 0 for row in metrics.classes)
        return _tiles([
            ("mAP", f"{metrics.mean_average_precision:.1%}", f"mean average precision of {present} classes"),
            ("baseline", f"{metrics.chance:.1%}", "about what a random order of the videos has"),
            ("classes per video", f"{sum(row.videos for row in metrics.classes) / metrics.videos:.2g}", "on average"),
            count,
        ])  # fmt: skip
    videos = metrics.confusion.sum(1)
    low, high = interval(metrics.top1, metrics.videos)
    tiles = [("top-1", f"{metrics.top1:.1%}", f"95% interval {100 * low:.1f}–{100 * high:.1f}%")]
    if len(metrics.classes) > 5:
        tiles.append(("top-5", f"{metrics.top5:.1%}", "right class among the first five"))
    tiles += [
        ("mean class", f"{metrics.mean_class:.1%}", f"all {int((videos > 0).sum())} classes count alike"),
        ("baseline", f"{videos.max() / videos.sum():.1%}", "always naming the commonest class"),
        ("calibration", f"{metrics.calibration_error:.1%}", "gap of confidence and accuracy"),
        count,
    ]
    return _tiles(tiles)


def _tiles(tiles: Sequence[tuple[str, str, str]]) -> str:
    drawn = [
        f'<div class="card{"" if number else " first"}"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<small>{escape(told)}</small></div>"
        for number, (name, value, told) in enumerate(tiles)
    ]
    return f'<div class="figures">{"".join(drawn)}</div>'


def _views(tested: dict[str, Any], settings: dict[str, Any]) -> str:
    views = {**settings.get("test", {}), **tested}
    told = [f"{views['clips']} × {views['crops']} views each"] if {"clips", "crops"} <= views.keys() else []
    if unreadable := tested.get("unreadable"):
        told.append(f"{unreadable} unreadable")
    return ", ".join(told)


def interval(share: float, videos: int) -> tuple[float, float]:
    """95% interval of a share seen in so many videos (Wilson 1927)."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * videos)) / (1 + z2 / videos)
    half = math.sqrt(share * (1 - share) * z2 / videos + (z2 / (2 * videos)) ** 2) / (1 + z2 / videos)
    return middle - half, middle + half


def _training(rows: Rows, best: dict[str, Any]) -> str:
    """Loss, accuracy and learning rate over the epochs."""
    split = {name: [row for row in rows if row.get("split") == name and "epoch" in row] for name in ("train", "val")}
    if not split["train"]:
        return ""

    def points(name: str, key: str, scale: float = 1.0) -> list[tuple[float, float]]:
        return [(row["epoch"] + 1, scale * row[key]) for row in split[name] if isinstance(row.get(key), int | float)]

    chosen = best.get("provenance", {}).get("epoch")
    mark = None if chosen is None else chosen + 1
    accuracy = {"mAP": points("val", "mAP", 100), "top-1": points("val", "top1", 100)}
    if len(best.get("classes") or range(6)) > 5:
        accuracy["top-5"] = points("val", "top5", 100)
    charts = [
        _chart("Loss", {"training": points("train", "loss"), "validation": points("val", "loss")}),
        _chart(f"Validation {'mAP' if accuracy['mAP'] else 'accuracy'}", accuracy, (0, 100), mark, "%"),
        _chart("Learning rate", {"at the end of the epoch": points("train", "lr")}),
    ]
    epochs = split["train"][-1]["epoch"] + 1
    told = [f"{epochs} epoch{'s' if epochs > 1 else ''}, {split['train'][-1].get('step', '?')} steps"]
    told += [f"the model kept is that of epoch {mark}"] if mark else []
    if speeds := [row["clips_per_s"] for row in split["train"] if row.get("clips_per_s")]:
        told.append(f"{np.median(speeds):.3g} clips per second")
    return f'<h2>Training</h2><p>{escape("; ".join(told))}.</p><div class="grid">{"".join(charts)}</div>'


def _chart(
    title: str, series: Series, bounds: tuple[float, float] | None = None, mark: float | None = None, unit: str = ""
) -> str:
    series = {name: points for name, points in series.items() if points}
    legend = "".join(
        f'<span><i class="k{number}"></i>{escape(name)} {points[-1][1]:.3g}{unit}</span>'
        for number, (name, points) in enumerate(series.items())
    )
    return (
        f'<div class="card"><h3>{escape(title)}</h3><div class="legend">{legend}</div>'
        f"{line_chart(series, bounds, mark, unit)}</div>"
    )


def _confusion(metrics: Metrics) -> str:
    names = [row.name for row in metrics.classes]
    wrong = metrics.confusion - np.diag(np.diag(metrics.confusion))
    pairs = [divmod(int(place), len(names)) for place in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]]
    lines = "".join(
        f'<tr><td class="name">{escape(names[i])}</td><td class="name">{escape(names[j])}</td>'
        f'<td class="number">{wrong[i, j]} <span class="soft">of {metrics.confusion[i].sum()}</span></td></tr>'
        for i, j in pairs
        if wrong[i, j]
    )
    head = '<tr><th>true class</th><th>taken for</th><th class="number">videos</th></tr>'
    listed = f"<table>{head}{lines}</table>" if lines else "<p>No mistake at all.</p>"
    how = "Rows are the true classes, columns what the model says; colour is the share of the row."
    if len(names) > NAMED:
        how += " The classes are numbered in the order of the model's list."
    return (
        f'<h2>Confusion</h2><p>{how}</p><div class="two">'
        f'<div class="card scroll">{confusion_chart(metrics.confusion, names)}</div>'
        f'<div class="card"><h3>Most frequent confusions</h3>{listed}</div></div>'
    )


def _classes(rows: Sequence[ClassRow], figure: str) -> str:
    tested = sorted((row for row in rows if row.videos), key=lambda row: (row.accuracy, -row.videos, row.name))
    untested = [row.name for row in rows if not row.videos]
    if len(tested) <= 2 * SHOWN_CLASSES:
        half = -(-len(tested) // 2) if len(tested) > 12 else len(tested)
        lists = [_class_table(part, figure) for part in (tested[:half], tested[half:]) if part]
    else:
        strongest = sorted(tested, key=lambda row: (-row.accuracy, -row.videos))
        lists = [
            _class_table(tested[:SHOWN_CLASSES], figure, "Weakest"),
            _class_table(strongest[:SHOWN_CLASSES], figure, "Strongest"),
        ]
    drawn = f'<h2>Classes</h2><p>Weakest first.</p><div class="grid">{"".join(lists)}</div>'
    if len(tested) > 2 * SHOWN_CLASSES:
        drawn += f"<details><summary>All {len(tested)} classes</summary>{_class_table(tested, figure)}</details>"
    if untested:
        drawn += f'<p class="soft">Without test videos: {escape(", ".join(untested))}</p>'
    return drawn


def _class_table(rows: Sequence[ClassRow], figure: str, title: str = "") -> str:
    lines = "".join(
        f'<tr><td class="name">{escape(row.name)}</td>'
        f'<td class="wide"><span class="meter"><i style="width:{100 * row.accuracy:.1f}%"></i></span></td>'
        f'<td class="number">{row.accuracy:.0%}</td><td class="number soft">{row.videos}</td>'
        f'<td class="name soft">{escape(row.confused or "")}</td></tr>'
        for row in rows
    )
    figures = f'<th class="number">{figure}</th><th class="number">videos</th>'
    confused = "<th>often taken for</th>" if any(row.confused for row in rows) else "<th></th>"
    head = f"<tr><th>class</th><th></th>{figures}{confused}</tr>"
    return f'<div class="card">{f"<h3>{title}</h3>" if title else ""}<table>{head}{lines}</table></div>'


def _mistakes(scored: Evaluation) -> str:
    """The wrong answers that the model was surest of, with a few frames each."""
    said, sure = scored.probabilities.argmax(1), scored.probabilities.max(1)
    order = np.argsort(-sure, kind="stable")
    wrong = [int(n) for n in order if said[n] not in scored.samples[n].labels][:MISTAKES]
    if not wrong:
        return ""
    cards = []
    for n in wrong:
        path, labels = scored.samples[n].path, scored.samples[n].labels
        truth = ", ".join(f"{escape(scored.classes[true])} {scored.probabilities[n, true]:.0%}" for true in labels)
        cards.append(
            f'<div class="card mistake">{_frames(path)}<div>Said <b>{escape(scored.classes[said[n]])}</b> '
            f"{sure[n]:.0%}, is {truth}</div>"
            f"<small>{escape(str(Path(*path.parts[-3:])))}</small></div>"
        )
    return (
        "<h2>Surest mistakes</h2><p>Wrong answers with the highest scores: the label may be wrong too.</p>"
        f'<div class="grid">{"".join(cards)}</div>'
    )


def _frames(path: Path) -> str:
    """A few frames of a video side by side."""
    try:
        count = probe(path).frames
        try:
            frames = _evenly(path, count)
        except FramesMissing as missing:
            frames = _evenly(path, max(1, missing.available))
    except VideoError:
        return '<div class="frames missing">the video cannot be read any more</div>'
    images = (f'<img alt="" src="{data_uri(Image.fromarray(frame), "JPEG")}">' for frame in frames)
    return f'<div class="frames">{"".join(images)}</div>'


def _evenly(path: Path, count: int) -> np.ndarray:
    middles = (np.arange(FRAMES) + 0.5) / FRAMES * count
    return read_frames(path, middles.astype(np.int64), short_side=FRAME_SIDE)


def _calibration(scored: Evaluation, metrics: Metrics) -> str:
    sure = float(scored.probabilities.max(1).mean())
    gap = sure - metrics.top1
    verdict = "about as sure as it may be" if abs(gap) < 0.02 else "too sure" if gap > 0 else "less sure than it may be"
    told = (
        f"On average the model gives its answer {sure:.0%} and is right in {metrics.top1:.0%} of the videos: it is "
        f"{verdict}. The calibration error, {metrics.calibration_error:.1%}, is the mean distance of the bars from the "
        "line."
    )
    chart = reliability_chart(*reliability(scored.probabilities, scored.labels))
    legend = '<span><i class="k0"></i>accuracy at this confidence</span><span><i class="k2"></i>number of videos</span>'
    return f'<h2>Calibration</h2><p>{told}</p><div class="card narrow"><div class="legend">{legend}</div>{chart}</div>'


def _unreadable(tested: dict[str, Any]) -> str:
    videos = tested.get("unreadable_videos", [])
    if not videos:
        return ""
    lines = "".join(
        f"<li>{escape(path)}<br><small>{escape(reason.removeprefix(f'{path}: '))}</small></li>"
        for path, reason in videos
    )
    return (
        f"<h2>Unreadable videos</h2><p>{len(videos)} could not be read and count in no figure.</p>"
        f'<div class="card"><ul>{lines}</ul></div>'
    )


def _settings(settings: dict[str, Any]) -> str:
    if not settings:
        return ""
    single = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    sections = {"run": single, **{key: value for key, value in settings.items() if isinstance(value, dict)}}
    cards = []
    for name, section in sections.items():
        lines = "".join(
            f"<dt>{escape(str(key))}</dt><dd>{escape(_shown(value))}</dd>" for key, value in section.items()
        )
        cards.append(f'<div class="card"><h3>{escape(name)}</h3><dl>{lines}</dl></div>')
    return f'<h2>Settings</h2><div class="columns">{"".join(cards)}</div>'


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _footer(best: dict[str, Any]) -> str:
    made = {"vidstill": version("vidstill"), **best.get("provenance", {})}
    return f"<footer>{escape(' · '.join(f'{key} {_shown(value)}' for key, value in made.items()))}</footer>"


def read_rows(path: Path) -> Rows:
    """Lines of metrics.jsonl; one that a crash cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            rows.append(dict(json.loads(line)))
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def read_settings(path: Path) -> dict[str, Any]:
    return dict(parse_yaml(path.read_text(encoding="utf-8"), path.name) or {})


def _parameters(path: Path) -> str:
    """How many, from the header of a safetensors file (8 bytes of length, then JSON)."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    except (OSError, ValueError, struct.error):
        return ""
    count = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return f"{count / 1e6:.1f} M parameters" if count >= 1e5 else f"{count} parameters"
