"""The tables of docs/models.md, which `vidstill models` prints: models, and recipes with what was published."""

from __future__ import annotations

import difflib
from pathlib import Path

from vidstill.models.catalogue import CATALOGUE, configurations, matching
from vidstill.reporting.recipes import table as trainings
from vidstill.reporting.tables import Table, amount, text, to_markdown, write_between

BEGIN, END = "<!-- vidstill models -->", "<!-- end -->"  # around what `write_page` puts into a page
DETAILS = ("network", "views", "source", "remark")  # columns for which a terminal is too narrow


def registered(pattern: str = "*") -> Table:
    """What each name costs with 400 classes at its default input."""
    entries = matching(pattern)
    return {
        "model": [text(name) for name in entries],
        "parameters": [amount(entry.parameters, " M", 1e-6) for entry in entries.values()],
        "GMACs": [amount(entry.gmacs) for entry in entries.values()],
        "clip": [text(entry.input.replace("x", " × ")) for entry in entries.values()],
    }


def recipes(pattern: str = "*") -> Table:
    """What each recipe's network costs as it is tested, and the figure published for just that; see `Configuration`."""
    found = configurations(pattern)
    rows = found.values()
    return {
        "recipe": [text(name) for name in found],
        "network": [text(f"{one.model}, {one.variant}" if one.variant else one.model) for one in rows],
        "clip": [text(one.clip) for one in rows],
        "parameters": [amount(one.parameters, " M", 1e-6) for one in rows],
        "GMACs": [amount(one.gmacs) for one in rows],
        "published top-1 %": [text(one.figure) for one in rows],
        "views": [text(one.views) for one in rows],
        "source": [text(one.source) for one in rows],
        "remark": [text(one.remark) for one in rows],
    }


def tables(pattern: str = "*") -> list[Table]:
    """Those that have a row. Raises ValueError where no model and no recipe matches."""
    found = [table for table in (registered(pattern), recipes(pattern)) if next(iter(table.values()))]
    if not found:
        near = difflib.get_close_matches(pattern, [*CATALOGUE, *configurations()], 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f'no model and no recipe matches {pattern!r}{hint}: give a name, or a pattern such as "*focal*"'
        )
    return found


def write_page(path: Path) -> None:
    """Put the tables into a Markdown page, between the line BEGIN and the line END. Raises ValueError without them."""
    write_between(path, BEGIN, END, "\n\n".join(map(to_markdown, [*tables(), trainings()])))
