"""Holistic Video Understanding (HVU): clips from YouTube with many tags each."""

from __future__ import annotations

from pathlib import Path

from vidstill.config import Data
from vidstill.data.lists import base, given_lists
from vidstill.data.official.finding import header, official_files, read_table
from vidstill.data.official.present import Present, uncut
from vidstill.data.rows import SPLITS, UNDIVIDED, Listing

_LISTS = ("HVU_*.csv", "hvu_*.csv")  # as the makers and as OpenMMLab's tools call them
_COLUMNS = ["Tags", "youtube_id", "time_start", "time_end"]


def is_hvu(path: Path) -> bool:
    """Whether a csv has the columns of HVU."""
    return path.suffix.lower() == ".csv" and header(path)[:4] == _COLUMNS


def has_hvu(data: Data) -> bool:
    given = given_lists(data).values()
    return any(map(is_hvu, given)) if given else data.root.is_dir() and bool(official_files(data, is_hvu, *_LISTS))


def read_hvu(data: Data) -> Listing:
    """`HVU_Train_V1.0.csv` and `HVU_Val_V1.0.csv`: `tag|tag|tag,youtube_id,time_start,time_end`.

    The classes are the tags of `HVU_Tags_Categories_V1.0.csv` in its order where it lies beside them, else those that
    occur, in alphabetical order. Videos are `<id>_<start>_<end>`, six digits each, in seconds or (OpenMMLab) in tenths
    of them, or `<id>`, cut or uncut; those that are not there are left out with a note. Raises ValueError without
    `data.multi_label`, and for another form.
    """
    if not data.multi_label:
        raise ValueError("HVU has several tags for a video: set data.multi_label")
    tables = given_lists(data) or {_split(path): path for path in official_files(data, is_hvu, *_LISTS)}
    if not tables or not all(map(is_hvu, tables.values())):
        raise ValueError(
            f"{next(iter(tables.values()), data.splits or data.root)}: no csv of HVU there, with the columns "
            f"{','.join(_COLUMNS)} (HVU_Train_V1.0.csv)"
        )
    present = Present(base(data))
    entries = []
    for split, table in tables.items():
        for line, row in read_table(table, *_COLUMNS):
            where = f"{table} line {line}"
            tags = list(filter(None, map(str.strip, row["Tags"].split("|"))))
            try:
                start, end = float(row["time_start"]), float(row["time_end"])
            except ValueError:
                raise ValueError(f"{where}: {row['time_start']!r} to {row['time_end']!r} are no seconds") from None
            if not tags or not row["youtube_id"] or end <= start:
                raise ValueError(f"{where}: wanted are tags, an id, and an end after the start")
            entries.append((split, table, line, row["youtube_id"], start, end, ";".join(tags)))
    long = uncut({
        path: end - start
        for *_, video, start, end, _ in entries
        if (path := present.find(video)) and not present.find(*_names(video, start, end))
    })  # fmt: skip
    for split, table, line, video, start, end, label in entries:
        names = _names(video, start, end)
        path = present.find(*names, video)
        stretch = {"start": start, "end": end} if path in long else {}
        present.add(split, path, names[0], label, table, line=line, group=video, **stretch)
    return present.listing(
        next(iter(tables.values())), lambda name: f"{name}.mp4 and {name[:-14]}.mp4", _tags(next(iter(tables.values())))
    )


def _names(video: str, start: float, end: float) -> tuple[str, ...]:
    """As the makers' downloader calls a clip before and after it is cut; as OpenMMLab's does, in tenths of seconds."""
    name = f"{video}_{int(start):06}_{int(end):06}"
    return name, f"{name}_", f"{video}_{int(start * 10):06}_{int(end * 10):06}"


def _split(path: Path) -> str:
    """`HVU_Train_V1.0.csv`, `hvu_val.csv`."""
    words = path.stem.casefold().split("_")
    return next((SPLITS[word] for word in words if word in SPLITS), UNDIVIDED)


def _tags(table: Path) -> list[str] | None:
    """The tags in the order of the table of categories beside a list."""
    for path in sorted([*table.parent.glob("HVU_Tags_Categories*.csv"), *table.parent.glob("hvu_categories.csv")]):
        return list(dict.fromkeys(row["Tag"] for _, row in read_table(path, "Tag") if row["Tag"]))
    return None
