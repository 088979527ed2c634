"""Undivided videos → parts of which one is held out: a function of names, labels and seed, alike on every machine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import sha256


def stratified_parts(names: Sequence[str], labels: Sequence[int], folds: int, seed: int) -> list[int]:
    """The part 0..folds-1 of each video: sizes differ by at most one, in every class and in all."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for position in sorted(range(len(names)), key=lambda p: (_draw(seed, names[p]), names[p])):
        by_class[labels[position]].append(position)
    parts = [0] * len(names)
    # one round over the parts goes on from class to class, so that small classes do not all fall into the first
    for turn, position in enumerate(position for label in sorted(by_class) for position in by_class[label]):
        parts[position] = turn % folds
    return parts


def group_parts(groups: Sequence[str], labels: Sequence[int], folds: int, seed: int) -> list[int]:
    """The part 0..folds-1 of each video, no group in two parts, classes and sizes as even as that allows.

    The largest groups are placed first, each where it adds least to the sum, over parts and classes, of
    (count / class size)². With as many folds as groups each group is a part. Raises ValueError for fewer groups.
    """
    contents: dict[str, Counter[int | None]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        contents[group].update((label, None))  # None counts all classes together
    if len(contents) < folds:
        raise ValueError(f"{len(contents)} groups cannot make {folds} parts: set data.folds to {len(contents)} or less")
    sizes = sum(contents.values(), Counter())
    filled: list[Counter[int | None]] = [Counter() for _ in range(folds)]
    placed: dict[str, int] = {}
    for group in sorted(contents, key=lambda g: (-contents[g][None], _draw(seed, g), g)):
        more = contents[group]
        cost = [
            sum((part[c] + n) ** 2 / sizes[c] ** 2 - part[c] ** 2 / sizes[c] ** 2 for c, n in more.items())
            for part in filled
        ]
        placed[group] = min(range(folds), key=cost.__getitem__)
        filled[placed[group]].update(more)
    return [placed[group] for group in groups]


def _draw(seed: int, name: str) -> str:
    return sha256(f"{seed}/{name}".encode(errors="surrogateescape")).hexdigest()
