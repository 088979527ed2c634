"""The table of data sets, which `vidstill datasets` prints and docs/data.md holds."""

from __future__ import annotations

from pathlib import Path

from vidstill.data.catalogue import datasets
from vidstill.models.catalogue import configurations
from vidstill.reporting.tables import Cell, Table, amount, text, to_markdown, write_between

BEGIN, END = "<!-- vidstill datasets -->", "<!-- end -->"  # around what `write_page` puts into a page
DETAILS = ("format", "from", "layout", "recipes")  # columns for which a terminal is too narrow


def table(pattern: str = "*") -> Table:
    """One row per set. Raises ValueError where none matches."""
    found = datasets(pattern)
    rows = found.values()
    return {
        "name": [text(name) for name in found],
        "data set": [text(one.title) for one in rows],
        "classes": [Cell(str(one.classes), one.classes) for one in rows],
        "clips": [amount(None) if one.clips is None else Cell(f"{one.clips:,}", one.clips) for one in rows],
        "size": [amount(one.bytes, " GB", 1e-9) for one in rows],
        "licence": [text(one.licence) for one in rows],
        "format": [text(one.format) for one in rows],
        "from": [text(one.source) for one in rows],
        "layout": [text(one.layout) for one in rows],
        "recipes": [text(f"{len(names)}: {', '.join(names)}" if names else "") for names in map(recipes, found)],
    }


def recipes(name: str) -> list[str]:
    """The recipes for a data set."""
    (one,) = datasets(name).values()
    return [recipe for recipe, config in configurations().items() if one.recipes and config.data == one.recipes]


def details(columns: Table) -> list[str]:
    """What a terminal is too narrow for, in lines."""
    lines = []
    for number, name in enumerate(columns["name"]):
        lines.append(name.shown)
        lines += [f"  {title:8} {columns[title][number].shown}" for title in DETAILS]
    return lines


def write_page(path: Path) -> None:
    """Put the table into a Markdown page, between the line BEGIN and the line END. Raises ValueError without them."""
    shown = table()
    shown["recipes"] = [
        text(f"{len(names)}: `{names[0]}` …" if names[1:] else f"`{names[0]}`" if names else "")
        for names in (recipes(name.shown) for name in shown["name"])
    ]
    shown["name"] = [text(f"`{name.shown}`") for name in shown["name"]]
    shown["layout"] = [text(cell.shown.replace("<", "&lt;")) for cell in shown["layout"]]
    write_between(path, BEGIN, END, to_markdown(shown))
