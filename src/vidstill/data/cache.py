"""A copy of a data set that is read fast: every video once decoded and written as small key frames."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidstill.config import Run
from vidstill.data.annotations import Annotations, find_problems, rate_of, read_annotations
from vidstill.data.formats import read_listing
from vidstill.data.isolated import Lost, isolated
from vidstill.data.lists import base
from vidstill.data.prepared import begin_prepared, is_prepared, write_prepared
from vidstill.data.rows import Listing, Row, few, is_video_name, stem
from vidstill.files import PARTIAL, WriteError, cannot_write, locked, partial_beside
from vidstill.video.decode import VideoError, iter_frames, probe, read_frames
from vidstill.video.frame_folder import is_frame_folder, pictures_of
from vidstill.video.index import read_index
from vidstill.video.intra import QUALITY, IntraWriter
from vidstill.video.source import ASSUMED_FPS, Source, Video, VideoInfo, as_video, frames_of

log = logging.getLogger(__name__)

VIDEOS, DONE = "videos", "done.jsonl"

_MARK = 16  # side of the small picture by which each frame is known again
_ALIKE = 8.0  # grey levels on average between the small pictures of a frame and of its copy; real clips have about 1
_SAMPLED, _FRAMES = 16, 4  # videos, and frames of each, that the size is estimated from
_SECONDS, _SECONDS_PER_MB = 120.0, 10.0  # what a video may take: twice the limits of a check


@dataclass(frozen=True)
class Cached:
    """What a cache holds: `videos` files of `size` bytes, made of `source_size`; those `kept` stay where they are, with
    the reason."""

    folder: Path
    videos: int
    size: int
    source_size: int
    kept: dict[str, str]

    def summary(self) -> str:
        ratio = self.size / max(1, self.source_size)
        lines = [f"{self.videos} videos, {_bytes(self.size)}, {ratio:.1f} times their originals"]
        if self.kept:
            first = next(iter(self.kept.items()))
            lines.append(
                f"{len(self.kept)} videos are read from their originals, as they cannot be copied frame by frame: "
                f"{few([*self.kept])}. The first: {first[1]}"
            )
        return "\n".join(lines)


def prepare_cache(
    run: Run,
    out: Path,
    *,
    side: int = 256,
    workers: int | None = None,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Cached:
    """Copy the videos of `run.data` to the folder `out`, as Motion JPEG with a short side of at most `side`.

    A copy has the frames of its video in their order, resized as `read_frames` does it, its rate and its times; that is
    verified by decoding it. Of a video that only stretches are used of, it has the frames of these. A video that does
    not decode to the number of frames that it promises keeps its original in the lists, so that samples stay what they
    were. `run.data` with `root=out` gives the same samples.

    What is finished is not made again unless file, time or `side` differ; an interrupted copy goes on. `report` hears
    of progress: {"what", "done", "total", "detail"}. Raises ValueError for data that cannot be trained on, for a folder
    that holds something else, and where the disk is too small; WriteError where it fills up.
    """
    if not 16 <= side <= 4096:
        raise ValueError(f"side {side}: give pixels from 16 to 4096")
    data, out = run.data, _absolute(out)
    listing, annotations = read_listing(data), read_annotations(data, run.seed)
    problems = find_problems(annotations)
    if fatal := next((problem for problem in problems if problem.fatal), None):
        raise ValueError(f"{fatal}; `vidstill check {data.root}` says more")
    for text in (*annotations.notes, *problems):
        log.warning("%s", text)
    _refuse_foreign(out, base(data), searched=listing.named)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    with locked(out, wait=0.0, busy=f"another process prepares {out}"):
        if not is_prepared(out):
            begin_prepared(out)
        rate = data.fps or listing.fps or ASSUMED_FPS
        jobs = _jobs(listing, _absolute(base(data)), out, side, lambda row: rate_of(row, data.fps, rate) or rate)
        made, kept = _copy(jobs, out, workers, report)
        size, source_size = sum(entry["bytes"] for entry in made.values()), sum(map(_weight, made))
        copied = _of_copies(listing, {path: out / entry["file"] for path, entry in made.items()})
        write_prepared(out, copied, data, annotations.classes, {
            "made_by": f"vidstill {version('vidstill')} prepare cache", "root": str(_absolute(data.root)), "side": side,
            "codec": "mjpeg", "quality": QUALITY, "videos": len(made), "bytes": size, "source_bytes": source_size,
            "kept": kept,
        })  # fmt: skip
        moved = data.model_copy(update={"root": out, "train": None, "val": None, "test": None})
        _compare(annotations, read_annotations(moved, run.seed), out)
    return Cached(out, len(made), size, source_size, kept)


def copy_video(source: Source, target: Path, side: int = 256) -> None:
    """Copy one video as `prepare_cache` does. Raises VideoError where it cannot be copied frame by frame."""
    video = as_video(source)
    stretches = ((video.start, video.end),) if video.is_stretch else ()
    _encode(_Job(video.path, stretches, target, video.fps or ASSUMED_FPS, side))


def _refuse_foreign(out: Path, root: Path, searched: bool) -> None:
    """Raises ValueError for a folder that holds something else, or lies among videos that are found by `searched`."""
    real = Path(os.path.realpath(out))
    if searched and Path(os.path.realpath(root)) in (real, *real.parents):
        raise ValueError(f"{out} lies in the data set {root}, whose videos would be found twice: give another folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: give a folder")
    if out.is_dir() and not is_prepared(out) and any(path.name != ".lock" for path in out.iterdir()):
        raise ValueError(f"{out} holds something else: give a new or empty folder")


@dataclass(frozen=True)
class _Job:
    """A video, the stretches of it that are used (none: all of it), and where its copy goes."""

    path: Path
    stretches: tuple[tuple[float, float | None], ...]
    target: Path
    fps: float  # of a frame folder
    side: int

    def stated(self) -> dict[str, Any] | None:
        """What the copy is of, and how it is made: it is made anew where this differs. None where there is no video."""
        try:
            stat = self.path.stat()
        except (OSError, ValueError):
            return None
        return {
            "source": str(_absolute(self.path)), "size": stat.st_size, "time": stat.st_mtime_ns,
            "stretches": [list(stretch) for stretch in self.stretches], "side": self.side, "quality": QUALITY,
            "fps": None if is_video_name(self.path.name) else self.fps,
        }  # fmt: skip


def _jobs(listing: Listing, root: Path, out: Path, side: int, rate: Callable[[Row], float]) -> list[_Job]:
    """One for each path of the lists; the copies are called as the videos, below `root` or wherever they are."""
    used: dict[Path, set[tuple[float, float | None]]] = defaultdict(set)
    rates: dict[Path, float] = {}
    for row in (row for rows in listing.rows.values() for row in rows):
        used[row.path].add((row.start, row.end))
        rates[row.path] = rate(row)
    jobs, taken = [], set[str]()
    for path, stretches in used.items():
        place = _absolute(path)
        place = place.relative_to(root if place.is_relative_to(root) else place.anchor)
        name = place.with_name(stem(place)).as_posix()
        while name in taken:  # a.avi beside a.mp4
            name = place.as_posix() if name != place.as_posix() else f"{name}_"
            place = Path(name)
        taken.add(name)
        whole = (0.0, None) in stretches
        kept = () if whole else tuple(sorted(stretches, key=lambda s: (s[0], s[1] or 0.0)))
        jobs.append(_Job(path, kept, out / VIDEOS / f"{name}.mov", rates[path], side))
    return jobs


def _absolute(path: Path) -> Path:
    """Links are not followed: their names may be all that tells videos apart."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _copy(
    jobs: Sequence[_Job], out: Path, workers: int | None, report: Callable[[dict[str, Any]], None]
) -> tuple[dict[Path, dict[str, Any]], dict[str, str]]:
    """Make what is not there. What is known of each copy, by the path of its video, and why others have none."""
    finished, made, kept = _finished(out / DONE), dict[Path, dict[str, Any]](), dict[str, str]()
    waiting, stated = [], [job.stated() for job in jobs]
    for job, now in zip(jobs, stated, strict=True):
        entry = finished.get(job.target.relative_to(out).as_posix())
        if entry and now and entry.items() >= now.items() and _size(job.target) == entry["bytes"]:
            made[job.path] = entry
        else:
            waiting.append((job, now))
    _remove_partial(out / VIDEOS)
    left = [job for job, _ in waiting]
    _check_space(left, out, workers, report)
    if made and left:
        log.info("%d of %d videos are there already", len(made), len(jobs))
    size = sum(entry["bytes"] for entry in made.values())
    try:
        with (
            (out / DONE).open("a", encoding="utf-8") as file,
            contextlib.closing(isolated(_attempt, left, _limits(left), workers)) as outcomes,
        ):
            for done, (position, outcome) in enumerate(outcomes, 1):
                job, now = waiting[position]
                if isinstance(outcome, WriteError):  # of every other video too
                    raise outcome
                if isinstance(outcome, Lost):
                    kept[str(job.path)] = outcome.reason.removeprefix(f"{job.path}: ")
                    job.target.unlink(missing_ok=True)
                else:
                    made[job.path] = {"file": job.target.relative_to(out).as_posix(), **(now or {}), **outcome}
                    file.write(json.dumps(made[job.path]) + "\n")
                    file.flush()
                    size += outcome["bytes"]
                report({"what": "copying", "done": done, "total": len(left), "detail": _bytes(size)})
    finally:
        _remove_partial(out / VIDEOS)
    return made, kept


def _limits(jobs: Sequence[_Job]) -> list[float]:
    """Seconds that each may take."""
    return [_SECONDS + _SECONDS_PER_MB * _weight(job.path) / 1e6 for job in jobs]


def _finished(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of `done.jsonl` by file, the last of each. A line that a killed process left half written is none."""
    entries = {}
    with contextlib.suppress(OSError):
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                entries[entry["file"]] = entry
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
    return entries


def _attempt(job: _Job) -> dict[str, int] | WriteError:
    """As `_encode`; the error where it is the disk that is in the way, not the video."""
    try:
        return _encode(job)
    except (WriteError, OSError) as error:
        return cannot_write(job.target, error.__context__ or error)


def _encode(job: _Job) -> dict[str, int]:
    """The number of frames and bytes of the copy. Raises VideoError where the video cannot be copied frame by frame."""
    cv2.setNumThreads(1)
    folder = is_frame_folder(job.path)
    whole, index = Video(job.path, fps=job.fps), None if folder else read_index(job.path)
    info, times, last, wanted = probe(whole), index.seconds if index else None, None, None
    times = np.arange(info.frames) / info.fps if times is None else times  # as frames_of has it
    if job.stretches:
        wanted, last = _wanted(job, info, times)
    size = min(job.side, info.height, info.width)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    part = partial_beside(job.target)
    marks, count = [], 0
    try:
        with IntraWriter(part, info.fps, info.ticks, index.tick if index and index.stamps is not None else 0) as writer:
            # beyond the last frame too: there may be more than the packets promise
            for frame in iter_frames(whole if folder else job.path, short_side=size):
                if last is not None and frame.index > last:
                    break
                count = frame.index + 1
                if (wanted is None or frame.index in wanted) and count <= len(times):
                    writer.write(frame.pixels, times[frame.index])
                    marks.append(_mark(frame.pixels))
        if count != (promised := info.frames if last is None else last + 1):
            raise VideoError(f"{job.path}: {count} frames decode, {promised} are promised")
        _verify(part, marks, info)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(job.target)
    finally:
        part.unlink(missing_ok=True)
    return {"frames": len(marks), "bytes": job.target.stat().st_size}


def _wanted(job: _Job, info: VideoInfo, seconds: np.ndarray | None) -> tuple[set[int], int]:
    """The frames of all stretches, and the last of them; with the first of the video, from which times are counted."""
    frames, problem = {0}, None
    for start, end in job.stretches:
        try:
            frames.update(frames_of(Video(job.path, start, end), info, seconds))
        except VideoError as error:  # begins after the end, as it will in the copy
            problem = error
    if problem and frames == {0}:
        raise problem
    return frames, max(frames)


def _verify(copy: Path, marks: Sequence[np.ndarray], info: VideoInfo) -> None:
    """Raises VideoError unless the copy decodes to frames like these, at the rate of its video."""
    index = read_index(copy)
    if (index.info.fps, index.info.ticks, index.plan is not None) != (info.fps, info.ticks, True):
        raise VideoError(f"its copy has {index.info.fps:g} frames a second, not {info.fps:g}")
    count = 0
    for frame, mark in zip(iter_frames(copy), marks, strict=False):
        count += 1
        if (difference := float(cv2.absdiff(_mark(frame.pixels), mark).mean())) > _ALIKE:
            raise VideoError(f"frame {frame.index} of its copy differs by {difference:.1f} grey levels on average")
    if not count == index.info.frames == len(marks):
        raise VideoError(f"{count} of {len(marks)} frames of its copy decode")


def _mark(pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, (_MARK, _MARK), interpolation=cv2.INTER_AREA)


def _check_space(
    jobs: Sequence[_Job], out: Path, workers: int | None, report: Callable[[dict[str, Any]], None]
) -> None:
    """Raises ValueError where the copies of `jobs` do not fit on the disk, by what some of them will take."""
    sampled = list(jobs[:: max(1, len(jobs) // _SAMPLED)][:_SAMPLED])
    size = weight = 0.0
    for done, (position, outcome) in enumerate(isolated(_estimate, sampled, _limits(sampled), workers), 1):
        if not isinstance(outcome, Lost):
            size, weight = size + outcome, weight + _weight(sampled[position].path)
        report({"what": "estimating the size", "done": done, "total": len(sampled), "detail": ""})
    if not weight:
        return
    needed, free = size / weight * sum(_weight(job.path) for job in jobs), shutil.disk_usage(out).free
    log.info("the copies take about %s, %s are free", _bytes(needed), _bytes(free))
    if needed > free:
        raise ValueError(
            f"{out}: the copies take about {_bytes(needed)}, {_bytes(free)} are free: give a folder on another disk, "
            "or a smaller --side"
        )


def _estimate(job: _Job) -> float:
    """Bytes that its copy will take, from a few frames."""
    video = Video(job.path, fps=job.fps)
    info = probe(video)
    frames = list(range(info.frames))
    if job.stretches:
        index = None if is_frame_folder(job.path) else read_index(job.path)
        frames = sorted(_wanted(job, info, index.seconds if index else None)[0])
    numbers = [frames[round(at)] for at in np.linspace(0, len(frames) - 1, _FRAMES)]
    pictures = read_frames(video, numbers, short_side=min(job.side, info.height, info.width))
    job.target.parent.mkdir(parents=True, exist_ok=True)
    part = partial_beside(job.target)
    try:
        with IntraWriter(part, info.fps, info.ticks) as writer:
            for number, pixels in enumerate(pictures):
                writer.write(pixels, number / info.fps)
        return part.stat().st_size / len(numbers) * len(frames)
    finally:
        part.unlink(missing_ok=True)


def _of_copies(listing: Listing, copies: dict[Path, Path]) -> Listing:
    """The listing with the copy of each video in its place, and the original of one that has none."""
    rows = {
        split: [dataclasses.replace(row, path=copies.get(row.path, _absolute(row.path))) for row in originals]
        for split, originals in listing.rows.items()
    }
    return dataclasses.replace(listing, rows=rows)


def _compare(before: Annotations, after: Annotations, out: Path) -> None:
    """Raises ValueError unless the lists read back as the same samples in the same order."""

    def told(annotations: Annotations) -> Any:
        samples = annotations.splits.items()
        return annotations.classes, {split: [(s.labels, s.group) for s in found] for split, found in samples}

    if told(before) != told(after):
        raise ValueError(f"{out}: its lists do not give the classes, labels and groups of the data set")


def _weight(path: Path) -> int:
    """Bytes of a file; of a frame folder about."""
    with contextlib.suppress(OSError, ValueError):
        if is_frame_folder(path):
            pictures = pictures_of(path)
            return len(pictures) * pictures[len(pictures) // 2].stat().st_size
        return path.stat().st_size
    return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _remove_partial(folder: Path) -> None:
    """What a process left that was ended; this one holds the lock."""
    for path in _below(folder):
        if PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _below(folder: Path) -> Iterator[Path]:
    for top, _, names in os.walk(folder):
        yield from (Path(top, name) for name in names)


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
