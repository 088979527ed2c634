"""What the page of a run shows of recognition: figures, confusion, classes, mistakes, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from vidstill.evaluation.metrics import (
    ClassRow,
    Metrics,
    MultiLabelMetrics,
    confusions,
    interval,
    per_cent,
    reliability,
    weakest_first,
)
from vidstill.evaluation.predictions import Evaluation
from vidstill.reporting.charts import NAMED, confusion_chart, data_uri, reliability_chart
from vidstill.reporting.page import Tile
from vidstill.video.decode import FramesMissing, Video, VideoError, probe, read_frames

MISTAKES, FRAMES, FRAME_SIDE = 12, 4, 112
CONFUSIONS = 12  # pairs of classes listed beside the matrix
SHOWN_CLASSES = 24  # weakest and strongest classes shown where there are too many for one list


def recognition_tiles(scored: Evaluation, views: str) -> list[Tile]:
    """The figures of a test, the headline first; `views` says how the videos were looked at."""
    metrics = scored.metrics
    count = ("videos tested", f"{metrics.videos:,}".replace(",", "\u2009"), views)
    if isinstance(metrics, MultiLabelMetrics):
        present = sum(row.videos > 0 for row in metrics.classes)
        return [
            ("mAP", per_cent(metrics.mean_average_precision), f"mean average precision of {present} classes"),
            ("baseline", per_cent(metrics.chance), "about what a random order of the videos has"),
            ("classes per video", f"{sum(row.videos for row in metrics.classes) / metrics.videos:.2g}", "on average"),
            count,
        ]
    videos = metrics.confusion.sum(1)
    low, high = interval(metrics.top1, metrics.videos)
    tiles = [("top-1", per_cent(metrics.top1), f"95 % interval {100 * low:.1f}–{100 * high:.1f} %")]
    if len(metrics.classes) > 5:
        tiles.append(("top-5", per_cent(metrics.top5), "right class among the first five"))
    return [
        *tiles,
        ("mean class", per_cent(metrics.mean_class), f"all {int((videos > 0).sum())} classes count alike"),
        ("baseline", per_cent(videos.max() / videos.sum()), "always naming the commonest class"),
        ("calibration", per_cent(metrics.calibration_error), "gap of confidence and accuracy"),
        count,
    ]


def recognition_curves(classes: int) -> dict[str, str]:
    """The figures of a validation that are drawn over the epochs, with their names."""
    return {"mAP": "mAP", "top1": "top-1"} | ({"top5": "top-5"} if classes > 5 else {})


def recognition_sections(scored: Evaluation) -> list[str]:
    """Pieces of HTML for the page."""
    metrics = scored.metrics
    if isinstance(metrics, MultiLabelMetrics):
        return [_classes(metrics.classes, "average precision"), _mistakes(scored)]
    return [
        _confusion(metrics), _classes(metrics.classes, "right"), _mistakes(scored), _calibration(scored, metrics),
    ]  # fmt: skip


def _confusion(metrics: Metrics) -> str:
    names = [row.name for row in metrics.classes]
    lines = "".join(
        f'<tr><td class="name">{escape(true)}</td><td class="name">{escape(taken)}</td>'
        f'<td class="number">{times} <span class="soft">of {videos}</span></td></tr>'
        for true, taken, times, videos in confusions(metrics, CONFUSIONS)
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
    tested = weakest_first(rows)
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
        f'<td class="number">{per_cent(row.accuracy, 0)}</td><td class="number soft">{row.videos}</td>'
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
        video, labels = scored.samples[n].video, scored.samples[n].labels
        shown = str(dataclasses.replace(video, path=Path(*video.path.parts[-3:])))
        truth = ", ".join(
            f"{escape(scored.classes[true])} {per_cent(scored.probabilities[n, true], 0)}" for true in labels
        )
        cards.append(
            f'<div class="card mistake">{_frames(video)}<div>Said <b>{escape(scored.classes[said[n]])}</b> '
            f"{per_cent(sure[n], 0)}, is {truth}</div>"
            f"<small>{escape(shown)}</small></div>"
        )
    return (
        "<h2>Surest mistakes</h2><p>Wrong answers with the highest scores: the label may be wrong too.</p>"
        f'<div class="grid">{"".join(cards)}</div>'
    )


def _frames(video: Video) -> str:
    """A few frames of a video side by side."""
    try:
        count = probe(video).frames
        try:
            frames = _evenly(video, count)
        except FramesMissing as missing:
            frames = _evenly(video, max(1, missing.available))
    except VideoError:
        return '<div class="frames missing">the video cannot be read any more</div>'
    images = (f'<img alt="" src="{data_uri(Image.fromarray(frame), "JPEG")}">' for frame in frames)
    return f'<div class="frames">{"".join(images)}</div>'


def _evenly(video: Video, count: int) -> np.ndarray:
    middles = (np.arange(FRAMES) + 0.5) / FRAMES * count
    return read_frames(video, middles.astype(np.int64), short_side=FRAME_SIDE)


def _calibration(scored: Evaluation, metrics: Metrics) -> str:
    sure = float(scored.probabilities.max(1).mean())
    gap = sure - metrics.top1
    verdict = "about as sure as it may be" if abs(gap) < 0.02 else "too sure" if gap > 0 else "less sure than it may be"
    told = (
        f"On average the model gives its answer {per_cent(sure, 0)} and is right in {per_cent(metrics.top1, 0)} of the "
        f"videos: it is {verdict}. The calibration error, {per_cent(metrics.calibration_error)}, is the mean distance "
        "of the bars from the line."
    )
    chart = reliability_chart(*reliability(scored.probabilities, scored.labels))
    legend = '<span><i class="k0"></i>accuracy at this confidence</span><span><i class="k2"></i>number of videos</span>'
    return f'<h2>Calibration</h2><p>{told}</p><div class="card narrow"><div class="legend">{legend}</div>{chart}</div>'
