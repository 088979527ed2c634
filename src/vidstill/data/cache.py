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
from vidstill.data.annotations import Annotations, find_problems, read_annotations, source_group
from vidstill.data.formats import read_listing
from vidstill.data.isolated import Lost, isolated
from vidstill.data.lists import base
from vidstill.data.prepared import begin_prepared, is_prepared, write_prepared
from vidstill.data.rows import Listing, Row, few, is_video_name, stem
from vidstill.files import PARTIAL, locked, partial_beside
from vidstill.video.decode import VideoError, iter_frames, probe, read_frames
from vidstill.video.frame_folder import is_frame_folder, pictures_of
from vidstill.video.index import read_index
from vidstill.video.intra import QUALITY, IntraWriter
from vidstill.video.source import ASSUMED_FPS, Video, frames_of

log = logging.getLogger(__name__)

VIDEOS, DONE = "videos", "done.jsonl"

_MARK = 32  # side of the small picture by which each frame is known again
_ALIKE = 4.0  # grey levels on average between the small pictures of a frame and of its copy; real clips have up to 1
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

    A copy has the frames of its video, or stretch, in their order, resized as `read_frames` does it, and its rate; that
    is verified by decoding it. A video that does not decode to the number of frames that it promises keeps its original
    in the lists, so that samples stay what they were. `run.data` with `root=out` gives the same samples.

    What is finished is not made again unless file, time or `side` differ; an interrupted copy goes on. `report` hears
    of progress: {"what", "done", "total", "detail"}. Raises ValueError for data that cannot be trained on, for a folder
    that holds something else, and where the disk is too small.
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
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, wait=0.0, busy=f"another process prepares {out}"):
        if not is_prepared(out):
            begin_prepared(out)
        rate = data.fps or listing.fps or ASSUMED_FPS
        files = _names(listing, _absolute(base(data)))
        made, kept = _copy(files, out, side, rate, workers, report)
        size = sum(entry["bytes"] for entry in made.values())
        read = {video.path for video, name in files.items() if name in made}
        copied = _of_copies(listing, {video: out / name for video, name in files.items() if name in made}, data.group)
        source_size = sum(_weight(path) for path in read)
        write_prepared(out, copied, data, annotations.classes, {
            "made_by": f"vidstill {version('vidstill')} prepare cache", "root": str(_absolute(data.root)), "side": side,
            "codec": "mjpeg", "quality": QUALITY, "videos": len(made), "bytes": size, "source_bytes": source_size,
            "kept": kept,
        })  # fmt: skip
        moved = data.model_copy(update={"root": out, "train": None, "val": None, "test": None})
        _compare(annotations, read_annotations(moved, run.seed), out)
    return Cached(out, len(made), size, source_size, kept)


def _refuse_foreign(out: Path, root: Path, searched: bool) -> None:
    """Raises ValueError for a folder that holds something else, or lies among videos that are found by `searched`."""
    real = Path(os.path.realpath(out))
    if searched and Path(os.path.realpath(root)) in (real, *real.parents):
        raise ValueError(f"{out} lies in the data set {root}, whose videos would be found twice: give another folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: give a folder")
    if out.is_dir() and not is_prepared(out) and any(path.name != ".lock" for path in out.iterdir()):
        raise ValueError(f"{out} holds something else: give a new or empty folder")


def _names(listing: Listing, root: Path) -> dict[Video, str]:
    """Each video → its file in the cache, by its name in the data set."""
    names: dict[Video, str] = {}
    taken: set[str] = set()
    for rows in listing.rows.values():
        for row in rows:
            if (video := _video(row)) in names:
                continue
            path = _absolute(row.path)
            inside = path.relative_to(root if path.is_relative_to(root) else path.anchor)
            stretch = f"_{row.start:g}-{'' if row.end is None else f'{row.end:g}'}" if video.is_stretch else ""
            name = f"{VIDEOS}/{inside.with_name(stem(inside) + stretch).as_posix()}.mov"
            if name in taken:  # a.avi beside a.mp4
                name = f"{VIDEOS}/{inside.with_name(inside.name + stretch).as_posix()}.mov"
            while name in taken:
                name = f"{name.removesuffix('.mov')}_.mov"
            taken.add(name)
            names[video] = name
    return names


def _absolute(path: Path) -> Path:
    """Links are not followed: their names may be all that tells videos apart."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _video(row: Row) -> Video:
    return Video(row.path, row.start, row.end)


@dataclass(frozen=True)
class _Job:
    """The videos of one path, which are read in one pass, and where their copies go."""

    path: Path
    fps: float  # of a frame folder
    side: int
    cuts: tuple[tuple[Video, Path], ...]


def _copy(
    files: dict[Video, str],
    out: Path,
    side: int,
    rate: float,
    workers: int | None,
    report: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Make what is not there. What is known of each copy by its name, and why videos keep their originals."""
    finished, made, kept = _finished(out / DONE), dict[str, dict[str, Any]](), dict[str, str]()
    waiting: dict[Path, list[tuple[Video, Path]]] = defaultdict(list)
    stated: dict[str, dict[str, Any]] = {}
    for video, name in files.items():
        stated[name] = _stated(video, side, rate)
        entry = finished.get(name)
        if entry and entry.items() >= stated[name].items() and _size(out / name) == entry["bytes"]:
            made[name] = entry
        else:
            waiting[video.path].append((video, out / name))
    jobs = [_Job(path, rate, side, tuple(cuts)) for path, cuts in waiting.items()]
    _remove_partial(out / VIDEOS)
    _check_space(jobs, out, workers, report)
    total, done = sum(len(job.cuts) for job in jobs), 0
    if made and jobs:
        log.info("%d of %d videos are there already", len(made), len(files))
    limits = [_SECONDS + _SECONDS_PER_MB * _weight(job.path) / 1e6 for job in jobs]
    try:
        with (
            (out / DONE).open("a", encoding="utf-8") as file,
            contextlib.closing(isolated(_encode, jobs, limits, workers)) as outcomes,
        ):
            for position, outcome in outcomes:
                job = jobs[position]
                results = [outcome.reason] * len(job.cuts) if isinstance(outcome, Lost) else outcome
                for (video, target), result in zip(job.cuts, results, strict=True):
                    name = target.relative_to(out).as_posix()
                    if isinstance(result, str):
                        kept[str(video)] = result.removeprefix(f"{video.path}: ")
                        target.unlink(missing_ok=True)
                        continue
                    made[name] = {"file": name, **stated[name], **result}
                    file.write(json.dumps(made[name]) + "\n")
                file.flush()
                done += len(job.cuts)
                size = sum(entry["bytes"] for entry in made.values())
                report({"what": "copying", "done": done, "total": total, "detail": _bytes(size)})
    finally:
        _remove_partial(out / VIDEOS)
    return made, kept


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


def _stated(video: Video, side: int, rate: float) -> dict[str, Any]:
    """What a copy is of, and how it is made: it is made anew where this differs."""
    folder = not is_video_name(video.path.name)
    with contextlib.suppress(OSError):
        stat = video.path.stat()
        return {
            "source": str(_absolute(video.path)), "start": video.start, "end": video.end, "size": stat.st_size,
            "time": stat.st_mtime_ns, "fps": rate if folder else None, "side": side, "quality": QUALITY,
        }  # fmt: skip
    return {"source": None}


def _encode(job: _Job) -> list[dict[str, Any] | str]:
    """For each cut its number of frames and bytes, or why it has no copy. Raises VideoError for an unreadable file."""
    cv2.setNumThreads(1)
    whole = Video(job.path, fps=job.fps)
    info = probe(whole)
    index = None if is_frame_folder(job.path) else read_index(job.path)
    shown: list[range | str] = []
    for video, _ in job.cuts:
        try:
            shown.append(frames_of(video, info, index.seconds if index else None))
        except VideoError as error:
            shown.append(str(error))
    wanted = [frames for frames in shown if isinstance(frames, range)]
    last = max((frames.stop for frames in wanted), default=0)
    short = min(info.height, info.width)
    with contextlib.ExitStack() as stack:
        copies = [
            frames if isinstance(frames, str) else stack.enter_context(_Copy(target, frames, info.fps, info.ticks))
            for frames, (_, target) in zip(shown, job.cuts, strict=True)
        ]
        # beyond the last frame of a whole video too: it may have more than its packets promise
        stop = None if any(not video.is_stretch for video, _ in job.cuts) else last
        count = 0
        for frame in iter_frames(whole if index is None else job.path, short_side=min(job.side, short)):
            if stop is not None and frame.index >= stop:
                break
            count = frame.index + 1
            for copy in copies:
                if isinstance(copy, _Copy) and frame.index in copy.frames:
                    copy.write(frame.pixels, frame.seconds)
        promised = info.frames if stop is None else stop
        if count != promised:
            return [f"{count} frames decode, {promised} are promised"] * len(job.cuts)
        return [copy if isinstance(copy, str) else copy.finish() for copy in copies]


class _Copy:
    """A copy in the making, under another name until it is verified."""

    def __init__(self, target: Path, frames: range, fps: float, ticks: int) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.target, self.part, self.frames, self.fps, self.ticks = target, partial_beside(target), frames, fps, ticks
        self.writer = IntraWriter(self.part, fps, ticks)
        self.marks: list[np.ndarray] = []
        self.begin, self.closed = 0.0, False

    def __enter__(self) -> _Copy:
        self.writer.__enter__()
        return self

    def write(self, pixels: np.ndarray, seconds: float) -> None:
        self.begin = self.begin if self.marks else seconds
        self.writer.write(pixels, seconds - self.begin)
        self.marks.append(_mark(pixels))

    def finish(self) -> dict[str, Any] | str:
        """Give the copy its name if it decodes to the frames that went in, else say what differs."""
        self.closed = True
        self.writer.__exit__(None, None, None)
        index = read_index(self.part)
        told = index.info.frames, index.info.fps, index.info.ticks, index.plan is not None
        if told != (len(self.frames), self.fps, self.ticks, True):
            return f"its copy has {told[0]} frames at {told[1]:g}/s, not {len(self.frames)} at {self.fps:g}/s"
        count = 0
        for frame, mark in zip(iter_frames(self.part), self.marks, strict=False):
            count += 1
            if (difference := float(cv2.absdiff(_mark(frame.pixels), mark).mean())) > _ALIKE:
                return f"frame {frame.index} of its copy differs by {difference:.1f} grey levels on average"
        if count != len(self.marks):
            return f"{count} of {len(self.marks)} frames of its copy decode"
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        self.part.replace(self.target)
        return {"frames": count, "bytes": self.target.stat().st_size}

    def __exit__(self, *error: Any) -> None:
        if not self.closed:
            self.writer.__exit__(VideoError, None, None)
        self.part.unlink(missing_ok=True)


def _mark(pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, (_MARK, _MARK), interpolation=cv2.INTER_AREA)


def _check_space(
    jobs: Sequence[_Job], out: Path, workers: int | None, report: Callable[[dict[str, Any]], None]
) -> None:
    """Raises ValueError where the copies of `jobs` do not fit on the disk, by what some of them will take."""
    sampled = list(jobs[:: max(1, len(jobs) // _SAMPLED)][:_SAMPLED])
    size = weight = 0.0
    limits = [_SECONDS + _SECONDS_PER_MB * _weight(job.path) / 1e6 for job in sampled]
    for done, (position, outcome) in enumerate(isolated(_estimate, sampled, limits, workers), 1):
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
    """Bytes that its copies will take, from a few frames of each."""
    total = 0.0
    for cut, target in job.cuts[:_FRAMES]:
        video = dataclasses.replace(cut, fps=job.fps)
        info = probe(video)
        numbers = np.linspace(0, info.frames - 1, _FRAMES).astype(int)
        pictures = read_frames(video, numbers, short_side=min(job.side, info.height, info.width))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = partial_beside(target)
        try:
            with IntraWriter(part, info.fps, info.ticks) as writer:
                for number, pixels in enumerate(pictures):
                    writer.write(pixels, number / info.fps)
            total += part.stat().st_size / _FRAMES * info.frames
        finally:
            part.unlink(missing_ok=True)
    return total / len(job.cuts[:_FRAMES]) * len(job.cuts)


def _of_copies(listing: Listing, copies: dict[Video, Path], pattern: str | None) -> Listing:
    """The listing with the copy of each video in its place, and the original of one that has none."""
    rows: dict[str, list[Row]] = {}
    for split, originals in listing.rows.items():
        rows[split] = []
        for row in originals:
            video = _video(row)
            if not video.is_stretch:
                moved = dataclasses.replace(row, path=copies.get(video, _absolute(row.path)))
            elif video in copies:  # a file of its own, that is known by what it was a stretch of
                moved = dataclasses.replace(
                    row, path=copies[video], name=row.key, start=0.0, end=None, group=source_group(row, pattern)
                )
            else:
                moved = dataclasses.replace(row, path=_absolute(row.path), group=source_group(row, pattern))
            rows[split].append(moved)
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
