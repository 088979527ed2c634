"""The parts of a model: what each has of its parameters and multiply-adds, and what it hands on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vidstill.config import Clip
from vidstill.models.registry import VideoModel

BODY = 0.7  # of the parameters: what has so many of them is opened, for it tells nothing by itself
MOST = 16  # parts, up to which each is opened too

Named = tuple[str, nn.Module]


@dataclass(frozen=True)
class Part:
    """A layer or a group of layers, with what is `inside`.

    `outputs`: the shapes that it hands on, without the batch, channels first where there are frames. `gmacs` are
    counted as by `cost.gmacs`. With a `count` it stands for so many alike in a row, up to `last`; parameters and
    multiply-adds are then those of all of them.
    """

    path: str
    kind: str
    parameters: int
    gmacs: float
    outputs: tuple[tuple[int, ...], ...]
    inside: tuple[Part, ...] = ()
    count: int = 1
    last: str = ""

    def looks_like(self, other: Part) -> bool:
        mine, theirs = (replace(one, path="", last="", inside=()) for one in (self, other))
        if mine != theirs or len(self.inside) != len(other.inside):
            return False
        return all(map(Part.looks_like, self.inside, other.inside))


def parts(model: VideoModel, clip: Clip | None = None) -> list[Part]:
    """The parts of `model`, each with its own parts, in the order in which a clip, by default its `input`, passes them.

    Nothing is computed: a copy of the model without values runs. Layers without weights are left out where they hand
    on the shape that came to them. The parts together have all parameters and all multiply-adds.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    clip = clip or model.input
    outer = _opened(ghost)
    inner = {path: list(_children(module, f"{path}.")) for path, module in outer if len(outer) <= MOST}
    seen: dict[str, _Pass] = {}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for path, module in [*outer, *(entry for entries in inner.values() for entry in entries)]:
            _watch(path, module, seen, counter, model.channel_axis)
        ghost(torch.empty(1, model.in_channels, clip.frames, clip.size, clip.size, device="meta"))

    def made(entries: Sequence[Named]) -> list[Part]:
        order = {path: place for place, path in enumerate(seen)}
        found = []
        for path, module in sorted(entries, key=lambda entry: order.get(entry[0], len(order))):
            passed = seen.get(path, _Pass())
            weights = sum(parameter.numel() for parameter in module.parameters())
            inside = tuple(made(inner.get(path, ()))) if weights else ()
            explained = sum(one.gmacs for one in inside) > 0.99 * passed.flops / 2e9  # else some are not called as such
            inside = inside if explained and sum(one.count for one in inside) > 1 else ()
            found.append(Part(path, type(module).__name__, weights, passed.flops / 2e9, passed.outputs, inside))
        return _joined(_telling(found))

    return made(outer)


@dataclass
class _Pass:
    """Of clips through a module."""

    flops: int = 0
    before: int = 0
    outputs: tuple[tuple[int, ...], ...] = field(default=())


def _opened(model: nn.Module) -> list[Named]:
    """The modules that stages are: the children of the model, or of that child which is nearly all of it."""
    whole = sum(parameter.numel() for parameter in model.parameters())
    entries = list(_children(model))
    while True:
        body = [
            (path, module)
            for path, module in entries
            if sum(parameter.numel() for parameter in module.parameters()) > BODY * whole
            and not getattr(module, "is_stage", False)
            and len(list(_children(module))) > 1
        ]
        if not body:
            return entries
        ((path, module),) = body
        place = entries.index((path, module))
        entries[place : place + 1] = _children(module, f"{path}.")


def _children(module: nn.Module, prefix: str = "") -> Iterator[Named]:
    """Those that are called: lists of modules stand for what is in them."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from _children(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _watch(path: str, module: nn.Module, seen: dict[str, _Pass], counter: FlopCounterMode, channels: int) -> None:
    """Note what passes through the module, in the order of the first calls."""

    def begin(*_: Any) -> None:
        seen.setdefault(path, _Pass()).before = counter.get_total_flops()

    def end(_module: nn.Module, _given: Any, output: Any) -> None:
        passed = seen[path]
        passed.flops += counter.get_total_flops() - passed.before
        each = output if isinstance(output, tuple | list) else (output,)
        tensors = (one for one in each if isinstance(one, Tensor))
        shapes = [(one.movedim(channels, 1) if one.ndim == 5 else one).shape[1:] for one in tensors]
        passed.outputs = passed.outputs or tuple(dict.fromkeys(tuple(shape) for shape in shapes))

    module.register_forward_pre_hook(begin)
    module.register_forward_hook(end)


def _telling(found: Sequence[Part]) -> list[Part]:
    """Without the layers that have no weights and change no shape."""
    before = [*found[:1], *found][: len(found)]
    return [
        one
        for one, last in zip(found, before, strict=True)
        if one.parameters or (one.outputs and one.outputs != last.outputs)
    ]


def _joined(found: Sequence[Part]) -> list[Part]:
    """Parts in a row that look alike as one."""
    rows: list[list[Part]] = []
    for one in found:
        if rows and rows[-1][0].looks_like(one):
            rows[-1].append(one)
        else:
            rows.append([one])
    return [
        row[0] if len(row) == 1 else replace(
            row[0], count=len(row), last=row[-1].path, parameters=sum(one.parameters for one in row),
            gmacs=sum(one.gmacs for one in row),
        )
        for row in rows
    ]  # fmt: skip
