"""What goldens write as text: numbers, formulas, which part of an array is kept, the order of axes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from fill import clip, fill
from torch import Tensor


def number(about: Any, default: float | None = None) -> float:
    """A number, or the first one in a text: "1e-3 relative to the map maximum", "8/255 absolute"."""
    if about is None:
        assert default is not None, "the golden states no number here"
        return default
    if not isinstance(about, str):
        return float(about)
    found = re.search(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)(?:/(\d+))?", about)
    assert found, about
    return float(found[1]) / float(found[2] or 1)


def named(text: str, name: str, default: float | None = None) -> float:
    """The number after a name in a text: named("SGD, lr 0.05", "lr") == 0.05."""
    found = re.search(rf"\b{name}[ =-]+(\d[\d.]*(?:e[+-]?\d+)?)", text)
    return number(found[1] if found else None, default)


def formula(text: str, **names: Any) -> Any:
    """What a golden's formula gives, e.g. "2*clip(seed,shape)+0.3*i", where `clip` and `fill` are those functions."""
    known = {"clip": clip, "fill": fill, "RandomState": np.random.RandomState, **names}
    return eval(text, {"__builtins__": {}}, known)


def kept(array: Any, how: str) -> Any:
    """What a golden keeps of an array: "whole", "array[:, ::2]", "[:8, ..., ::3]"."""
    inside = re.search(r"\[(.*)\]", how)
    if not inside:
        assert how == "whole", how
        return array
    parts = [part.strip() for part in inside[1].split(",")]
    ends = [[int(end) if end else None for end in part.split(":")] if part != "..." else None for part in parts]
    return array[tuple(... if end is None else slice(*end) for end in ends)]


def channels_first(array: np.ndarray, layout: str) -> Tensor:
    """Clips in the axis order that a golden names → (…,3,T,H,W), over channels-last memory as loaders hand it over."""
    axes = re.search(r"\bN?(TCHW|CTHW|CDHW)\b", layout)
    x = torch.from_numpy(array)
    assert axes or "C, T, H, W" in layout, layout
    x = x.transpose(-3, -4) if axes and axes[1] == "TCHW" else x
    return x.movedim(-4, -1).contiguous().movedim(-1, -4)
