"""The table of `vidstill weights`: what can be started from by name."""

from __future__ import annotations

from vidstill.models.pretrained import find_pretrained, pretrained
from vidstill.reporting.tables import Table, text

DETAILS = ("trained on", "package")  # columns for which a terminal is too narrow


def table() -> Table:
    """All of them; whether each is installed and whole."""
    rows = list(pretrained().values())
    return {
        "weights": [text(row.name) for row in rows],
        "network": [text(row.model) for row in rows],
        "trained on": [text(row.trained_on) for row in rows],
        "MB": [text(f"{row.size / 1e6:.0f}") for row in rows],
        "installed": [text(_state(row.name)) for row in rows],
        "licence": [text(row.licence) for row in rows],
        "package": [text(row.package) for row in rows],
    }


def _state(name: str) -> str:
    try:
        find_pretrained(name)
    except ValueError as error:
        return "damaged" if "checksum" in str(error) else "no"
    return "yes"
