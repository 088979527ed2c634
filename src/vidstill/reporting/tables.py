"""Tables by column, as Markdown and as HTML that sorts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from vidstill.files import atomic

NOTHING = "–"

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


Table = dict[str, list[Cell]]  # columns of one length, by title


def text(value: str) -> Cell:
    return Cell(value, value) if value else Cell(NOTHING, None)


def amount(value: float | None, unit: str = "", scale: float = 1.0, more: str = "") -> Cell:
    """A number to three digits, in `unit`, which is 1 / `scale` of it; `more` follows."""
    return Cell(NOTHING, None) if value is None else Cell(f"{digits(scale * value)}{unit}{more}", value)


def digits(value: float) -> str:
    """Three digits, more of large numbers.

    >>> digits(0.31289), digits(65.7117), digits(1262.4)
    ('0.313', '65.7', '1262')
    """
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else f"{value:.0f}"


def without_empty(table: Table) -> Table:
    """The columns in which some row has something."""
    return {title: column for title, column in table.items() if any(cell.shown != NOTHING for cell in column)}


def to_markdown(table: Table) -> str:
    lines = [
        list(table),
        ["---:" if _numeric(column) else "---" for column in table.values()],
        *zip(*([cell.shown.replace("|", "\\|") for cell in column] for column in table.values()), strict=True),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_between(path: Path, begin: str, end: str, drawn: str) -> None:
    """Put Markdown into a page, between the lines `begin` and `end`. Raises ValueError without them."""
    before, found, rest = path.read_text(encoding="utf-8").partition(f"{begin}\n")
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path}: no place for the tables: it needs the lines {begin} and {end}")
    with atomic(path) as file:
        file.write(f"{before}{begin}\n\n{drawn}\n\n{end}{after}".encode())


def to_html(table: Table) -> str:
    """In a card that scrolls; the page needs SORTING once."""
    kinds = ["number" if _numeric(column) else "name" for column in table.values()]
    heads = "".join(
        f'<th class="{kind}"><button>{escape(title)}</button></th>' for title, kind in zip(table, kinds, strict=True)
    )
    lines = []
    for cells in zip(*table.values(), strict=True):
        parts = []
        for cell, kind in zip(cells, kinds, strict=True):
            value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
            parts.append(f'<td class="{kind}"{value}>{escape(cell.shown)}</td>')
        lines.append(f"<tr>{''.join(parts)}</tr>")
    drawn = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="card scroll"><table class="sortable">{drawn}</table></div>'


def _numeric(column: Sequence[Cell]) -> bool:
    return any(isinstance(cell.value, int | float) for cell in column)
