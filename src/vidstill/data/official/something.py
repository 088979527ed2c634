"""Something-Something: V2 as WebM files with JSON lists, V1 as folders of JPEGs with csv lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vidstill.config import Data
from vidstill.data.official.twentybn import FPS, Lists, read_lists
from vidstill.data.rows import Listing
from vidstill.labels import class_names, read_json

SSV2 = Lists("something-something-v2", ".json", "Approaching something with your camera", ".webm")
SSV1 = Lists("something-something-v1", ".csv", "Holding something")


def read_ssv2(data: Data) -> Listing:
    """`something-something-v2-{train,validation,labels}.json`, or `labels/{train,validation,labels}.json` of 2022.

    An entry's class is its template without brackets: "Holding [something]".
    """
    index = SSV2.file(SSV2.needed(data), "labels")
    return read_lists(data, SSV2, _classes(index) if index.is_file() else class_names("ssv2"), _templates)


def read_ssv1(data: Data) -> Listing:
    """`something-something-v1-{train,validation,labels}.csv`; without the last the classes are in byte-wise order."""
    index = SSV1.file(SSV1.needed(data), "labels")
    return read_lists(data, SSV1, class_names(index) if index.is_file() else None, fps=FPS)


def is_frame_list(path: Path) -> bool:
    """Whether a list has one line for each frame, as PySlowFast's `train.csv` of Something-Something and Charades."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().startswith("original_vido_id ")


def _classes(index: Path) -> list[str]:
    """From {"Holding something": "19", …}."""
    ids = read_json(index)
    if isinstance(ids, dict) and ids and sorted(map(str, ids.values())) == sorted(map(str, range(len(ids)))):
        return sorted(ids, key=lambda name: int(ids[name]))
    raise ValueError(f'{index}: give each class a number of its own from 0, as {{"{SSV2.known}": "0"}}')


def _templates(source: Path) -> Iterator[tuple[int, str, str]]:
    entries = read_json(source)
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries], 1):
        template = entry.get("template") if isinstance(entry, dict) else None
        if not isinstance(template, str) or "id" not in entry:
            raise ValueError(f'{source} entry {number}: needs "id" and "template" ("Holding [something]")')
        yield number, str(entry["id"]), template.replace("[", "").replace("]", "")
