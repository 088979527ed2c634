"""The teacher's logits of batches that come again, on disk: the largest of each clip, the rest as their mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidstill.files import atomic, locked

PATIENCE = 3600.0  # seconds that a process waits for others: each may write zeros of many gigabytes


class LogitCache:
    """Logits (B,K) by the number of their batch, of one process (`rank`).

    `identity` is all that the logits depend on; a folder made with another one is refused, naming what differs. What
    `write` returns is what `read` will: logits of at most `classes` classes, the others at their mean, so that a step
    computes the same whether its logits were just made or read. A killed process leaves whole batches only. Several
    processes may open a folder at once, of one run or of several: one makes the files, the others find them.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], *, batches: int, batch: int, classes: int, kept: int, rank: int
    ) -> None:
        self.batches, self.classes, self.kept = batches, classes, min(kept, classes)
        folder.mkdir(parents=True, exist_ok=True)
        identity = json.loads(json.dumps(identity | {"batches": batches, "batch": batch, "kept": self.kept}))
        rest = int(self.kept < classes)
        shape = (batches, batch)
        busy = f"another process has been making the files of {folder} for an hour: end it, or wait"
        with locked(folder, PATIENCE, busy):
            _claim(folder / "cache.json", identity)
            self.logits = _array(folder / f"logits{rank}.npy", (*shape, self.kept + rest), np.float32)
            self.indices = _array(folder / f"classes{rank}.npy", (*shape, self.kept), np.int32)
            self.rows = _array(folder / f"rows{rank}.npy", (batches,), np.int32)  # 0: not there

    @property
    def complete(self) -> bool:
        return bool((self.rows > 0).all())

    def read(self, number: int) -> Tensor | None:
        rows = int(self.rows[number])
        if not rows:
            return None
        values = torch.from_numpy(np.array(self.logits[number, :rows]))
        indices = torch.from_numpy(np.array(self.indices[number, :rows])).long()
        rest = values[:, self.kept :] if self.kept < self.classes else values[:, :1]
        return rest.expand(rows, self.classes).clone().scatter_(1, indices, values[:, : self.kept])

    def write(self, number: int, logits: Tensor) -> Tensor:
        values, indices = logits.float().topk(self.kept)
        if self.kept < self.classes:
            rest = (logits.float().sum(1, keepdim=True) - values.sum(1, keepdim=True)) / (self.classes - self.kept)
            values = torch.cat([values, rest], 1)
        self.logits[number, : len(values)] = values.numpy()
        self.indices[number, : len(values)] = indices.numpy()
        self.logits.flush()
        self.indices.flush()
        self.rows[number] = len(values)  # last: a batch is there as a whole or not at all
        kept = self.read(number)
        assert kept is not None
        return kept


def _claim(card: Path, identity: dict[str, Any]) -> None:
    """Write down what the logits of the folder are of, or raise ValueError where it says something else already."""
    if card.exists():
        found = json.loads(card.read_text(encoding="utf-8"))
        found.setdefault("batches", found.get("moments"))  # as it was called
        differ = [key for key in identity if found.get(key) != identity[key]]
        if differ:
            shown = ", ".join(f"{key} {found.get(key)!r} there, {identity[key]!r} here" for key in differ[:2])
            raise ValueError(f"{card.parent} keeps logits of other batches ({shown}): choose another distil.cache")
    else:
        with atomic(card) as file:
            file.write(json.dumps(identity, indent=1).encode())


def _array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap[Any, Any]:
    """A zeroed array on disk. Its space is taken at once: a full disk is an error here, not a crash in mid-training."""
    if not path.exists():
        zeros = np.zeros(shape[1:], dtype).tobytes()
        with atomic(path) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            )
            for _ in range(shape[0]):
                file.write(zeros)
    return np.lib.format.open_memmap(path, mode="r+")
