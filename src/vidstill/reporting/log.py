"""metrics.jsonl: the figures of a run, row by row."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidstill.files import atomic


class Log:
    """One JSON object per line, cut back to the checkpoint when a run is resumed; the same numbers for TensorBoard
    where that is installed."""

    def __init__(self, folder: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
        self.path = folder / "metrics.jsonl"
        text = self.path.read_text() if self.path.exists() else ""
        rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        with atomic(self.path) as file:
            file.writelines((json.dumps(row) + "\n").encode() for row in rows if keep(row))
        self.board: Any = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            kept = max((row["step"] for row in rows if keep(row)), default=-1)
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=kept + 1)

    def write(self, row: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{row['split']}/{name}", value, row["step"])
            self.board.flush()
