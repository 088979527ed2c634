"""ShuffleNetV2 weights of Megvii's release, for images, under our names and in our order of channels.

There a unit takes the even channels of its input through and puts what it computes from the odd ones behind them; here
a unit takes the first half through and interleaves the other half with it. The same channels can be had in both if each
branch puts out first what is taken through most often afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

_UNIT = re.compile(r"stage(\d)\.(\d+)\.branch_(main|proj)\.(\d)\.(\w+)")
# Which layers of a branch have the channels of its input, and of its output, in rows; and of its input in columns
_ROWS = {
    ("proj", 0): "in",
    ("proj", 1): "in",
    **dict.fromkeys([("proj", 2), ("proj", 3), ("main", 5), ("main", 6)], "out"),
}
_COLUMNS = {("proj", 2), ("main", 0)}
Tag = tuple[int, str, int]  # unit of a stage, branch and number of the channel there


def is_megvii(state: dict[str, Tensor]) -> bool:
    return "first_conv.0.weight" in state and any(_UNIT.match(key) for key in state)


def from_megvii(state: dict[str, Tensor], stem: str, stages: Sequence[tuple[str, int]]) -> dict[str, Tensor]:
    """`stem` is our name of the first convolution and its norm, `stages` are our names of each stage's list of units
    with the number of its first unit there. What is no part of these keeps its key."""
    renamed: dict[str, Tensor] = {}
    incoming: Tensor | None = None
    for number, (name, first) in enumerate(stages, 2):
        orders, incoming = _orders(state, number, incoming)
        for key, value in state.items():
            found = _UNIT.fullmatch(key)
            if found is None or int(found[1]) != number:
                continue
            unit, branch, layer = int(found[2]), found[3], int(found[4])
            inputs, outputs = orders[unit, branch]
            rows = {"in": inputs, "out": outputs}.get(_ROWS.get((branch, layer), ""))
            if value.ndim and rows is not None:
                value = value[rows]
            if (branch, layer) in _COLUMNS and value.ndim == 4 and inputs is not None:
                value = value[:, inputs]
            banch = "banch1" if branch == "proj" else "banch2"
            renamed[f"{name}.{first + unit}.{banch}.{layer}.{found[5]}"] = value
    for key, value in state.items():
        if not _UNIT.fullmatch(key):
            renamed[key.replace("first_conv", stem)] = value
    return renamed


def _orders(
    state: dict[str, Tensor], stage: int, incoming: Tensor | None
) -> tuple[dict[tuple[int, str], tuple[Tensor | None, Tensor]], Tensor]:
    """For each unit and branch where our inputs (None: as they are) and outputs are in theirs; then for the stage."""
    units = 1 + max(int(found[2]) for key in state if (found := _UNIT.match(key)) and int(found[1]) == stage)
    half = len(state[f"stage{stage}.0.branch_proj.2.weight"])

    def order(unit: int, branch: str) -> list[int]:
        offset = 0 if branch == "proj" else half
        return sorted(range(half), key=lambda j: -_times_through(offset + j, units - 1 - unit))

    orders: dict[tuple[int, str], tuple[Tensor | None, Tensor]] = {}
    theirs: list[Tag] = []
    ours: list[Tag] = []
    for unit in range(units):
        main = order(unit, "main")
        if unit == 0:
            proj = order(0, "proj")
            orders[0, "proj"] = incoming, torch.tensor(proj)
            orders[0, "main"] = incoming, torch.tensor(main)
            first, through = [(0, "proj", j) for j in range(half)], [(0, "proj", j) for j in proj]
        else:
            odd, second = theirs[1::2], ours[half:]
            orders[unit, "main"] = torch.tensor([odd.index(tag) for tag in second]), torch.tensor(main)
            first, through = theirs[::2], ours[:half]
        theirs = [*first, *((unit, "main", j) for j in range(half))]
        computed: list[Tag] = [(unit, "main", j) for j in main]
        ours = [tag for pair in zip(through, computed, strict=True) for tag in pair]
    return orders, torch.tensor([theirs.index(tag) for tag in ours])


def _times_through(position: int, units: int) -> int:
    """How many of the next units take the channel at this position of their input through."""
    times = 0
    while times < units and position % 2 == 0:
        position, times = position // 2, times + 1
    return times
