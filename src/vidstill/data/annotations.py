"""Labelled videos in splits, from any accepted format, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from vidstill.config import Data
from vidstill.data.division import group_parts, stratified_parts
from vidstill.data.duplicates import File, identify, stat_all
from vidstill.data.formats import read_listing
from vidstill.data.lists import is_number, placed, split_labels
from vidstill.data.rows import UNDIVIDED, Listing, Row, few, is_video_name, special
from vidstill.labels import class_indices, class_names, shipped, spelling
from vidstill.video.frame_folder import is_frame_folder
from vidstill.video.source import ASSUMED_FPS, Video

# File names (without suffix) of data sets that cut several videos out of one recording
_SOURCES = [
    re.compile(pattern)
    for pattern in (
        r"v_(\w+)_(g\d+)_c\d+",  # UCF101, UCF50: groups are counted in each class anew
        r"v_([a-z]+(?:_[a-z]+)*)_(\d+)_\d+",  # UCF11
        r"(.+)_[fhlu]_(?:cm|nm)_np\d+_(?:ba|fr|le|ri)_(?:goo|med|bad)_\d+",  # HMDB51
        r"(person\d\d)_[a-z]+_d\d(?:_uncomp)?",  # KTH
        r"([\w-]{11})_\d{6}_\d{6}",  # Kinetics
    )
]


@dataclass(frozen=True)
class Sample:
    """One labelled video. `group` names its source: videos of one group must not be in two splits.

    `more`: the classes that it has beside `label`, in multi-label data. `start` and `end`: the stretch of the file, in
    seconds, that has the label (None: to its end). Of a frame folder: its rate, and how many frames a list says it has.
    """

    path: Path
    label: int
    _: KW_ONLY
    group: str | None = None
    more: tuple[int, ...] = ()
    start: float = 0.0
    end: float | None = None
    fps: float | None = None
    frames: int | None = None

    @cached_property
    def video(self) -> Video:
        """What readers read."""
        return Video(self.path, self.start, self.end, self.fps)

    @property
    def labels(self) -> tuple[int, ...]:
        return self.label, *self.more


def multi_hot(samples: Sequence[Sample], classes: int) -> np.ndarray:
    """(N,K) float32: 1 for the classes that a video has, else 0."""
    targets = np.zeros((len(samples), classes), dtype=np.float32)
    for row, sample in zip(targets, samples, strict=True):
        row[list(sample.labels)] = 1
    return targets


Rows = Mapping[Video, Row]  # what the list says of each


@dataclass
class Annotations:
    """Class names in order of ids, and the videos of the splits that there are: "train", "val", "test".

    `notes` are what the reader found worth knowing, e.g. listed videos that it left out. `undivided`: the videos came
    without splits, which the settings alone made.
    """

    classes: list[str]
    splits: dict[str, list[Sample]]
    notes: list[str] = field(default_factory=list)
    undivided: bool = False


@dataclass(frozen=True)
class Problem:
    """One line about a data set. It is `fatal` where training could not do what the annotations say."""

    text: str
    fatal: bool = False

    def __str__(self) -> str:
        return self.text


def read_annotations(data: Data, seed: int = 0, known: Sequence[str] | None = None) -> Annotations:
    """The videos that `data` describes, in the order of their list or of their names.

    What comes divided stays as it is; official lists give "train" and "test". What does not is cut into `data.folds`
    parts, stratified or by group, of which part `data.fold` is "val": the same on every machine for one seed. With
    `data.nested` what is held out so far is "test", and "val" is cut out of "train" (nested cross-validation).

    `known` are the class names of a model: ids are then its ids, `classes` are all of them, and the videos may be of
    some of them only. Labels of a list that are numbers without `data.classes` are ids of the model. The parts into
    which videos are cut do not depend on it.

    Raises ValueError, in one line with file and line number, for a format that cannot be told, a label that is no class
    (with the range that is allowed, and whether the labels look 1-based), for several labels of a video without
    `data.multi_label`, or a group pattern that does not fit.
    """
    listing = read_listing(data)
    classes, labels = _resolve_labels(listing, data, known)
    rate, notes = data.fps or listing.fps, list(listing.notes)
    unknown = (row for rows in listing.rows.values() for row in rows if not row.fps and _is_folder(row))
    if not rate and (folders := {row.path for row in unknown}):
        notes.append(f"{len(folders)} frame folders without a rate: {ASSUMED_FPS:g} fps are assumed; set data.fps")
        rate = ASSUMED_FPS
    splits = {
        split: [_sample(row, labels[row], _group(row, data.group), rate_of(row, data.fps, rate)) for row in rows]
        for split, rows in listing.rows.items()
        if rows
    }
    rows = {
        sample.video: row
        for split, samples in splits.items()
        for row, sample in zip(listing.rows[split], samples, strict=True)
    }
    if UNDIVIDED in splits:
        splits = _divide(splits[UNDIVIDED], rows, data, seed)
    if data.nested:
        splits = _nest(splits, rows, data, seed)
    if known is not None and classes != known:
        splits = _renumber(splits, classes, known)
        classes = list(known)
    return Annotations(classes, splits, notes, UNDIVIDED in listing.rows)


def _sample(row: Row, labels: tuple[int, ...], group: str | None, fps: float | None) -> Sample:
    return Sample(
        row.path, labels[0], group=group, more=labels[1:], start=row.start, end=row.end, fps=fps, frames=row.frames
    )


def rate_of(row: Row, wanted: float | None, otherwise: float | None) -> float | None:
    """Of a frame folder: as the settings have it, else the data set, else as is assumed. A file has its own."""
    rate = wanted or row.fps or otherwise
    return rate if rate and _is_folder(row) else None


def _is_folder(row: Row) -> bool:
    """Whether a folder of frames is meant; no file is looked up."""
    return not is_video_name(row.path.name)


def _resolve_labels(
    listing: Listing, data: Data, known: Sequence[str] | None
) -> tuple[list[str], dict[Row, tuple[int, ...]]]:
    """Class names, and the ids of each row in their order. Labels of a list are ids where every one is a number.

    The names are those of the data set, unless the model alone (`known`) gives names to ids. Raises ValueError where a
    label is none of them, or none of the model's.
    """
    rows = [row for split in listing.rows.values() for row in split]
    classes = class_list(data) if data.classes else listing.classes
    written = _written(rows, data.multi_label, classes or known)
    if not listing.named and all(is_number(label) for _, label in written):
        classes = classes or (list(known) if known is not None else None)
        ids = [(row, int(label)) for row, label in written]
        _check_range(ids, len(classes) if classes else None)
        classes = classes or _folder_names(ids)
    else:
        classes = classes or sorted({label for _, label in written})
        ids = _look_up(written, classes, data.classes or "the list")
    if known is not None:
        _look_up([(row, classes[index]) for row, index in ids], known, "the model")
    return classes, _by_row(ids)


def class_list(data: Data) -> list[str]:
    source = str(data.classes)
    return class_names(source if source in shipped() else placed(data, Path(os.path.expanduser(source))))  # noqa: PTH111 - without a home too


def _look_up(written: Iterable[tuple[Row, str]], classes: Sequence[str], owner: str) -> list[tuple[Row, int]]:
    """The id of each label. Raises ValueError, with the nearest name, for one that is none of the classes."""
    indices = class_indices(classes)
    ids = []
    for row, label in written:
        index = indices.get(label, indices.get(spelling(label)))
        if index is None:
            near = difflib.get_close_matches(label, classes, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{row.where}: {label!r} is none of the {len(classes)} classes of {owner}{hint}")
        ids.append((row, index))
    return ids


def _renumber(splits: dict[str, list[Sample]], classes: Sequence[str], known: Sequence[str]) -> dict[str, list[Sample]]:
    """The samples with ids into `known` for those into `classes`."""
    indices = class_indices(known)

    def of(label: int) -> int:
        return indices.get(classes[label], indices.get(spelling(classes[label]), -1))

    return {
        split: [dataclasses.replace(s, label=of(s.label), more=tuple(map(of, s.more))) for s in samples]
        for split, samples in splits.items()
    }


def _written(rows: Sequence[Row], multi_label: bool, classes: Sequence[str] | None) -> list[tuple[Row, str]]:
    """Each label of each row. Raises ValueError where that is not clear."""
    named = set(classes or ())
    if multi_label and (torn := [name for name in named if ";" in name]):
        raise ValueError(f"class {torn[0]!r}: with data.multi_label a ; stands between classes: rename it")
    written = []
    for row in rows:
        labels = split_labels(row.label)
        if not labels:
            raise ValueError(f"{row.where}: {row.label!r} names no class")
        if not multi_label and len(labels) > 1 and row.label not in named:
            raise ValueError(
                f"{row.where}: {row.label!r} are several labels: set data.multi_label for videos of several classes"
            )
        if multi_label and not classes and any("," in label for label in labels):
            raise ValueError(
                f"{row.where}: {row.label!r}: put a ; between the classes of a video; if the comma is part of a name "
                "give data.classes"
            )
        written += [(row, label) for label in (labels if multi_label else [row.label])]
    return written


def _by_row(ids: Iterable[tuple[Row, int]]) -> dict[Row, tuple[int, ...]]:
    """The ids of each row, each once."""
    rows: dict[Row, dict[int, None]] = defaultdict(dict)
    for row, label in ids:
        rows[row][label] = None
    return {row: tuple(labels) for row, labels in rows.items()}


def _check_range(ids: Sequence[tuple[Row, int]], count: int | None) -> None:
    """Ids must be 0..count-1; without a class list they must start at 0 and leave no great gaps."""
    ranges: dict[Path, tuple[int, int]] = {}
    for row, label in ids:
        low, high = ranges.get(row.source, (label, label))
        ranges[row.source] = min(low, label), max(high, label)
    lowest, highest = min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())
    if count is None:
        if lowest > 0:
            source = min(ranges, key=lambda path: ranges[path])
            mend = "1-based; subtract one" if lowest == 1 else "they start at 0 unless data.classes names the classes"
            raise ValueError(f"{source}: labels run {lowest}..{highest}: {mend}")
        count = max(1000, 2 * len({label for _, label in ids}))  # beyond that a label is a slip
    for row, label in ids:
        if not 0 <= label < count:
            low, high = ranges[row.source]
            mend = f"1-based; subtract one (allowed are 0..{count - 1})" if (low, high) == (1, count) else (
                f"{row.where} has {label}, but allowed are 0..{count - 1}"
            )  # fmt: skip
            raise ValueError(f"{row.source}: labels run {low}..{high}: {mend}")


def _folder_names(ids: Sequence[tuple[Row, int]]) -> list[str]:
    """Names for ids without a class list: the folders of the videos where they tell ids apart, else the numbers."""
    folders: dict[int, set[str]] = defaultdict(set)
    for row, label in ids:
        folders[label].add(row.name.rpartition("/")[0].rpartition("/")[2])
    names = [next(iter(names)) for names in folders.values() if len(names) == 1]
    if len(names) == len(set(names)) == len(folders) == max(folders) + 1 and all(names):
        return [next(iter(folders[label])) for label in range(len(folders))]
    return [str(label) for label in range(max(folders) + 1)]


def _group(row: Row, pattern: str | None) -> str | None:
    """What the row says, else what `pattern` (or a known way of naming) captures in its path."""
    if row.group is not None:
        return row.group
    if pattern is None:
        stem = row.name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        match = next(filter(None, (known.fullmatch(stem) for known in _SOURCES)), None)
    else:
        try:
            match = re.search(pattern, row.name)
        except re.error as error:
            raise ValueError(f"data.group {pattern!r} is no regular expression: {error}") from None
        if match is None:
            raise ValueError(f"data.group {pattern!r} does not fit {row.name}")
        if not match.groups():
            raise ValueError(rf"data.group {pattern!r}: put what names the source in parentheses, as in '_(g\d+)_'")
    return "/".join(part for part in match.groups() if part) if match else None


def _divide(samples: Sequence[Sample], rows: Rows, data: Data, seed: int) -> dict[str, list[Sample]]:
    if data.fold > data.folds:
        raise ValueError(f"data.fold {data.fold}: there are only {data.folds} parts (data.folds)")
    labels = [sample.label for sample in samples]
    if data.split == "group":
        groups = [sample.group for sample in samples if sample.group]
        if len(groups) < len(samples):
            nameless = next(rows[sample.video].name for sample in samples if not sample.group)
            raise ValueError(
                f"data.split group: no source is known for {nameless}; give data.group, a regular expression"
            )
        parts = group_parts(groups, labels, data.folds, seed)
    else:
        parts = _stratified(samples, rows, data.folds, seed)
    held_out = data.fold - 1
    if held_out not in parts:
        raise ValueError(f"data.fold {data.fold}: {len(samples)} videos leave this part empty; set data.folds lower")
    return {
        "train": [sample for sample, part in zip(samples, parts, strict=True) if part != held_out],
        "val": [sample for sample, part in zip(samples, parts, strict=True) if part == held_out],
    }


def _nest(splits: dict[str, list[Sample]], rows: Rows, data: Data, seed: int) -> dict[str, list[Sample]]:
    """Held-out videos for the test alone, and a part of the training videos, whole groups where they are known, to
    choose the epoch by."""
    if "val" in splits and "test" in splits:
        raise ValueError("data.nested: the data has validation and test videos already; leave it out")
    if "train" not in splits or len(splits) < 2:
        raise ValueError("data.nested: needs training videos and others to test on")
    train = splits["train"]
    labels, groups = [sample.label for sample in train], [sample.group for sample in train if sample.group]
    if len(groups) == len(train) and len(set(groups)) >= data.folds:
        parts = group_parts(groups, labels, data.folds, seed)
    else:
        parts = _stratified(train, rows, data.folds, seed)
    return {
        "train": [sample for sample, part in zip(train, parts, strict=True) if part],
        "val": [sample for sample, part in zip(train, parts, strict=True) if not part],
        "test": splits.get("test") or splits["val"],
    }


def _stratified(samples: Sequence[Sample], rows: Rows, folds: int, seed: int) -> list[int]:
    """The part of each video; several stretches of a file go to one part."""
    labels, files = [sample.label for sample in samples], [rows[sample.video].name for sample in samples]
    if any(sample.video.is_stretch for sample in samples) and folds <= len(set(files)) < len(files):
        return group_parts(files, labels, folds, seed)
    return stratified_parts([rows[sample.video].key for sample in samples], labels, folds, seed)


def find_problems(annotations: Annotations) -> list[Problem]:
    """What speaks against training on these videos, fatal first.

    Fatal: a file that is missing or none to read (a folder, pipe or device), a label out of range, a single class.
    Else: a class without training videos, a video in a folder named after another class, a video (one file, or one
    content) with different labels, in two splits, or twice in one, a source group in two splits. Looks up every file,
    and opens those whose size occurs twice.
    """
    splits = annotations.splits
    paths = list(dict.fromkeys(sample.path for samples in splits.values() for sample in samples))
    files = stat_all(paths)
    marks = identify(files)
    problems = [
        *_missing(splits, files),
        *_out_of_range(annotations),
        *_without_training(annotations),
        *_astray(annotations),
        *_contradictions(annotations, marks),
        *_shared_videos(splits, marks),
        *_repeated_videos(annotations, marks),
        *_overlapping(splits),
        *_shared_groups(splits),
        *(Problem(note) for note in annotations.notes),
    ]
    return sorted(problems, key=lambda problem: not problem.fatal)


def _missing(splits: dict[str, list[Sample]], files: dict[Path, os.stat_result]) -> Iterable[Problem]:
    for split, samples in splits.items():
        missing = [sample.path for sample in samples if sample.path not in files]
        if missing:
            yield Problem(f"{split}: {_of(missing, samples, 'videos')} are missing: {few(missing)}", fatal=True)
        there = (path for path in dict.fromkeys(sample.path for sample in samples) if path in files)
        kinds = ((path, special(files[path].st_mode)) for path in there)
        if wrong := [f"{path} is {kind}" for path, kind in kinds if kind and not is_frame_folder(path)]:
            yield Problem(f"{split}: {_of(wrong, samples, 'videos')} are no files to read: {few(wrong)}", fatal=True)


def _out_of_range(annotations: Annotations) -> Iterable[Problem]:
    count = len(annotations.classes)
    if count < 2:
        yield Problem(f"there is only one class: {few(annotations.classes)}", fatal=True)
    for split, samples in annotations.splits.items():
        wrong = [f"{s.path} has {label}" for s in samples for label in s.labels if not 0 <= label < count]
        if wrong:
            yield Problem(f"{split}: {len(wrong)} labels are not in 0..{count - 1}: {few(wrong)}", fatal=True)


def _without_training(annotations: Annotations) -> Iterable[Problem]:
    if "train" in annotations.splits:
        present = {label for sample in annotations.splits["train"] for label in sample.labels}
        empty = [name for label, name in enumerate(annotations.classes) if label not in present]
        if empty:
            yield Problem(f"train: {_of(empty, annotations.classes, 'classes')} have no video: {few(empty)}")


def _astray(annotations: Annotations) -> Iterable[Problem]:
    """Videos in a folder that is named after another class than theirs."""
    classes = annotations.classes
    known = {name: label for label, name in enumerate(classes)}
    for split, samples in annotations.splits.items():
        astray = [
            f"{sample.path} is {classes[sample.label]}"
            for sample in samples
            if known.get(sample.path.parent.name, sample.label) not in sample.labels
            and 0 <= sample.label < len(classes)
        ]
        if astray:
            yield Problem(
                f"{split}: {_of(astray, samples, 'videos')} lie in a folder named after another class: {few(astray)}; "
                "is data.classes in the order of these labels?"
            )


def _contradictions(annotations: Annotations, marks: dict[Path, File]) -> Iterable[Problem]:
    """Videos with different labels, in one split or in several, under one name or under several."""
    labels: dict[Shown, dict[frozenset[int], Sample]] = defaultdict(dict)
    for samples in annotations.splits.values():
        for sample in samples:
            labels[_shown(sample, marks)].setdefault(frozenset(sample.labels), sample)
    double = []
    for given in (given for given in labels.values() if len(given) > 1):
        names: dict[Video, list[str]] = defaultdict(list)
        for sample in given.values():
            names[sample.video].append(class_text(annotations, sample))
        double.append(" = ".join(f"{video} ({' and '.join(classes)})" for video, classes in names.items()))
    if double:
        yield Problem(f"{len(double)} videos are listed with different labels: {few(double)}")


Shown = tuple[Path | File, float, float | None]


def _shown(sample: Sample, marks: dict[Path, File]) -> Shown:
    """Equal for what shows the same, under whatever name."""
    return marks.get(sample.path, sample.path), sample.start, sample.end


def _shared_videos(splits: dict[str, list[Sample]], marks: dict[Path, File]) -> Iterable[Problem]:
    for first, second in combinations(splits, 2):
        known = {marks[sample.path]: sample.path for sample in splits[first] if sample.path in marks}
        pairs = [(sample.path, known.get(marks[sample.path])) for sample in splits[second] if sample.path in marks]
        shared = [str(path) if path == other else f"{path} = {other}" for path, other in pairs if other]
        if shared:
            yield Problem(
                f"leak: {_of(shared, splits[second], f'videos of {second}')} are in {first} too: {few(shared)}"
            )


def _repeated_videos(annotations: Annotations, marks: dict[Path, File]) -> Iterable[Problem]:
    """Videos that a split has twice with the same labels: another division would put them into two splits."""
    for split, samples in annotations.splits.items():
        first: dict[tuple[Shown, frozenset[int]], Video] = {}
        repeated = []
        for sample in samples:
            other = first.setdefault((_shown(sample, marks), frozenset(sample.labels)), sample.video)
            if other != sample.video:
                repeated.append(f"{sample.video} = {other}")
        if repeated:
            yield Problem(
                f"{split}: {_of(repeated, samples, 'videos')} are copies of others in {split}: {few(repeated)}"
            )


def _overlapping(splits: dict[str, list[Sample]]) -> Iterable[Problem]:
    """Stretches of one file that share more than a frame or two: a clip of the one shows the other."""
    for split, samples in splits.items():
        of_file: dict[Path, list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.video.is_stretch:
                of_file[sample.path].append(sample)
        pairs = []
        for stretches in of_file.values():
            ordered = sorted(stretches, key=lambda sample: sample.start)
            for one, following in pairwise(ordered):
                if following.start < (math.inf if one.end is None else one.end) - 0.1:
                    pairs.append(f"{one.video} and {following.video}")
        if pairs:
            yield Problem(f"{split}: stretches overlap, {len(pairs)} times: {few(pairs)}")


def _shared_groups(splits: dict[str, list[Sample]]) -> Iterable[Problem]:
    for first, second in combinations(splits, 2):
        known = {sample.group for sample in splits[first] if sample.group}
        groups = {sample.group for sample in splits[second] if sample.group}
        if shared := sorted(known & groups):
            videos = sum(sample.group in known for sample in splits[second])
            yield Problem(
                f"leak: {_of(shared, groups, f'groups of {second}')} ({videos} of {len(splits[second])} videos) "
                f"are in {first} too: {few(shared)}"
            )


def class_text(annotations: Annotations, sample: Sample) -> str:
    """The class names of a video, as a list writes them; its numbers where they are out of range."""
    names = annotations.classes
    return ";".join(names[label] if 0 <= label < len(names) else str(label) for label in sample.labels)


def _of(some: Sized, among: Sized, what: str) -> str:
    return f"{len(some)} of {len(among)} {what}"
