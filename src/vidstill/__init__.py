"""vidstill: train, distil, test, explain, detect with and ship small video-action models."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "create_model": "vidstill.models.registry",
    "list_models": "vidstill.models.registry",
    "load_weights": "vidstill.models.weights",
    "load": "vidstill.models.weights",
    "save": "vidstill.models.weights",
    "predict": "vidstill.inference.predictor",
    "resolve": "vidstill.config",
    "train": "vidstill.training.run",
    "test": "vidstill.tasks.testing",
    "evaluate": "vidstill.evaluation.testing",
    "read_annotations": "vidstill.data.annotations",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Names are imported when they are used: `import vidstill` alone does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vidstill' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
