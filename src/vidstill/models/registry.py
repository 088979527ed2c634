"""Names → models."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

import torch

from vidstill.models.catalogue import CATALOGUE
from vidstill.models.model import Activation, VideoModel

__all__ = ["Activation", "VideoModel", "create_model", "list_models", "register_model"]

Builder = TypeVar("Builder", bound=Callable[..., VideoModel])

_BUILDERS: dict[str, Callable[..., VideoModel]] = {}


def register_model(builder: Builder) -> Builder:
    """Make a builder `def name(num_classes=…, **options) -> VideoModel` known under its function name."""
    _BUILDERS[builder.__name__] = builder
    return builder


def _builders() -> dict[str, Callable[..., VideoModel]]:
    for family in {entry.module for entry in CATALOGUE.values()}:
        importlib.import_module(f"vidstill.models.{family}")
    return _BUILDERS


def list_models(pattern: str = "*") -> list[str]:
    """Registered names that match a shell pattern, e.g. `"*focal*"`."""
    return sorted(fnmatch.filter(_builders(), pattern))


def create_model(
    name: str, num_classes: int = 400, *, device: str | torch.device | None = None, **options: Any
) -> VideoModel:
    """A registered model with fresh weights, on `device` ("meta": shapes only). `options` override its constructor's.

    Raises ValueError for an unknown name, an unknown option or a combination that cannot be built.
    """
    builders = _builders()
    if name not in builders:
        raise ValueError(f"no model {name!r}{_near(name, builders)}; known: {', '.join(sorted(builders))}")
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 0:
        raise ValueError(f"num_classes {num_classes!r:.40}: give a whole number, 0 for the pooled features")
    _check_options(builders[name], options)
    with torch.device(device) if device is not None else contextlib.nullcontext():
        model = builders[name](num_classes=num_classes, **options)
    model.name, model.options = name, dict(options)
    return model


def _check_options(builder: Callable[..., VideoModel], options: Mapping[str, Any]) -> None:
    """Those that the builder and the constructor of its network name."""
    network = get_type_hints(builder)["return"]
    named = [*inspect.signature(builder).parameters.values(), *inspect.signature(network).parameters.values()]
    allowed = list(dict.fromkeys(one.name for one in named if one.kind is one.KEYWORD_ONLY))
    for name in options:
        if name not in allowed:
            raise ValueError(f"no option {name!r}{_near(name, allowed)}; allowed: {', '.join(allowed)}")


def _near(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""
