"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from numbers import Real
from pathlib import Path
from typing import IO

# A spreadsheet runs a cell that begins like this; the apostrophes are those of names that look like ours
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class WriteError(ValueError):
    """A file could not be written; what stood there before still does."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path` only when it is complete and on disk; a full disk leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__ or error
        kept = "the one before is intact; " if path.exists() else ""
        raise WriteError(f"cannot write {path}: {cause}; {kept}free the disk and start again") from error
    finally:
        partial.unlink(missing_ok=True)


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """A csv file of `rows`, whole or not at all.

    A text that a spreadsheet would run as a formula, as it begins with = + - @, a tab or a carriage return, gets an
    apostrophe in front; `read_csv` takes it off. Numbers are written as they are.
    """
    with atomic(path) as file:
        for row in rows:
            line = io.StringIO(newline="")
            # of the ends of line, the writer quotes those alone that it writes
            writer = csv.writer(line, lineterminator="\r\n")
            writer.writerow([cell if isinstance(cell, Real) else as_text(str(cell)) for cell in row])
            file.write(line.getvalue()[:-2].encode(errors="surrogateescape") + b"\n")


def read_csv(path: Path) -> list[list[str]]:
    """The rows that `write_csv` wrote. Raises csv.Error where it is no csv."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [[from_text(cell) for cell in row] for row in csv.reader(file)]


def as_text(text: str) -> str:
    """A cell of a csv that no spreadsheet takes for a formula.

    >>> as_text("=1+1"), as_text("walk")
    ("'=1+1", 'walk')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_text(cell: str) -> str:
    """What `as_text` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
