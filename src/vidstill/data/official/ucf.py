"""UCF11, whose classes hold folders of groups; and what the official lists or protocol are of other class folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vidstill.config import Data
from vidstill.data.official.finding import lists_beside
from vidstill.data.official.hmdb51 import HMDB51
from vidstill.data.official.ucf101 import UCF101
from vidstill.data.rows import UNDIVIDED, Listing, Row, folders_in, has_videos, videos_in
from vidstill.labels import class_names, spelling

_GROUP = re.compile(r"v_[a-z]+(?:_[a-z]+)*_\d\d")  # biking/v_biking_01/v_biking_01_01.mpg


def has_ucf11(data: Data) -> bool:
    return data.splits is None and data.root.is_dir() and any(map(_groups, folders_in(data.root)))


def read_ucf11(data: Data) -> Listing:
    """`<class>/v_<class>_<group>/v_<class>_<group>_<number>.mpg`, undivided; folders of annotations are left alone."""
    classes = [folder for folder in folders_in(data.root) if _groups(folder)]
    if not classes:
        raise ValueError(f"{data.root}: no <class>/v_<class>_01/v_<class>_01_01.mpg in it, as UCF11 has")
    rows = [
        Row(path, path.relative_to(data.root).as_posix(), folder.name, folder)
        for folder in classes
        for group in _groups(folder)
        for path in videos_in(group)
    ]
    return Listing({UNDIVIDED: rows}, [folder.name for folder in classes])


def _groups(folder: Path) -> list[Path]:
    return [group for group in sorted(folder.glob("v_*")) if _GROUP.fullmatch(group.name) and has_videos(group)]


def protocol_note(data: Data, rows: Sequence[Row], classes: Sequence[str]) -> str | None:
    """What the makers of these class folders publish figures on, where they are UCF50, UCF101 or HMDB51."""
    spelt = set(map(spelling, classes))
    if len(spelt) < 2:
        return None
    if _called(rows, r"v_\w+_g\d\d_c\d\d") and spelt <= set(map(spelling, class_names("ucf50"))):
        if data.split == "group":
            return None
        return (
            "UCF50's protocol leaves each of its 25 groups out: --data.split group --data.folds 25 "
            r"--data.group '_(g\d+)_'"
        )
    for name, maker, lists, pattern in (
        ("ucf101", "UCF101", "ucfTrainTestlist", UCF101),
        ("hmdb51", "HMDB51", "testTrainMulti_7030_splits", HMDB51),
    ):
        of_names = r"v_\w+_g\d\d_c\d\d" if name == "ucf101" else r".+_[fhlu]_(?:cm|nm)_np\d+_(?:ba|fr|le|ri)_\w+_\d+"
        if not (_called(rows, of_names) and spelt <= set(map(spelling, class_names(name)))):
            continue
        beside = lists_beside(data.root, pattern)
        apart = "" if data.split == "group" else ", or keep apart what is of one source by --data.split group"
        return (
            f"{maker} without its official lists, so that figures do not compare with published ones: give "
            f"{beside or lists} as data.splits{apart}"
        )
    return None


def _called(rows: Sequence[Row], pattern: str) -> bool:
    return all(re.fullmatch(pattern, Path(row.name).stem) for row in rows[:100])
