"""What a data set holds, from its annotations and the headers of its videos."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidstill.config import Run
from vidstill.data.annotations import Annotations, Sample, read_annotations
from vidstill.data.division import group_parts
from vidstill.data.duplicates import stat_all
from vidstill.data.isolated import Lost, isolated
from vidstill.video.index import VideoInfo, probe

SAMPLE = 1000  # videos whose headers are read unless told otherwise: seconds on a local disk

# What a file's packets may take: only a slow network drive needs so much
_SECONDS, _SECONDS_PER_MB = 30.0, 1.0


@dataclass(frozen=True)
class DataFacts:
    """`headers` are those that could be read of `asked` videos, `unreadable` says why the others could not; `sizes` are
    the bytes of every file that is there. `grouped`: what each split would have if sources stayed together, where the
    settings divide the videos without regard to sources that are known."""

    annotations: Annotations
    asked: int
    headers: dict[Path, VideoInfo]
    unreadable: dict[Path, str]
    sizes: dict[Path, int]
    grouped: dict[str, int] | None = None

    @property
    def videos(self) -> int:
        """Different files; one may be in several splits."""
        return len({sample.path for sample in self._samples()})

    @property
    def sources(self) -> Counter[str]:
        """How many videos each known source has."""
        groups = {sample.path: sample.group for sample in self._samples()}
        return Counter(group for group in groups.values() if group)

    def class_counts(self) -> dict[str, list[int]]:
        """Split → videos of each class, in the order of the classes. One with several classes counts in each."""
        counts = {split: [0] * len(self.annotations.classes) for split in self.annotations.splits}
        for split, samples in self.annotations.splits.items():
            for label in (label for sample in samples for label in sample.labels):
                if 0 <= label < len(counts[split]):
                    counts[split][label] += 1
        return counts

    def _samples(self) -> list[Sample]:
        return [sample for samples in self.annotations.splits.values() for sample in samples]


def data_facts(
    run: Run,
    *,
    sample: int = SAMPLE,
    workers: int | None = None,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> DataFacts:
    """The facts of the data that `run.data` describes, with the headers of `sample` videos spread evenly over its
    lists (0: of all), read in `workers` processes (None: one per core).

    `report` hears of progress: {"what", "done", "total"}. Raises ValueError where the annotations cannot be read.
    """
    if sample < 0:
        raise ValueError(f"sample {sample}: give how many videos' headers to read, 0 for all")
    annotations = read_annotations(run.data, run.seed)
    paths = list(dict.fromkeys(each.path for samples in annotations.splits.values() for each in samples))
    sizes = {path: entry.st_size for path, entry in stat_all(paths).items()}
    wanted = paths
    if sample and sample < len(paths):
        wanted = [paths[n] for n in np.linspace(0, len(paths) - 1, sample).astype(int)]
    limits = [_SECONDS + _SECONDS_PER_MB * sizes.get(path, 0) / 1e6 for path in wanted]
    headers: dict[Path, VideoInfo] = {}
    unreadable: dict[Path, str] = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for done, (place, outcome) in enumerate(isolated(probe, wanted, limits, workers or cores), 1):
        path = wanted[place]
        if isinstance(outcome, Lost):
            unreadable[path] = outcome.reason.removeprefix(f"{path}: ")
        else:
            headers[path] = outcome
        report({"what": "reading headers", "done": done, "total": len(wanted)})
    order = {path: place for place, path in enumerate(wanted)}
    return DataFacts(
        annotations,
        len(wanted),
        {path: headers[path] for path in sorted(headers, key=order.__getitem__)},
        {path: unreadable[path] for path in sorted(unreadable, key=order.__getitem__)},
        sizes,
        _grouped(annotations, run),
    )


def _grouped(annotations: Annotations, run: Run) -> dict[str, int] | None:
    samples = [each for split in annotations.splits.values() for each in split]
    groups = [each.group for each in samples if each.group]
    if not annotations.undivided or run.data.nested or run.data.split == "group" or len(groups) < len(samples):
        return None
    if len(set(groups)) < run.data.folds or run.data.fold > run.data.folds:
        return None
    held_out = group_parts(groups, [each.label for each in samples], run.data.folds, run.seed).count(run.data.fold - 1)
    return {"train": len(samples) - held_out, "val": held_out}


def shared_sources(samples: Sequence[Sample], others: Sequence[Sample]) -> int:
    """How many sources of `samples` are among those of `others` too."""
    return len({each.group for each in samples if each.group} & {each.group for each in others})
