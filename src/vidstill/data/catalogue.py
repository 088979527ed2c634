"""The published data sets that are read as their makers distribute them: the table `datasets.csv`."""

from __future__ import annotations

import csv
import difflib
import fnmatch
from pathlib import Path
from typing import NamedTuple


class DataSet(NamedTuple):
    """A published set. What is not known from a source is None or empty."""

    title: str
    format: str  # of data.formats, which reads it
    recipes: str  # what models.catalogue calls it, if there are recipes
    classes: int
    clips: int | None  # published or listed, of all parts: some of YouTube's are always gone
    bytes: float | None  # of the videos as they are downloaded
    licence: str
    source: str  # where its makers give it away
    layout: str


def datasets(pattern: str = "*") -> dict[str, DataSet]:
    """Name → set, for a shell pattern of names or titles in any case. Raises ValueError where none matches."""
    with Path(__file__).with_name("datasets.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known = {
        row["name"]: DataSet(
            row["title"], row["format"], row["recipes"], int(row["classes"]), int(row["clips"] or 0) or None,
            float(row["bytes"] or 0) or None, row["licence"], row["source"], row["layout"],
        )
        for row in rows
    }  # fmt: skip
    found = {
        name: one for name, one in known.items() if fnmatch.filter([name, one.title.casefold()], pattern.casefold())
    }
    if not found:
        near = difflib.get_close_matches(pattern.casefold(), known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f'no data set matches {pattern!r}{hint}: give a name, or a pattern such as "kinetics*"')
    return found
