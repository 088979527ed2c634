"""Names → models. A model is an nn.Module that answers `input`, `classes`, `forward_features`, `reset_classifier`."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from vidstill.config import Clip

if TYPE_CHECKING:
    from vidstill.models.weights import Report
from vidstill.models.catalogue import CATALOGUE


class VideoModel(nn.Module):
    """What every registered model answers, whatever its family.

    `forward(clips)` maps normalised clips (B,3,T,H,W) to logits (B,K); `forward_features(clips)` names its stages,
    each (B,C,T,H,W).
    """

    input: Clip = Clip()
    classes: list[str] | None = None
    name: str = ""
    options: dict[str, Any]
    num_classes: int
    head_keys: tuple[str, ...] = ("head.weight", "head.bias")  # of the state dict, what depends on num_classes
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, about a third more time

    def forward_features(self, clips: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        raise NotImplementedError

    def adapt_state(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], set[str], list[str], list[str]]:
        """Weights of a released file in this model's layout: the state, the keys of this model that it may lack, the
        file's keys that are not used, and a note for each change. The model may change itself to match the file."""
        return state, set(), [], []

    def optimise_for_inference(self, bf16: bool = False) -> VideoModel:
        """Give up training for speed, in place: same logits to rounding; with `bf16` to about 1 %, float32 still out.

        Models without such a form only go into eval mode.
        """
        return self.eval()

    def adapt_weights(self, state: dict[str, Tensor], head: str, report: Report) -> dict[str, Tensor]:
        """What `load_weights` hands over, as this model wants it; says in `report` what was changed or left out."""
        return state


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


def create_model(name: str, num_classes: int = 400, **options: Any) -> VideoModel:
    """A registered model with fresh weights. `options` override its constructor's.

    Raises ValueError for an unknown name, an unknown option or a combination that cannot be built.
    """
    builders = _builders()
    if name not in builders:
        near = difflib.get_close_matches(name, builders, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"no model {name!r}{hint}; known: {', '.join(sorted(builders))}")
    try:
        model = builders[name](num_classes=num_classes, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"{name}: {str(error).split('() ')[-1]}") from None
    model.name, model.options = name, dict(options)
    return model
