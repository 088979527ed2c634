"""Files that are either whole or not there, and folders that one process at a time holds."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from numbers import Real
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PARTIAL = re.compile(r"\.\d+-[0-9a-f]{16}\.partial")
STALE = 24 * 3600.0  # seconds after which a partial file is what a killed process left
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNWRITABLE = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOENT, errno.ENOTDIR)  # by whomever
BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what flock, and msvcrt, say of a lock that another process has
# A spreadsheet runs a cell that begins like this; the apostrophes are those of names that look like ours
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class WriteError(ValueError):
    """A file could not be written; what stood there before still does."""


class BusyError(ValueError):
    """Another process holds the folder or the file."""


def partial_beside(path: Path) -> Path:
    """A name that no other writer has, for a file in the making in the folder of `path`."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}.partial")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path` only when it is complete and on disk; a full disk leaves the one before.

    Until then it has a name of its own in the same folder, so that of several writers each writes a whole file and the
    last one counts. What a killed writer left under such a name is removed a day later by the next write in the folder.
    The file has the permissions that a plain write would give it. Behind a symbolic link it is the file that the link
    names which is replaced; a device or a pipe is written to as it is. Raises WriteError.
    """
    target = Path(os.path.realpath(path))
    partial = partial_beside(target)
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # there is none before, or the file system knows no permissions
            partial.chmod(target.stat().st_mode & 0o777)
        partial.replace(target)
        _remove_stale(target.parent)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__ or error
        raise cannot_write(path, cause) from error
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


def cannot_write(path: Path, cause: BaseException) -> WriteError:
    """The error that says why a file could not be written, and how to mend it."""
    reason = (cause.strerror if isinstance(cause, OSError) else None) or cause
    kept = "; the one before is intact" if path.is_file() else ""
    mend = "; free the disk and start again" if getattr(cause, "errno", None) in FULL else ""
    return WriteError(f"cannot write {path}: {reason}{kept}{mend}")


def _remove_stale(folder: Path) -> None:
    """Partial files that have not been written to for a day. That another process removes them too is no error."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if PARTIAL.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat().st_mtime > STALE:
                        Path(entry.path).unlink()


@contextlib.contextmanager
def locked(path: Path, wait: float = 10.0, busy: str = "") -> Iterator[None]:
    """Hold a folder that exists, or a file, against other processes (and other holders in this one) for a `with` block.

    The lock is on a file, `.lock` in the folder or `.<name>.lock` beside the file, which stays. It ends with this
    process, however that ends: processes that it forked do not keep it. Raises BusyError with the message `busy` where
    another process still holds it after `wait` seconds, WriteError where there cannot be a lock.
    """
    place = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    until = time.monotonic() + wait
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise WriteError(f"cannot lock {path}: {error.strerror}") from None
    _held.add(descriptor)
    try:
        while not _take(descriptor, path):
            if time.monotonic() >= until:
                raise BusyError(busy or f"another process uses {path}: wait for it")
            time.sleep(0.05)
        yield
    finally:
        if descriptor in _held:  # else this is a forked process, which has closed it
            _held.discard(descriptor)
            os.close(descriptor)


_held: set[int] = set()  # descriptors of this process's locks


def _take(descriptor: int, path: Path) -> bool:
    """Whether the lock could be had at once. Closing the descriptor gives it back."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in BUSY:
            return False
        raise WriteError(f"cannot lock {path}: {error.strerror}") from None
    return True


def _close_held() -> None:
    """In a forked process: its copy of the descriptor would keep the lock after the holder's death."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_close_held)
