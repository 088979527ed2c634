"""Diving48: lists of train and test as JSON, V1 and the corrected V2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidstill.config import Data
from vidstill.data.official.finding import needed
from vidstill.data.official.present import by_stem
from vidstill.data.rows import Listing, Row, walk
from vidstill.labels import class_names, read_json

DIVING48 = "Diving48_*train.json"  # files that tell it


def read_diving48(data: Data) -> Listing:
    """`Diving48_V2_{train,test}.json`, else V1's `Diving48_{train,test}.json`, and `Diving48_vocab.json`.

    An entry is {"vid_name", "label", "start_frame", "end_frame"}; the videos, `rgb/<vid_name>.mp4`, are cut already, so
    that the frames are all of theirs. A class is called by the four parts of its dive: `Back_15som_05Twis_FREE`.
    """
    folder = needed(data, DIVING48, "Diving48_V2_train.json")
    version = "V2_" if (folder / "Diving48_V2_train.json").is_file() else ""
    notes = []
    if version and (folder / "Diving48_train.json").is_file():
        notes.append(f"the lists of V1 in {folder} are not used: V2 corrects their labels")
    vocabulary = folder / "Diving48_vocab.json"
    classes = _classes(vocabulary) if vocabulary.is_file() else class_names("diving48")
    left_out: list[str] = []
    files = by_stem(walk(data.root, left_out))
    rows: dict[str, list[Row]] = {}
    for split in ("train", "test"):
        source = folder / f"Diving48_{version}{split}.json"
        rows[split] = []
        for number, entry in enumerate(_json(source), 1):
            name, label = (entry.get(key) if isinstance(entry, dict) else None for key in ("vid_name", "label"))
            if not isinstance(name, str) or not isinstance(label, int):
                raise ValueError(f'{source} entry {number}: needs "vid_name" and a number as "label"')
            if not 0 <= label < len(classes):
                raise ValueError(f"{source} entry {number}: label {label}, but allowed are 0..{len(classes) - 1}")
            path = files.get(name, data.root / "rgb" / f"{name}.mp4")
            rows[split].append(Row(path, name, classes[label], source, line=number))
    return Listing(rows, classes, notes=notes, left_out=left_out)


def _classes(vocabulary: Path) -> list[str]:
    """From [["Back", "15som", "05Twis", "FREE"], …]."""
    dives = _json(vocabulary)
    return ["_".join(map(str, dive)) if isinstance(dive, list) else str(dive) for dive in dives]


def _json(path: Path) -> list[Any]:
    if not path.is_file():
        raise ValueError(f"no {path}: Diving48's lists are Diving48_V2_train.json and Diving48_V2_test.json")
    found = read_json(path)
    if not isinstance(found, list):
        raise ValueError(f"{path}: holds no list")
    return found
