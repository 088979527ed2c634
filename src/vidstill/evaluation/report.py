"""report.html: one self-contained page that shows how a run went, drawn without JavaScript."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidstill.config import parse_yaml
from vidstill.evaluation.metrics import Metrics
from vidstill.evaluation.views import Evaluation, read_predictions
from vidstill.files import atomic
from vidstill.video.decode import VideoError, probe, read_frames

MISTAKES, THUMBNAILS, THUMBNAIL_SIDE = 12, 4, 96
NAMED_CLASSES = 40  # a larger confusion matrix is drawn without names and numbers

STYLE = """
:root { color-scheme: light dark; --ink: #16191d; --soft: #5d6670; --line: #e3e6ea; --card: #fff; --page: #f6f7f9;
  --accent: #1769c2; --second: #c2571a; --heat: 23, 105, 194; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa3ad; --line: #2d3238; --card: #1b1f24;
  --page: #121417; --accent: #6cb2ff; --second: #ff9e66; --heat: 108, 178, 255; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.4rem 0 .7rem }
p { margin: .3rem 0; color: var(--soft) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; overflow-x: auto }
.row { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)) }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: 1.2rem }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem 1.1rem; min-width: 7.5rem }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums } .tile span { color: var(--soft); font-size: .85rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } td, th { padding: .2rem .7rem .2rem 0; text-align: left }
th { color: var(--soft); font-weight: 500; font-size: .85rem }
.bar { display: inline-block; height: .7rem; border-radius: 3px; background: var(--accent); vertical-align: middle }
.bar.rest { background: var(--line) }
.confusion td { width: 2.1rem; height: 1.9rem; min-width: 2.1rem; padding: 0; text-align: center; font-size: .78rem; border: 1px solid var(--page) }
.confusion th.side { text-align: right; white-space: nowrap; padding-right: .6rem }
.confusion th.top { writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem 0; white-space: nowrap }
.mistake img { width: 100%; border-radius: 6px; display: block; margin-bottom: .5rem } .mistake b { color: var(--second) }
.mistake small { color: var(--soft); word-break: break-all }
svg text { fill: var(--soft); font-size: 11px } pre { margin: 0; font-size: .8rem; line-height: 1.35 }
img.matrix { image-rendering: pixelated; width: min(100%, 44rem) }
"""


def write_report(folder: Path) -> Path:
    """The page of a run folder, from whatever it holds so far; returns its path."""
    rows = _read_rows(folder / "metrics.jsonl")
    best = json.loads((folder / "best.json").read_text(encoding="utf-8")) if (folder / "best.json").exists() else {}
    predictions = folder / "predictions.csv"
    scored = read_predictions(predictions) if predictions.exists() else None
    tested = next((row for row in reversed(rows) if row["split"] == "test"), {})
    sections = [
        _header(folder, best, tested),
        _curves(rows),
        *([_confusion(m := scored.metrics), _per_class(m), _mistakes(scored)] if scored else []),
        _unreadable(tested.get("unreadable_videos", [])),
        _settings(folder / "config.yaml"),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(folder.name)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>{"".join(sections)}</html>\n'
    )
    with atomic(folder / "report.html") as file:
        file.write(page.encode())
    return folder / "report.html"


def _read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _header(folder: Path, best: dict[str, Any], tested: dict[str, Any]) -> str:
    clip = best.get("input", {})
    told = [best.get("model", ""), f"{len(best['classes'])} classes" if best.get('classes') else ""]
    told += [f"{clip['frames']} frames of {clip['size']}²" if clip else ""]
    told += [f"best of epoch {best['provenance']['epoch'] + 1}" if "epoch" in best.get("provenance", {}) else ""]
    shown = {"top-1": "top1", "top-5": "top5", "mean class": "mean_class", "calibration error": "calibration_error"}
    tiles = [(label, f"{100 * tested[key]:.1f} %") for label, key in shown.items() if key in tested]
    tiles += [(f"videos tested{', not readable: ' + str(n) if (n := tested['unreadable']) else ''}", str(tested["videos"]))] if tested else []
    drawn = "".join(f'<div class="tile"><b>{value}</b><span>{escape(label)}</span></div>' for label, value in tiles)
    return f'<h1>{escape(folder.name)}</h1><p>{escape(" · ".join(filter(None, told)))}</p><div class="tiles">{drawn}</div>'


def _curves(rows: Sequence[dict[str, Any]]) -> str:
    """Loss, top-1 and learning rate over epochs."""
    train = [row for row in rows if row["split"] == "train"]
    val = [row for row in rows if row["split"] == "val"]
    if not train:
        return ""

    def points(of: Sequence[dict[str, Any]], key: str, scale: float = 1.0) -> list[tuple[float, float]]:
        return [(row["epoch"] + 1, row[key] * scale) for row in of if key in row]

    charts = [
        _chart("loss", {"training": points(train, "loss"), "validation": points(val, "loss")}),
        _chart("validation top-1, %", {"top-1": points(val, "top1", 100)}, (0, 100)),
        _chart("learning rate", {"rate": points(train, "lr")}),
    ]
    cards = "".join(f'<div class="card">{chart}</div>' for chart in charts if chart)
    return f'<h2>Training</h2><div class="row">{cards}</div>'


def _chart(
    title: str, lines: dict[str, list[tuple[float, float]]], span: tuple[float, float] | None = None
) -> str:
    lines = {name: points for name, points in lines.items() if points}
    values = [y for points in lines.values() for _, y in points if math.isfinite(y)]
    if not values:
        return ""
    width, height, left, right, top, bottom = 320, 190, 46, 10, 28, 24
    low, high = span or (min(0.0, *values), max(values) * 1.05 or 1.0)
    last = max(x for points in lines.values() for x, _ in points)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - 1) / (last - 1) if last > 1 else 0.5
        return left + across * (width - left - right), top + (1 - (y - low) / (high - low)) * (height - top - bottom)

    drawn = [f'<svg viewBox="0 0 {width} {height}" width="100%" role="img"><text x="{left}" y="14">{escape(title)}</text>']
    for share in (0, 0.5, 1):
        value = low + share * (high - low)
        y = place(1, value)[1]
        drawn.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        drawn.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for epoch in sorted({1, round((1 + last) / 2), round(last)}):
        drawn.append(f'<text x="{place(epoch, low)[0]:.1f}" y="{height - 7}" text-anchor="middle">{epoch}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = ("var(--accent)", "var(--second)")[number]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points if math.isfinite(point[1])))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>')
        if len(points) == 1:
            x, y = place(*points[0])
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        if len(lines) > 1:
            x = width - right - 62 * (len(lines) - number) + 62
            drawn.append(f'<text x="{x}" y="14" text-anchor="end" style="fill:{colour}">{escape(name)}</text>')
    return "".join([*drawn, "</svg>"])


def _confusion(m: Metrics) -> str:
    shares = m.confusion / np.maximum(m.confusion.sum(1, keepdims=True), 1)
    names = [row.name for row in m.classes]
    if len(names) > NAMED_CLASSES:
        image = Image.fromarray((255 * (1 - shares)).astype(np.uint8))
        body = f'<img class="matrix" alt="confusion matrix" src="data:image/png;base64,{_encoded(image, "PNG")}">'
    else:
        head = "".join(f'<th class="top">{escape(name)}</th>' for name in names)
        body = f'<table class="confusion"><tr><th></th>{head}</tr>'
        for name, counts, row in zip(names, m.confusion, shares, strict=True):
            cells = "".join(
                f'<td style="background:rgba(var(--heat),{0.85 * share:.2f})">{count or ""}</td>'
                for count, share in zip(counts, row, strict=True)
            )
            body += f'<tr><th class="side">{escape(name)}</th>{cells}</tr>'
        body += "</table>"
    return f'<h2>Confusion</h2><div class="card">{body}<p>Rows are the true class, columns what the model said.</p></div>'


def _per_class(m: Metrics) -> str:
    lines = []
    for row in sorted(m.classes, key=lambda row: (math.isnan(row.accuracy), row.accuracy, row.name)):
        share = 0.0 if math.isnan(row.accuracy) else row.accuracy
        bars = f'<span class="bar" style="width:{10 * share:.2f}rem"></span><span class="bar rest" style="width:{10 * (1 - share):.2f}rem"></span>'
        told = "–" if math.isnan(row.accuracy) else f"{100 * share:.0f} %"
        lines.append(
            f"<tr><td>{escape(row.name)}</td><td>{bars}</td><td>{told}</td><td>{row.videos}</td>"
            f"<td>{escape(row.confused or '')}</td></tr>"
        )
    head = "<tr><th>class</th><th></th><th>top-1</th><th>videos</th><th>most often taken for</th></tr>"
    return f'<h2>Classes, weakest first</h2><div class="card"><table>{head}{"".join(lines)}</table></div>'


def _mistakes(scored: Evaluation) -> str:
    """The wrong answers that the model was surest of, with a few frames each."""
    predicted, sure = scored.probabilities.argmax(1), scored.probabilities.max(1)
    wrong = [index for index in np.argsort(-sure) if predicted[index] != scored.labels[index]][:MISTAKES]
    if not wrong:
        return "<h2>Mistakes</h2><p>None.</p>"
    cards = []
    for index in wrong:
        sample = scored.samples[index]
        said, true = scored.classes[predicted[index]], scored.classes[sample.label]
        cards.append(
            f'<div class="card mistake">{_strip(sample.path)}{escape(true)}, taken for <b>{escape(said)}</b> '
            f"({100 * sure[index]:.0f} %)<br><small>{escape(sample.path.name)}</small></div>"
        )
    return f'<h2>The surest mistakes</h2><div class="row">{"".join(cards)}</div>'


def _strip(path: Path) -> str:
    """A few frames of a video side by side; nothing where it cannot be read any more."""
    try:
        count = probe(path).frames
        frames = read_frames(path, np.linspace(0, count - 1, THUMBNAILS).astype(int), short_side=THUMBNAIL_SIDE)
    except VideoError:
        return ""
    image = Image.fromarray(np.concatenate(list(frames), axis=1))
    return f'<img alt="" src="data:image/jpeg;base64,{_encoded(image, "JPEG")}">'


def _encoded(image: Image.Image, format: str) -> str:
    file = io.BytesIO()
    image.save(file, format)
    return base64.b64encode(file.getvalue()).decode()


def _unreadable(videos: Sequence[Sequence[str]]) -> str:
    if not videos:
        return ""
    lines = "".join(f"<tr><td>{escape(reason)}</td></tr>" for _, reason in videos)
    return f'<h2>Not tested: {len(videos)} unreadable</h2><div class="card"><table>{lines}</table></div>'


def _settings(path: Path) -> str:
    if not path.exists():
        return ""
    settings = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    cards = []
    for name, section in settings.items():
        if isinstance(section, dict):
            lines = "\n".join(f"{key}: {value}" for key, value in section.items() if value is not None)
            cards.append(f'<div class="card"><b>{escape(name)}</b><pre>{escape(lines)}</pre></div>')
    return f'<h2>Settings</h2><div class="row">{"".join(cards)}</div>'
