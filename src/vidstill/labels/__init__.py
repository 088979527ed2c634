"""Class lists: those of the published data sets by name, and a person's own from a file."""

from __future__ import annotations

import csv
import difflib
import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_HEADERS = ("action", "class", "classes", "label", "name")


def shipped() -> list[str]:
    """Names of the shipped lists; `ucf101` and `hmdb51` are the official orders, `…_dvfl` those of DVFL-Net's files."""
    return sorted(path.stem for path in _FOLDER.glob("*.txt"))


def class_names(source: str | Path) -> list[str]:
    """The names in order of their ids, from a shipped list (`kinetics400`) or a file.

    A file holds one name per line, or `id,name` with or without a header, or `id name` as UCF101's classInd.txt; ids
    count up from 0 or 1. A line is split at its first comma only, for names may hold commas. Raises ValueError for an
    unknown list, an empty one, a name that comes twice, or ids out of order.
    """
    known = shipped()
    path = _FOLDER / f"{source}.txt" if str(source) in known else Path(source)
    if not path.is_file():
        hint = "".join(f" (did you mean {near}?)" for near in difflib.get_close_matches(str(source), known, 1))
        raise ValueError(f"no class list {str(source)!r}{hint}: give a file, or one of {', '.join(known)}")
    names = _without_ids([line.strip() for line in read_text(path).splitlines()], path)
    if not names:
        raise ValueError(f"{path}: holds no class name; write one per line, or id,name")
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            raise ValueError(f"{path}: {name!r} is class {seen[name]} and class {index}: each name once")
        seen[name] = index
    return names


def read_text(path: Path) -> str:
    """A text file of any platform: UTF-8 with or without byte order mark. Raises ValueError for another encoding, and
    for the web page that a download gives where its file is gone or wants a login."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    if re.match(r"\s*<(!doctype html|html)\b", text, re.IGNORECASE):
        raise ValueError(f"{path}: a web page, not the file itself: download it again, logged in if need be")
    return text


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ValueError with the line where it is none."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {error.lineno}: not JSON: {error.msg}: is it whole?") from None


def spelling(name: str) -> str:
    """What is left of a name when case, spaces and punctuation are not looked at.

    Data sets spell a class in several ways: HandstandPushups and HandStandPushups, arm wrestling and arm_wrestling.
    """
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold())) or name


def class_indices(classes: Iterable[str]) -> dict[str, int]:
    """Name → id; also spelling → id where that tells the classes apart."""
    indices: dict[str, int] = {}
    doubtful: set[str] = set()
    for index, name in enumerate(classes):
        loose = spelling(name)
        if loose in indices:
            doubtful.add(loose)
        indices[loose] = index
    indices = {loose: index for loose, index in indices.items() if loose not in doubtful}
    return indices | {name: index for index, name in enumerate(classes)}


def _without_ids(lines: list[str], path: Path) -> list[str]:
    """The names of `id,name`, `id name` or bare lines."""
    lines = [line for line in lines if line]
    if path.suffix == ".csv" and lines and lines[0].casefold() in _HEADERS:
        del lines[0]
    with_ids = [re.fullmatch(r"(\d+)\s*,\s*(.+)", line) for line in lines]
    if len(lines) > 1 and all(with_ids[1:]):
        pairs = [(int(match[1]), _unquoted(match[2])) for match in with_ids if match]
        for row, (index, name) in enumerate(pairs):
            if index != pairs[0][0] + row or pairs[0][0] > 1:
                raise ValueError(f"{path}: id {index} of {name!r} is out of order: ids count up from 0 (or 1)")
        return [name for _, name in pairs]
    spaced = [line.split(maxsplit=1) for line in lines]
    for first in (0, 1):
        if len(lines) > 1 and all(len(p) == 2 and p[0] == str(first + row) for row, p in enumerate(spaced)):
            return [name for _, name in spaced]
    return [_unquoted(line) for line in lines]


def _unquoted(text: str) -> str:
    return next(csv.reader([text]))[0] if text.startswith('"') else text
