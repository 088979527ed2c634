"""Which video files are the same: by inode and, read as little as needed, by content."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import repeat
from pathlib import Path
from stat import S_ISREG

File = tuple[int, int]  # device and inode

_HEAD = 1 << 16  # bytes that are compared before whole files are
_THREADS = 16  # network drives answer slowly, but many at a time


def stat_all(paths: list[Path]) -> dict[Path, os.stat_result]:
    """The directory entries of the paths that are there."""
    shares = [paths[start::_THREADS] for start in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = {path: stat for share in pool.map(_stat, shares) for path, stat in share}
    return {path: found[path] for path in paths if path in found}


def identify(files: Mapping[Path, os.stat_result]) -> dict[Path, File]:
    """Path → a mark that is equal for two names of one file, and for files of equal content.

    Only files whose size occurs twice are opened, and only those that begin alike are read to their end. Empty files
    are not compared, nor are pipes and devices.
    """
    marks = {path: (stat.st_dev, stat.st_ino) for path, stat in files.items()}

    def several(paths: list[Path]) -> bool:
        return len({marks[path] for path in paths}) > 1

    alike: dict[object, list[Path]] = defaultdict(list)
    for path, stat in files.items():
        if stat.st_size and S_ISREG(stat.st_mode):
            alike[stat.st_size].append(path)
    for length in (_HEAD, None):
        suspects = [path for paths in alike.values() if several(paths) for path in paths]
        alike = defaultdict(list)
        with ThreadPoolExecutor(_THREADS) as pool:
            for path, digest in zip(suspects, pool.map(_digest, suspects, repeat(length)), strict=True):
                alike[files[path].st_size, digest].append(path)
    return marks | {path: marks[paths[0]] for paths in alike.values() if several(paths) for path in paths}


def _stat(paths: list[Path]) -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            found.append((path, path.stat()))
    return found


def _digest(path: Path, length: int | None) -> bytes:
    """Of the first `length` bytes, or of all; of its name where it cannot be read, so that it equals no other."""
    whole = blake2b()
    try:
        with path.open("rb") as file:
            while chunk := file.read(length or 1 << 20):
                whole.update(chunk)
                if length:
                    break
    except OSError:
        whole.update(os.fsencode(path))
    return whole.digest()
