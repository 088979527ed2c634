"""The formats of data sets, and which of them a folder or a list has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vidstill.config import Data
from vidstill.data.lists import base, given_lists, list_files
from vidstill.data.official.activitynet import has_activitynet, is_activitynet, read_activitynet
from vidstill.data.official.charades import CHARADES, is_charades, read_charades
from vidstill.data.official.database_json import has_database, is_database, read_database
from vidstill.data.official.diving48 import DIVING48, read_diving48
from vidstill.data.official.finding import lists_folder
from vidstill.data.official.hmdb51 import HMDB51, read_hmdb51
from vidstill.data.official.hvu import has_hvu, is_hvu, read_hvu
from vidstill.data.official.jester import has_jester, read_jester
from vidstill.data.official.kinetics import has_kinetics, is_kinetics, read_kinetics
from vidstill.data.official.kth import KTH, read_kth
from vidstill.data.official.moments import has_moments, has_multi_moments, read_moments, read_multi_moments
from vidstill.data.official.openmmlab import has_openmmlab, read_list, read_openmmlab
from vidstill.data.official.something import SSV1, SSV2, is_frame_list, read_ssv1, read_ssv2
from vidstill.data.official.ucf import has_ucf11, protocol_note, read_ucf11
from vidstill.data.official.ucf101 import UCF101, read_ucf101
from vidstill.data.prepared import read_prepared
from vidstill.data.rows import (
    SPLITS,
    UNDIVIDED,
    Listing,
    Row,
    class_folders,
    few,
    folders_in,
    has_videos,
    is_video_name,
    split_folders,
    videos_in,
    walk,
)
from vidstill.video.frame_folder import is_frame_folder


class Format(NamedTuple):
    """How a data set comes: whether `data` looks like that, the reader of its rows, what is looked for in words."""

    name: str
    detect: Callable[[Data], bool]
    read: Callable[[Data], Listing]
    looked_for: str


def read_listing(data: Data) -> Listing:
    """The rows that `data` describes. Raises ValueError where the format cannot be told or a file is not understood."""
    if data.format not in ("auto", *BY_NAME):
        near = difflib.get_close_matches(data.format, BY_NAME, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"data.format {data.format!r}: {hint}allowed are auto, {', '.join(BY_NAME)}")
    if not data.root.exists():
        raise ValueError(f"data.root {data.root} is not there")
    if data.root.is_file() and (is_video_name(data.root.name) or _ARCHIVE.fullmatch(data.root.name)):
        kind = "a video" if is_video_name(data.root.name) else "an archive"
        raise ValueError(f"data.root {data.root} is {kind}: give the folder of the videos, or a list of them")
    if prepared := read_prepared(data):
        return prepared
    data, known = _found(data)
    listing = known.read(data)
    if not any(listing.rows.values()):
        raise ValueError(f"{data.root}: no labelled video found")
    if listing.left_out:
        listing.notes.append(f"left out: {few(listing.left_out)}")
    if known.read not in (_read_lists, _read_folders) and next(walk(base(data)), None) is None:
        listing.notes.append(f"no video at all is in {base(data)}: {_instead(base(data))}")
    return listing


def _found(data: Data) -> tuple[Data, Format]:
    """The format, and the settings with the folder that has it: `root`, or the only folder in it, as archives wrap what
    they hold."""
    formats = FORMATS if data.format == "auto" else (BY_NAME[data.format],)
    single = None  # a folder that is one class, if there are no lists in it
    for root in _wrapped(data.root):
        inner = data.model_copy(update={"root": root})
        known = next((known for known in formats if known.detect(inner)), None)
        if known and known.read is _read_folders and (single or len(folders_in(root)) == 1):
            single = single or (inner, known)
        elif known:
            return inner, known
    if single is None and data.format == "auto":
        raise ValueError(_nothing_found(data))
    return single or (data, BY_NAME[data.format])


def _wrapped(root: Path) -> Iterator[Path]:
    """`root`, then the folder that lies in it without others and without videos, and so on."""
    yield root
    for _ in range(3):
        folders = folders_in(root)
        if len(folders) != 1 or has_videos(root):
            return
        (root,) = folders
        yield root


def _official(pattern: str) -> Callable[[Data], bool]:
    """Whether a file that matches this is among the official lists."""
    return lambda data: lists_folder(data, pattern) is not None


def _has_lists(data: Data) -> bool:
    lists = list_files(data).values()
    return bool(lists) and not any(own(path) for own in _OWN_LISTS for path in lists)


def _read_lists(data: Data) -> Listing:
    lists = list_files(data)
    if not lists:
        raise ValueError(f"{data.root}: no train.csv in it; give data.train, data.val or data.test")
    return Listing({split: read_list(path, data, base(data)) for split, path in lists.items()}, named=False)


def _has_folders(data: Data) -> bool:
    return data.splits is None and bool(split_folders(data.root) or class_folders(data.root))


def _read_folders(data: Data) -> Listing:
    """`root/<split>/<class>/*` where there are such folders, else `root/<class>/*`. An empty folder is a class too, one
    that holds something else (lists, flow, more folders) is none.

    Notes say which videos lie elsewhere, and so have no class, and which folders are no classes. Raises ValueError
    where no folder is called as a class may be.
    """
    splits = split_folders(data.root) or {UNDIVIDED: data.root}
    folders = {split: [folder for folder in folders_in(top) if _is_class(folder)] for split, top in splits.items()}
    rows = {
        split: [
            Row(path, path.relative_to(data.root).as_posix(), folder.name, folder)
            for folder in found
            for path in videos_in(folder)
        ]
        for split, found in folders.items()
    }
    classes = sorted({folder.name for found in folders.values() for folder in found})
    if not any(rows.values()):
        raise ValueError(_nothing_found(data))
    if UNDIVIDED in splits and all(name.casefold() in _NO_CLASSES for name in classes):
        others = [path.name for path in _inside(data.root) if path.name not in classes]
        raise ValueError(
            f"{data.root}: its videos lie in {few([f'{name}/' for name in classes])}, and those are no names of "
            f"classes. Looked for {_wanted()}; beside them lies {few(others) or 'nothing'}"
        )
    left_out: list[str] = []
    used = {row.path for found in rows.values() for row in found}
    unused = [path.relative_to(data.root).as_posix() for path in walk(data.root, left_out) if path not in used]
    wanted = "<class>/<video>" if UNDIVIDED in splits else "<split>/<class>/<video>"
    notes = [f"{len(unused)} videos are not used, for they do not lie at {wanted}: {few(unused)}"] if unused else []
    others = [f"{folder.name}/" for top in splits.values() for folder in folders_in(top) if not _is_class(folder)]
    if others:
        notes.append(f"not taken as classes, for no video lies directly in them: {few(others)}")
    if UNDIVIDED in rows and (note := protocol_note(data, rows[UNDIVIDED], classes)):
        notes.append(note)
    return Listing(rows, classes, notes=notes, left_out=left_out)


# Folders that data sets are made of, and that say nothing of what their videos show
_NO_CLASSES = {*SPLITS, "clips", "data", "flow", "frames", "images", "jpg", "rawframes", "rgb", "video", "videos"}


def _is_class(folder: Path) -> bool:
    return has_videos(folder) or not any(not path.name.startswith(".") for path in _inside(folder))


def _inside(folder: Path) -> Iterable[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _nothing_found(data: Data) -> str:
    top = data.splits or data.root
    return f"{top}: cannot tell how its videos are labelled: {_instead(top)}. Looked for {_wanted()}"


def _wanted() -> str:
    """What is looked for: first what people make themselves."""
    return ", ".join(dict.fromkeys(known.looked_for for known in (BY_NAME["folders"], *FORMATS)))


def _instead(top: Path) -> str:
    """What is in a folder that was not understood, and how to mend it."""
    names = [path.name for path in _inside(top) if not path.name.startswith(".")]
    if archives := [name for name in names if _ARCHIVE.fullmatch(name)]:
        return f"it holds archives, {few(archives)}: unpack them there"
    sets = [folder.name for folder in folders_in(top) if split_folders(folder) or class_folders(folder)]
    if sets:
        return f"class folders lie in {few([f'{name}/' for name in sets])}: give one of these as data.root"
    left_out: list[str] = []
    if is_frame_folder(top) or (frames := [path.name for path in videos_in(top) if is_frame_folder(path)]):
        shown = "" if is_frame_folder(top) else f" in {few([f'{name}/' for name in frames])}"
        return (
            f"pictures{shown} without other files are the frames of one video: give each video a folder of frames in "
            "the folder of its class, <class>/<video>/img_00001.jpg"
        )
    if video := next(walk(top, left_out), None):
        return f"a video lies at {video.relative_to(top)}"
    return (
        left_out[0] if left_out else f"it holds {few(names) or 'nothing'}: give the folder of the videos as data.root"
    )


_ARCHIVE = re.compile(r".+\.(7z|rar|tar|tgz|zip|tar\.gz)|20bn-.+-\d\d", re.IGNORECASE)


def _has_charades(data: Data) -> bool:
    given = given_lists(data).values()
    return any(map(is_charades, given)) if given else lists_folder(data, CHARADES) is not None


_OWN_LISTS = (
    is_kinetics,
    is_hvu,
    is_charades,
    is_activitynet,
    is_database,
    is_frame_list,
)  # lists that have a form of their own

# Where several fit, the first counts
FORMATS = (
    Format("csv", _has_lists, _read_lists, "train.csv and val.csv"),
    Format("kinetics", has_kinetics, read_kinetics, "a Kinetics csv"),
    Format("activitynet", has_activitynet, read_activitynet, "activity_net.v1-3.min.json"),
    Format("database_json", has_database, read_database, 'a JSON with "labels" and "database"'),
    Format("hvu", has_hvu, read_hvu, "HVU_Train_V1.0.csv"),
    Format("charades", _has_charades, read_charades, "Charades_v1_train.csv"),
    Format("kth", _official(KTH), read_kth, "00sequences.txt (KTH)"),
    Format("ucf101", _official(UCF101), read_ucf101, "trainlist01.txt (UCF101)"),
    Format("hmdb51", _official(HMDB51), read_hmdb51, "<class>_test_split1.txt (HMDB51)"),
    Format("jester", has_jester, read_jester, "jester-v1-train.csv or vallist.txt (Jester)"),
    Format("ssv2", SSV2.are_there, read_ssv2, "something-something-v2-train.json or labels/train.json"),
    Format("ssv1", SSV1.are_there, read_ssv1, "something-something-v1-train.csv"),
    Format("diving48", _official(DIVING48), read_diving48, "Diving48_V2_train.json"),
    Format("moments", has_moments, read_moments, "trainingSet.csv (Moments in Time)"),
    Format("multi_moments", has_multi_moments, read_multi_moments, "trainingSet.txt (Multi-Moments in Time)"),
    Format("openmmlab", has_openmmlab, read_openmmlab, "lists of OpenMMLab (…_train_list_videos.txt)"),
    Format("ucf11", has_ucf11, read_ucf11, "<class>/v_<class>_01/<video> (UCF11)"),
    Format("folders", _has_folders, _read_folders, "train/<class>/<video> and <class>/<video>"),
    Format("synthetic", lambda data: False, _read_folders, "train/<class>/<video> and <class>/<video>"),
)
BY_NAME = {known.name: known for known in FORMATS}
