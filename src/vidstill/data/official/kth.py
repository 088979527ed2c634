"""KTH: 25 persons, six actions; a list of the stretches of each video in which the person moves."""

from __future__ import annotations

import re

from vidstill.config import Data
from vidstill.data.official.finding import needed
from vidstill.data.official.present import Present
from vidstill.data.rows import Listing
from vidstill.labels import read_text

KTH = "00sequences.txt"  # file that tells it
CLASSES = ["boxing", "handclapping", "handwaving", "jogging", "running", "walking"]

# Schüldt, Laptev, Caputo, ICPR 2004, §4: training, validation and test are different persons
_TRAIN = {11, 12, 13, 14, 15, 16, 17, 18}
_VAL = {1, 4, 19, 20, 21, 23, 24, 25}
_FPS = 25  # of all videos
_LINE = re.compile(r"(person(\d\d)_([a-z]+)_d\d)\s+frames\s+(\d+\s*-\s*\d+(?:\s*,\s*\d+\s*-\s*\d+)*)\s*,?")


def read_kth(data: Data) -> Listing:
    """`00sequences.txt`: `person01_boxing_d1 frames 1-95, 96-185`, frames counted from 1; each range is a sample.

    Videos are `person01_boxing_d1_uncomp.avi`, with any suffix, anywhere in `root`. Training, validation and test are
    the official persons. Raises ValueError for a line of another form.
    """
    source = needed(data, KTH, KTH) / KTH
    present = Present(data.root)
    for line, text in enumerate(read_text(source).splitlines(), 1):
        if not text.strip().startswith("person") or "missing" in text:
            continue  # the head of the file, empty lines, and the one video that was never there
        if (found := _LINE.fullmatch(text.strip())) is None:
            raise ValueError(
                f"{source} line {line}: {text.strip()!r}; wanted is person01_boxing_d1 frames 1-95, 96-185"
            )
        name, person, label, ranges = found[1], int(found[2]), found[3], found[4]
        split = "train" if person in _TRAIN else "val" if person in _VAL else "test"
        path = present.find(f"{name}_uncomp", name)
        for part in ranges.split(","):
            first, last = map(int, part.split("-"))
            if not 1 <= first <= last:
                raise ValueError(f"{source} line {line}: frames {part.strip()}: the last comes before the first")
            present.add(
                split, path, name, label, source, line=line, group=f"person{person:02}",
                start=(first - 1) / _FPS, end=last / _FPS,
            )  # fmt: skip
    return present.listing(source, lambda name: f"{name}_uncomp.avi", CLASSES)
