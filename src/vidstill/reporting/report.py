"""report.html: one self-contained page that shows how a run went, from whatever its folder holds so far."""

from __future__ import annotations

import json
import math
import os
import statistics
import struct
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vidstill.evaluation.metrics import headline, per_cent
from vidstill.evaluation.predictions import read_predictions
from vidstill.reporting.charts import Series, line_chart
from vidstill.reporting.folder import Rows, read_json, read_rows, read_settings, tested_row
from vidstill.reporting.page import Tile, tiles, write_page
from vidstill.reporting.recognition import recognition_curves, recognition_sections, recognition_tiles

# What a test leaves in a folder: how to read it, its figures and its sections of the page.
RESULTS: dict[str, tuple[Callable[[Path], Any], Callable[[Any, str], list[Tile]], Callable[[Any], list[str]]]] = {
    "predictions.csv": (read_predictions, recognition_tiles, recognition_sections),
}


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
    home = folder.parent.parent if folder.parent.name == "tests" else folder  # of the model
    best: dict[str, Any] = read(os.path.relpath(home / "best.json", folder), read_json, {})
    settings: dict[str, Any] = read("config.yaml", read_settings, {})
    tested = tested_row(rows)
    figures: list[Tile] = _validated(rows)
    sections: list[str] = []
    for name, (reader, tiles_of, sections_of) in RESULTS.items():
        if (result := read(name, reader, None)) is not None and result.samples:
            figures, sections = tiles_of(result, _views(tested, settings)), sections_of(result)
    curves = recognition_curves(len(best.get("classes") or range(6)))
    flattery = flattery_of(tested, rows)
    parts = [
        _header(folder, home, best),
        *(f'<p class="card">{escape(problem)}</p>' for problem in problems),
        _headline(figures, flattery),
        _training(rows, best, curves),
        *sections,
        _unreadable(tested),
        _settings(settings),
        _footer(best),
    ]
    return write_page(folder / "report.html", folder.resolve().name, parts)


def _headline(figures: Sequence[Tile], flattery: str) -> str:
    """The figures, and under them what has to be said of the videos that they are of."""
    if not figures:
        return '<p class="card">Neither validated nor tested yet.</p>'
    if not flattery:
        return tiles(figures)
    (name, value, told), *others = figures
    first = (name, value, f"{flattery.partition(':')[0]}; {told}")
    return tiles([first, *others]) + f'<p class="card warning">{escape(flattery)}</p>'


def flattery_of(tested: Mapping[str, Any], rows: Rows) -> str:
    """What makes the figures better than they are; nothing where the run does not say."""
    if tested.get("chosen_on_test") is not True:
        return ""
    epochs = sum(row.get("split") == "val" for row in rows)
    return (
        f"Best of {epochs} epochs on these very clips: the epoch whose model was kept was chosen by the videos that "
        "are tested here, so that the figures are too good. An honest figure needs --data.nested true: the tested "
        "videos then choose nothing."
    )


def _validated(rows: Rows) -> list[Tile]:
    """Before the test, the best validation."""
    judged = [(found, row.get("split") == "val") for row in rows if (found := headline(row))]
    if not judged:
        return []
    (name, value), validated = max(judged, key=lambda found: found[0][1])
    seen = "one view per video; not tested yet" if validated else "predictions.csv is missing"
    return [(f"validation {name}" if validated else name, per_cent(value), seen)]


def _views(tested: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    views = {**settings.get("test", {}), **tested}
    split = tested.get("tested_split")
    told = ["all videos"] if split == "all" else [f"{split} split"] if split else []
    told += [f"{views['clips']} × {views['crops']} views each"] if {"clips", "crops"} <= views.keys() else []
    if unreadable := tested.get("unreadable"):
        told.append(f"{unreadable} unreadable")
    return ", ".join(told)


def _header(folder: Path, home: Path, best: dict[str, Any]) -> str:
    architecture, clip = best.get("architecture", {}), best.get("input", {})
    told = [architecture.get("name"), _parameters(home / "best.safetensors")]
    if "num_classes" in architecture:
        told.append(f"{architecture['num_classes']} classes")
    if clip:
        told.append(
            f"{clip.get('sampling')} clips of {clip.get('frames')} frames at {clip.get('size')} × {clip.get('size')}"
        )
    title = folder.resolve().name if home == folder else f"{home.resolve().name}, tested on {folder.resolve().name}"
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(filter(None, told)))}</p></header>"


def _training(rows: Rows, best: dict[str, Any], curves: Mapping[str, str]) -> str:
    """Loss, validation figures and learning rate over the epochs; `curves` are names of validation shares by key."""
    split = {name: [row for row in rows if row.get("split") == name and "epoch" in row] for name in ("train", "val")}
    if not split["train"]:
        return ""

    def points(name: str, key: str, scale: float = 1.0) -> list[tuple[float, float]]:
        return [(row["epoch"] + 1, scale * row[key]) for row in split[name] if isinstance(row.get(key), int | float)]

    chosen = best.get("provenance", {}).get("epoch")
    mark = None if chosen is None else chosen + 1
    shares = {name: found for key, name in curves.items() if (found := points("val", key, 100))}
    charts = [
        _chart("Loss", {"training": points("train", "loss"), "validation": points("val", "loss")}),
        _chart("Validation", shares, (0, 100), mark, " %"),
        _chart("Learning rate", {"at the end of the epoch": points("train", "lr")}),
    ]
    epochs = split["train"][-1]["epoch"] + 1
    told = [f"{epochs} epoch{'s' if epochs > 1 else ''}, {split['train'][-1].get('step', '?')} steps"]
    told += [f"the model kept is that of epoch {mark}"] if mark else []
    if speeds := [row["clips_per_s"] for row in split["train"] if row.get("clips_per_s")]:
        told.append(f"{statistics.median(speeds):.3g} clips per second")
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


def _parameters(path: Path) -> str:
    """How many, from the header of a safetensors file (8 bytes of length, then JSON)."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    except (OSError, ValueError, struct.error):
        return ""
    count = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return f"{count / 1e6:.1f} M parameters" if count >= 1e5 else f"{count} parameters"
