"""What a data set holds, from its annotations and the headers of its videos."""

from __future__ import annotations

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
from vidstill.video.decode import probe
from vidstill.video.index import VideoInfo
from vidstill.video.source import Video

SAMPLE = 1000  # videos whose headers are read unless told otherwise: seconds on a local disk

# What a file's packets may take: only a slow network drive needs so much
_SECONDS, _SECONDS_PER_MB = 30.0, 1.0


@dataclass(frozen=True)
class DataFacts:
    """`headers` are those that could be read of `asked` videos, `unreadable` says why the others could not; `sizes` are
    the bytes of every file that is there (a frame folder counts as its entry alone). `grouped`: what each split would
    have if sources stayed together, where the settings divide the videos without regard to sources that are known."""

    annotations: Annotations
    asked: int
    headers: dict[Video, VideoInfo]
    unreadable: dict[Video, str]
    sizes: dict[Path, int]
    grouped: dict[str, int] | None = None

    @property
    def videos(self) -> int:
        """Different files and stretches of them; one may be in several splits."""
        return len({sample.video for sample in self._samples()})

    @property
    def missing(self) -> int:
        """Files that are not there."""
        return len({sample.path for sample in self._samples()} - self.sizes.keys())

    @property
    def sources(self) -> Counter[str]:
        """How many videos each known source has."""
        groups = {sample.video: sample.group for sample in self._samples()}
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
    videos = list(dict.fromkeys(each.video for samples in annotations.splits.values() for each in samples))
    paths = list(dict.fromkeys(video.path for video in videos))
    sizes = {path: entry.st_size for path, entry in stat_all(paths).items()}
    wanted = videos
    if sample and sample < len(videos):
        wanted = [videos[n] for n in np.linspace(0, len(videos) - 1, sample).astype(int)]
    limits = [_SECONDS + _SECONDS_PER_MB * sizes.get(video.path, 0) / 1e6 for video in wanted]
    headers: dict[Video, VideoInfo] = {}
    unreadable: dict[Video, str] = {}
    for done, (place, outcome) in enumerate(isolated(probe, wanted, limits, workers), 1):
        video = wanted[place]
        if isinstance(outcome, Lost):
            unreadable[video] = outcome.reason.removeprefix(f"{video}: ").removeprefix(f"{video.path}: ")
        else:
            headers[video] = outcome
        report({"what": "reading headers", "done": done, "total": len(wanted)})
    order = {video: place for place, video in enumerate(wanted)}
    return DataFacts(
        annotations,
        len(wanted),
        {video: headers[video] for video in sorted(headers, key=order.__getitem__)},
        {video: unreadable[video] for video in sorted(unreadable, key=order.__getitem__)},
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
