"""What training a shipped recipe takes, reckoned from its network and settings: the table of `vidstill recipes`."""

from __future__ import annotations

import difflib
import fnmatch
from pathlib import Path
from typing import NamedTuple

from vidstill.config import Run, recipe_names, resolve
from vidstill.models.catalogue import CATALOGUE, TRAINING_VIDEOS, Configuration, configurations
from vidstill.reporting.tables import NOTHING, Cell, Table, text

DETAILS = ("network", "data set")  # columns for which a terminal is too narrow, the first to go first


class Machine(NamedTuple):
    """What it sustains in such networks: operations and bytes of memory per second; cores that read videos."""

    operations: float
    bandwidth: float
    cores: int


GPU, CPU = Machine(20e12, 1e12, 16), Machine(30e9, 5e9, 2)
# Seconds that a core reads at a clip, measured (docs/benchmarks.md): long H.264 videos, and all others.
READING, READING_LONG, LONG = 0.0174, 0.163, {"K400", "K600", "ActivityNet", "Diving48"}
PASSES = 6  # of the activations through memory: written and read, in the forward pass and twice in the backward one
HOUR, DAY = 3600.0, 86400.0
CPU_CLASSES = ((HOUR, "minutes, CPU"), (DAY, "hours, CPU"))  # shorter than so many seconds on a CPU
GPU_CLASSES = ((DAY, "GPU-hours"), (14 * DAY, "GPU-days"), (60 * DAY, "GPU-weeks"))  # else shorter on a GPU


def table(pattern: str = "*") -> Table:
    """Recipes whose name matches a shell pattern. Raises ValueError where none does."""
    every = configurations()
    found = {name: (every[name], resolve(name)) for name in fnmatch.filter(recipe_names(), pattern) if name in every}
    if not found:
        near = difflib.get_close_matches(pattern, recipe_names(), 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f'no recipe matches {pattern!r}{hint}: give a name, or a pattern such as "ucf101_*"')
    return {
        "recipe": [text(name) for name in found],
        "data set": [text(row.data) for row, _ in found.values()],
        "network": [text(row.model) for row, _ in found.values()],
        "top-1 %": [text(row.figure.removeprefix(f"{row.data} ")) for row, _ in found.values()],
        "clip": [text(f"{run.clip.frames} × {run.clip.size}²") for _, run in found.values()],
        "memory": [_gigabytes(memory(row, run)) for row, run in found.values()],
        "time": [_time(row, run) for row, run in found.values()],
    }


def memory(row: Configuration, run: Run) -> float:
    """Bytes that a process of the training holds, without what the libraries take.

    Four bytes per parameter for weights, gradients, each state of the optimiser and the copy that is validated (and an
    average); what the backward pass wants of each clip of the batch, half of it in 16 bits; the weights of a teacher.
    """
    states = 1 if run.optim.name == "sgd" else 2
    copies = 3 + states + (run.train.ema is not None)
    weights = copies * row.parameters + sum(parameters for _, parameters in _teachers(run))
    return 4.0 * weights + run.train.batch * _kept(row, run)


def seconds(row: Configuration, run: Run, machine: Machine = GPU) -> float:
    """Of the whole training on one device: every clip takes as long as its operations, its passage through memory or
    its reading, whichever is most. A forward pass is two operations per multiply-add, the backward pass twice as much;
    a teacher has a forward pass alone. Validation and test are not in it."""
    operations = 2e9 * (3 * row.training_gmacs + sum(gmacs for gmacs, _ in _teachers(run)))
    reading = READING_LONG if row.data in LONG else READING
    slowest = max(
        operations / machine.operations, PASSES * _kept(row, run) / machine.bandwidth, reading / machine.cores
    )
    return run.train.epochs * TRAINING_VIDEOS[row.data] * slowest


def _kept(row: Configuration, run: Run) -> float:
    """Bytes of one clip that the backward pass wants."""
    return row.training_mb * 1e6 * (1.0 if run.train.precision == "fp32" else 0.5)


def _teachers(run: Run) -> list[tuple[float, int]]:
    """GMACs and parameters of those that the recipe names."""
    known = configurations()
    names = [Path(source).stem for source in run.distil.teacher]
    teachers = [(known[name].training_gmacs, known[name].parameters) for name in names if name in known]
    if run.objective == "token_labels":
        entry = CATALOGUE[run.token_labels.annotator.name]
        teachers.append((entry.gmacs, entry.parameters))
    return teachers


def _gigabytes(size: float) -> Cell:
    return Cell(f"{size / 1e9:.0f} GB" if size >= 1e9 else "< 1 GB", size / 1e9)


def _time(row: Configuration, run: Run) -> Cell:
    if row.data not in TRAINING_VIDEOS:
        return Cell(NOTHING, None)
    on_gpu, on_cpu = seconds(row, run), seconds(row, run, CPU)
    classes = [name for most, name in CPU_CLASSES if on_cpu < most]
    classes += [name for most, name in GPU_CLASSES if on_gpu < most]
    return text(classes[0] if classes else "GPU-months")
