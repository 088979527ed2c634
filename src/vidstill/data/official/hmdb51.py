"""HMDB51: three divisions, as a list for each class."""

from __future__ import annotations

from vidstill.config import Data
from vidstill.data.official.finding import needed
from vidstill.data.official.present import finder
from vidstill.data.rows import Listing, Row
from vidstill.labels import read_text

HMDB51 = "*_test_split?.txt"  # files that tell it


def read_hmdb51(data: Data) -> Listing:
    """`<class>_test_splitN.txt`: lines `name 1` (train), `name 2` (test), `name 0` (unused)."""
    folder = needed(data, HMDB51, "<class>_test_split1.txt")
    ending = f"_test_split{data.fold}.txt"
    sources = sorted(folder.glob(f"*{ending}"))
    if not sources:
        raise ValueError(f"{folder}: no <class>{ending}; the official splits are data.fold 1, 2 and 3")
    left_out: list[str] = []
    find = finder(data.root, left_out)
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for source in sources:
        label = source.name.removesuffix(ending)
        for line, text in enumerate(read_text(source).splitlines(), 1):
            name, _, use = text.strip().rpartition(" ")
            if use in ("1", "2"):
                split = "train" if use == "1" else "test"
                rows[split].append(Row(find(label, name), f"{label}/{name}", label, source, line=line))
            elif use not in ("", "0"):
                raise ValueError(f"{source} line {line}: {text.strip()!r} does not end in 0, 1 or 2")
    return Listing(rows, sorted(source.name.removesuffix(ending) for source in sources), left_out=left_out)
