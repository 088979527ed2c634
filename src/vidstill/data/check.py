"""Decode every video of a data set and say what is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from vidstill.config import Clip, Run
from vidstill.data.annotations import Annotations, Problem, Sample, class_text, find_problems, read_annotations
from vidstill.data.isolated import Lost, isolated
from vidstill.data.rows import special
from vidstill.data.sampling import Timing, frames_needed
from vidstill.files import write_csv
from vidstill.video.decode import FramesMissing, VideoError, count_frames, probe
from vidstill.video.frame_folder import is_frame_folder
from vidstill.video.index import open_video, packets, stated_seconds
from vidstill.video.source import ASSUMED_FPS, Video

Kind = Literal["broken", "damaged", "differs", "beyond", "short", "harmless"]  # the most serious first
Verdict = tuple[Kind, float, str]  # with how much is left, so that the worst of a kind comes first

_MEANING: dict[Kind, str] = {
    "broken": "not one frame decodes, training takes others in their place; get them anew or remove them",
    "damaged": "the decode ends in an error, training takes the frames before it; get them anew",
    "differs": "far from the declared number of frames, as where a copy was broken off or files were joined; look at "
    "them, get them anew",
    "beyond": "stretches that end after their video, training takes what is there; see that the times are in seconds, "
    "of this very file",
    "short": "fewer frames than a clip takes, so that some repeat; where most are short lower clip.frames or "
    "clip.interval",
    "harmless": "a frame or two more or less than declared, a habit of some encoders; nothing to do",
}
_BEYOND = 0.5  # seconds by which lists round up
_HABIT = 2  # frames by which encoders miscount: the delay of B-frames, placeholders in packed bitstreams

# What a file may take: even slow codecs decode a megabyte in a second
_SECONDS, _SECONDS_PER_MB = 60.0, 5.0


@dataclass(frozen=True)
class Finding:
    """A video of which not one frame decodes (`broken`), whose decode ends in an error (`damaged`), that has many
    frames less or more than its container or list declares (`differs`), ends before its stretch does (`beyond`), has
    fewer than a clip takes (`short`), or one or two less or more than declared (`harmless`)."""

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
        """A line for the videos, one for each problem, one for each kind of finding: what it means, its worst video."""
        sizes = ", ".join(f"{split} {len(samples)}" for split, samples in self.annotations.splits.items())
        lines = [f"{sizes} videos in {len(self.annotations.classes)} classes"]
        lines += [f"{'error' if problem.fatal else 'warning'}: {problem}" for problem in self.problems]
        for kind, meaning in _MEANING.items():
            if found := [finding for finding in self.findings if finding.kind == kind]:
                worst = "" if kind == "harmless" else f". The worst is {found[0].sample.video}: {found[0].reason}"
                lines.append(f"{kind}: {len(found)} video{'s' * (len(found) > 1)}: {meaning}{worst}")
        if not self.problems and all(finding.kind == "harmless" for finding in self.findings):
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
    write_findings(annotations, findings, out)
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
    samples: dict[Path, dict[Video, Sample]] = {}
    for sample in (sample for split in annotations.splits.values() for sample in split):
        samples.setdefault(sample.path, {})[sample.video] = sample
    paths = list(samples)
    limits = [_SECONDS + _SECONDS_PER_MB * _megabytes(path) for path in paths]
    found: list[tuple[int, float, int, Finding]] = []
    order = get_args(Kind)
    outcomes = isolated(_decode, paths, limits, workers)
    for done, (position, outcome) in enumerate(outcomes, 1):
        path = paths[position]
        for sample in samples[path].values():
            if isinstance(outcome, Lost):
                verdict: Verdict | None = ("broken", 0.0, outcome.reason.removeprefix(f"{path}: "))
            else:
                verdict = _judge(outcome, clip, sample)
            if verdict:
                kind, rest, reason = verdict
                found.append((order.index(kind), rest, position, Finding(sample, kind, reason)))
        progress(done, len(paths))
    return [finding for *_, finding in sorted(found, key=lambda entry: entry[:3])]


def write_findings(annotations: Annotations, findings: Sequence[Finding], path: Path) -> None:
    """A csv with the columns path, label (class names), problem, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(f.sample.video, class_text(annotations, f.sample), f"{f.kind}: {f.reason}") for f in findings]
    write_csv(path, [("path", "label", "problem"), *rows])


class _Decoded(NamedTuple):
    """Frames that the container declares (its packets, where it declares none) and means to be shown, frames that
    decode, what ended the decode ("": the end), the declared frame rate (0: a frame folder's), and the length of a copy
    that may have stretches alone (0: frames / fps)."""

    declared: int
    frames: int
    damage: str
    fps: float
    seconds: float = 0.0


def _decode(path: Path) -> _Decoded:
    if is_frame_folder(path):
        info = probe(path)
        try:
            return _Decoded(info.frames, count_frames(path), "", 0.0)
        except FramesMissing as missing:
            return _Decoded(info.frames, missing.available, str(missing).removeprefix(f"{path}/"), 0.0)
    if path.exists() and (kind := special(path.stat().st_mode)):
        raise VideoError(f"is {kind}, no video file")
    with open_video(path) as (_, stream):
        declared, fps = stream.frames or probe(path).frames, float(stream.average_rate or 25)
    try:
        frames, damage = count_frames(path), ""
    except FramesMissing as missing:
        frames, damage = missing.available, str(missing).removeprefix(f"{path}: ")
    if frames < declared and not damage:
        with open_video(path) as (container, stream):
            declared -= sum(packet.is_discard for packet in packets(container, stream)) if stream.frames else 0
    return _Decoded(declared, frames, damage, fps, stated_seconds(path))


def _judge(found: _Decoded, clip: Clip, sample: Sample) -> Verdict | None:
    declared, frames, damage, fps, length = found
    declared, fps = sample.frames or declared, fps or sample.fps or ASSUMED_FPS
    needed, seconds = frames_needed(clip, Timing(fps)), length or frames / fps
    rest = frames / max(1, declared)
    counts = f"{frames} frames decode, {declared} are declared"
    if damage:
        return "damaged", rest, f"{frames} of {declared} frames decode: {damage.partition(': ')[2] or damage}"
    if abs(frames - declared) > _HABIT:
        return "differs", rest, counts
    if sample.start >= seconds:
        return "broken", 0.0, f"the stretch begins at {sample.start:g} s, the video ends after {seconds:.2f} s"
    if sample.end is not None and sample.end > seconds + _BEYOND:
        return "beyond", seconds - sample.end, f"the stretch ends at {sample.end:g} s, the video after {seconds:.2f} s"
    shown = round(((seconds if sample.end is None else sample.end) - sample.start) * fps)
    if shown < needed:
        return "short", float(shown), f"{shown} frames, a clip takes {needed}"
    if frames != declared:
        return "harmless", rest, counts
    return None


def _megabytes(path: Path) -> float:
    try:
        return path.stat().st_size / 1e6
    except (OSError, ValueError):
        return 0.0
