"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


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
