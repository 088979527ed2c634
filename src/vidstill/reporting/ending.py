"""What the terminal says at the end of a run or a test: the figures, what they are worth, what to type next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from vidstill.reporting.folder import read_json_rows, read_rows, tested_row
from vidstill.reporting.report import RESULTS, flattery_of

SPLITS = {"test": "test", "val": "validation"}  # as a row of metrics.jsonl has them → in print


def ending(folder: Path) -> str:
    """Of a run folder, or of the folder of a test on other videos."""
    home = folder.parent.parent if folder.parent.name == "tests" else folder  # of the model
    rows = read_rows(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    tested = tested_row(rows)
    lines, video = [], "VIDEO"
    for name, (reader, _, _) in RESULTS.items():
        if tested and (folder / name).exists():
            result = reader(folder / name)
            result.unreadable.extend(map(tuple, tested.get("unreadable_videos", [])))
            lines.append(result.summary(SPLITS.get(str(tested.get("tested_split")), ""), _views(tested)))
            video = _typed(result.paths[0])
    if flattery := flattery_of(tested, rows):
        lines.append(flattery)
    if not lines:
        lines.append("not tested: there are neither test nor validation videos")
    if home == folder:
        commands = [f"vidstill predict {video} --model {_typed(home)}"]
        if teachers := _teachers(folder):
            commands.append(f"vidstill bench {' '.join(map(_typed, [folder, *teachers]))}")
        lines += [f"{'next:' if number == 0 else '     '} {command}" for number, command in enumerate(commands)]
    return "\n".join(lines)


def _views(tested: dict[str, Any]) -> str:
    return f"{tested['clips']} × {tested['crops']} views each" if {"clips", "crops"} <= tested.keys() else ""


def _teachers(folder: Path) -> list[Path]:
    """Those of the run that a comparison can load."""
    sources = [Path(row["source"]) for row in read_json_rows(folder / "teachers.json")]
    return [source for source in sources if source.is_dir() or source.suffix == ".safetensors"]


def _typed(path: Path) -> str:
    """A path as it is typed here: relative where that is shorter, quoted where the shell wants it."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
