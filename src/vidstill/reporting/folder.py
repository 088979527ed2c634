"""What a run folder tells."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidstill.config import parse_yaml

Rows = list[dict[str, Any]]


def read_rows(path: Path) -> Rows:
    """Lines of metrics.jsonl; one that a crash cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            rows.append(dict(json.loads(line)))
    return rows


def tested_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The latest test among them, or nothing."""
    return next((row for row in reversed(rows) if row.get("split") == "test"), {})


def read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def read_json_rows(path: Path) -> Rows:
    """Of a file that only some runs have."""
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def read_settings(path: Path) -> dict[str, Any]:
    return dict(parse_yaml(path.read_text(encoding="utf-8"), path.name) or {})
