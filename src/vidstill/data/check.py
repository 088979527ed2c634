"""Decode every video of a data set and say what is broken."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vidstill.config import Clip, Run
from vidstill.data.annotations import Annotations, Problem, Sample, find_problems, read_annotations
from vidstill.data.isolated import Lost, isolated
from vidstill.files import atomic
from vidstill.video.decode import FramesMissing, count_frames, probe
from vidstill.video.index import open_video

Kind = Literal["broken", "damaged", "short", "differs"]
Verdict = tuple[Kind, float, str]  # with how much is left, so that the worst of a kind comes first

# What a file may take: even slow codecs decode a megabyte in a second
_SECONDS, _SECONDS_PER_MB = 60.0, 5.0


@dataclass(frozen=True)
class Finding:
    """A video of which not one frame decodes (`broken`), whose decode ends in an error (`damaged`), that has fewer
    frames than a clip takes (`short`: frames repeat), or other than its container declares (`differs`: a cut file, or
    only a careless encoder)."""

    sample: Sample
    kind: Kind
    reason: str


@dataclass(frozen=True)
class Checked:
    """What a check of a data set found."""

    annotations: Annotations
    problems: list[Problem]
    findings: list[Finding]

    @property
    def fatal(self) -> bool:
        """Whether something is in the way of a sound training."""
        return any(problem.fatal for problem in self.problems) or any(f.kind == "broken" for f in self.findings)

    def summary(self) -> str:
        """A line for the videos, one for each problem, one for each kind of finding with its first video."""
        sizes = ", ".join(f"{split} {len(samples)}" for split, samples in self.annotations.splits.items())
        lines = [f"{sizes} videos in {len(self.annotations.classes)} classes"]
        lines += [f"{'error' if problem.fatal else 'warning'}: {problem}" for problem in self.problems]
        for kind in get_args(Kind):
            if found := [finding for finding in self.findings if finding.kind == kind]:
                lines.append(f"{kind}: {len(found)}, the first {found[0].sample.path}: {found[0].reason}")
        if not self.problems and not self.findings:
            lines.append("every video decodes, nothing is suspicious")
        return "\n".join(lines)


def check_data(
    run: Run, *, workers: int | None = None, out: Path, report: Callable[[dict[str, Any]], None] = lambda event: None
) -> Checked:
    """Read the annotations of a run, look for problems, decode every video, write what was found to the csv `out`.

    `report` hears of progress: {"what", "done", "total"}. Raises ValueError where the annotations cannot be read.
    """
    annotations = read_annotations(run.data, run.seed)
    problems = find_problems(annotations)

    def progress(done: int, total: int) -> None:
        report({"what": "decoding", "done": done, "total": total})

    findings = check(annotations, workers, progress, clip=run.clip)
    write_findings(findings, out)
    return Checked(annotations, problems, findings)


def check(
    annotations: Annotations,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    clip: Clip,
) -> list[Finding]:
    """Decode every video once, in `workers` processes (None: one per core); the worst findings first.

    A file that hangs or kills its decoder is broken; the rest goes on. `progress` gets (done, total).
    """
    samples = {sample.path: sample for split in annotations.splits.values() for sample in split}
    paths = list(samples)
    limits = [_SECONDS + _SECONDS_PER_MB * _megabytes(path) for path in paths]
    found: list[tuple[int, float, int, Finding]] = []
    order = get_args(Kind)
    outcomes = isolated(_decode, paths, limits, workers or _cores())
    for done, (position, outcome) in enumerate(outcomes, 1):
        path = paths[position]
        if isinstance(outcome, Lost):
            verdict: Verdict | None = ("broken", 0.0, outcome.reason.removeprefix(f"{path}: "))
        else:
            verdict = _judge(*outcome, clip)
        if verdict:
            kind, rest, reason = verdict
            found.append((order.index(kind), rest, position, Finding(samples[path], kind, reason)))
        progress(done, len(paths))
    return [finding for *_, finding in sorted(found, key=lambda entry: entry[:3])]


def write_findings(findings: Sequence[Finding], path: Path) -> None:
    """A csv with the columns path, label, problem, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "problem"))
    writer.writerows(
        (finding.sample.path, ";".join(map(str, finding.sample.labels)), f"{finding.kind}: {finding.reason}")
        for finding in findings
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))


def _decode(path: Path) -> tuple[int, int, str]:
    """Frames that its container declares (its packets, where it declares none), frames that decode, and what ended the
    decode ("": the end)."""
    with open_video(path) as (_, stream):
        declared = stream.frames or probe(path).frames
    try:
        return declared, count_frames(path), ""
    except FramesMissing as missing:
        return declared, missing.available, str(missing).removeprefix(f"{path}: ")


def _judge(declared: int, frames: int, damage: str, clip: Clip) -> Verdict | None:
    needed = clip.frames if clip.spans else (clip.frames - 1) * clip.interval + 1
    rest = frames / max(1, declared)
    if damage:
        return "damaged", rest, f"{frames} of {declared} frames decode: {damage.partition(': ')[2] or damage}"
    if frames < needed:
        return "short", float(frames), f"{frames} frames, a clip takes {needed}"
    if frames != declared:
        return "differs", rest, f"{frames} frames decode, {declared} are declared"
    return None


def _megabytes(path: Path) -> float:
    try:
        return path.stat().st_size / 1e6
    except (OSError, ValueError):
        return 0.0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
