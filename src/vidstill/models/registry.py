"""Names → models. A model is an nn.Module that answers `input`, `classes`, `forward_features`, `reset_classifier`."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, get_type_hints

import torch
from torch import Tensor, nn

from vidstill.config import Clip
from vidstill.models.adapt import Report
from vidstill.models.catalogue import CATALOGUE

Activation = Literal["softmax", "sigmoid", "relu"]


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
    channel_axis: int = 1  # of what its inner layers hand on
    cam_layer: str = ""  # which of them Grad-CAM looks at unless told otherwise, parts separated by slashes
    activation: Activation = "softmax"  # that makes the scores of a view from its logits
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, about a third more time

    def forward_features(self, clips: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        raise NotImplementedError

    def forward_with_features(self, clips: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and features of one pass."""
        features = self.forward_features(clips)
        return self.forward_head(features), features

    def forward_head(self, features: dict[str, Tensor]) -> Tensor:
        """What `forward_features` gave → logits (B,K)."""
        raise NotImplementedError

    def seen_frames(self, frames: int) -> list[list[int]]:
        """Which of a clip's frames each pathway sees, in the order in which its layers hand on their tensors."""
        return [list(range(frames))]

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


def create_model(
    name: str, num_classes: int = 400, *, device: str | torch.device | None = None, **options: Any
) -> VideoModel:
    """A registered model with fresh weights, on `device` ("meta": shapes only). `options` override its constructor's.

    Raises ValueError for an unknown name, an unknown option or a combination that cannot be built.
    """
    builders = _builders()
    if name not in builders:
        raise ValueError(f"no model {name!r}{_near(name, builders)}; known: {', '.join(sorted(builders))}")
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
