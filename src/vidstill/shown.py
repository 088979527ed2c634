"""Tables as the terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vidstill.terminal import Listed, plain

WINDOWS_SHOWN, WEAKEST_SHOWN = 40, 5  # lines of a table; files have them all


def drawn_table(columns: Mapping[str, Sequence[Any]], details: Sequence[str]) -> Any:
    """Columns of cells as a table for the terminal, without as many of the `details` as it is too narrow for."""
    from rich.console import Console
    from rich.table import Table

    console, drawn = Console(), Table()
    unbounded = console.options.update(max_width=10_000)
    for left_out in range(len(details) + 1):
        kept = {title: column for title, column in columns.items() if title not in details[:left_out]}
        drawn = Table(*kept, box=None, header_style="bold")
        drawn.columns[0].no_wrap = True
        for cells in zip(*kept.values(), strict=True):
            drawn.add_row(*(cell.shown for cell in cells))
        if console.measure(drawn, options=unbounded).maximum <= console.width:
            break
    return drawn


def _plain(*titles: str) -> Any:
    from rich.table import Table

    table = Table(*titles, box=None, header_style="bold")
    table.columns[-1].overflow = "fold"
    for column in table.columns:
        column.no_wrap = "score" in str(column.header)
    return table


def _scores(ranked: Sequence[tuple[str, float]]) -> tuple[str, str, Listed]:
    """Class, score and the next ones, for a table."""
    from vidstill.evaluation.metrics import per_cent

    (first, score), *others = ranked
    return first, per_cent(score), Listed([f"{name} {per_cent(each)}" for name, each in others])


def prediction_table(predictions: Sequence[Any], top_k: int) -> Any:
    table = _plain("class", "score", "next", "source")
    for prediction in predictions:
        table.add_row(*_scores(prediction.named(prediction.probabilities, top_k)), plain(prediction.source))
    return table


def window_table(prediction: Any, top_k: int) -> Any:
    """The windows of one source; of many the first, for the others are in the files."""
    table = _plain("seconds", "class", "score", "next")
    for window in prediction.windows[:WINDOWS_SHOWN]:
        times = f"{window.start:.1f}–{window.end:.1f}"
        table.add_row(times, *_scores(prediction.named(window.probabilities, top_k)))
    if (more := len(prediction.windows) - WINDOWS_SHOWN) > 0:
        table.add_row("…", f"{more} more: --csv, --json", "", "")
    return table


def weakest_table(videos: Sequence[Any]) -> Any:
    from vidstill.evaluation.metrics import per_cent

    table = _plain("weakest", "its score", "labelled", "source")
    for video in videos[:WEAKEST_SHOWN]:
        table.add_row(video.own, per_cent(video.score), video.label, plain(video.source))
    return table
