"""Released files by recipe: the network and classes that a recipe names, and which recipes the weights fit."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vidstill.config import Run, recipe_names, resolve
from vidstill.data.annotations import class_list
from vidstill.labels import class_names
from vidstill.models.adapt import Report, shape_of
from vidstill.models.catalogue import configurations
from vidstill.models.registry import VideoModel, create_model

USUAL = 400  # classes of a network that is built to see what its other weights look like
MOST = 100_000  # classes that a file may have
NEAR = 0.5  # share of the weights that a network of the same design has in common


def released_settings(recipe: str | Path, settings: Sequence[str] = ()) -> Run:
    """A recipe under `settings`, for a model that others trained: it is tested in float32 by one process, which every
    machine can. Raises ConfigError as `resolve`."""
    return resolve(recipe, ["--train.precision", "fp32", "--train.devices", "1", *settings])


def network(recipe: str, run: Run, state: Mapping[str, Tensor]) -> VideoModel:
    """The network of a recipe, `run` when resolved, with random weights, its classes, clip and activation.

    A recipe that names no classes has as many as the classifier in `state`. Raises ValueError where there is none.
    """
    names = recipe_classes(recipe, run)
    count = len(names) if names else _outputs(recipe, run, state)
    model = create_model(run.model.name, count, **run.model.options)
    model.classes, model.input = names, run.clip
    if run.data.multi_label:
        model.activation = "sigmoid"
    return model


def recipe_classes(recipe: str, run: Run) -> list[str] | None:
    """Class names in the order of the outputs: those of the settings, else of the released file; None for neither."""
    if run.data.classes:
        return class_list(run.data)
    known = configurations(recipe).get(recipe)
    return class_names(known.classes) if known and known.classes else None


def _outputs(recipe: str, run: Run, state: Mapping[str, Tensor]) -> int:
    fit = _compare(run.model.name, json.dumps(run.model.options), state)
    if fit is None or not 0 < fit.outputs <= MOST:
        raise ValueError(f"recipe {recipe} names no classes, nor has the file a classifier of its network")
    return fit.outputs


@dataclass(frozen=True)
class _Fit:
    """How weights fit a network, whatever the size of its classifier."""

    shared: float  # share of the names of weights, of either, that both have
    outputs: int  # of the classifier in the file, 0 without one
    differs: Sequence[str]  # in words, weight by weight
    of_images: bool


def what_fits(state: Mapping[str, Tensor], tried: str = "") -> str:
    """Which recipes weights are of, in words that say what to do. Takes seconds: a network is built for each.

    `tried`: a recipe that is named first among several that fit alike.
    """
    groups: dict[tuple[str, str], list[tuple[str, int | None]]] = {}
    for recipe in recipe_names():
        run = resolve(recipe)
        names = recipe_classes(recipe, run)
        key = run.model.name, json.dumps(run.model.options, sort_keys=True)
        groups.setdefault(key, []).append((recipe, len(names) if names else None))
    strangers: set[str] = set()  # names of networks that have no weight in common
    found: list[tuple[_Fit, list[tuple[str, int | None]]]] = []
    for (name, options), recipes in groups.items():
        if name in strangers:
            continue
        fit = _compare(name, options, state)
        if fit is None:
            strangers.add(name)
        else:
            found.append((fit, recipes))
    exact = [(fit, recipes) for fit, recipes in found if not fit.differs]
    if fitting := [name for fit, recipes in exact for name, count in recipes if count in (None, fit.outputs)]:
        return f"its weights fit --recipe {_either(fitting)}"
    if exact:
        same = sorted((name for _, recipes in exact for name, _ in recipes), key=lambda name: name != tried)
        return (
            f"its network is that of {_either(same)}, its {exact[0][0].outputs} classes are others: name them, "
            f"--recipe {same[0]} --data.classes names.txt with vidstill import, or in a recipe file of your own"
        )
    if any(fit.of_images for fit, _ in found):
        return "its weights are of a network for images, from which a training can start: --model.weights"
    fit, recipes = max(found, key=lambda one: one[0].shared, default=(None, []))
    if fit is not None and fit.shared > NEAR:
        return (
            f"nearest is the recipe {recipes[0][0]}, but {len(fit.differs)} weights differ ({fit.differs[0]}): "
            "give the network's own model.options in a recipe file"
        )
    return "it fits no recipe, see vidstill models for the networks that there are"


@functools.cache
def _built(name: str, options: str) -> VideoModel:
    return create_model(name, USUAL, device="meta", **json.loads(options))


def _compare(name: str, options: str, state: Mapping[str, Tensor]) -> _Fit | None:
    """How weights fit a network; None where they have nothing in common."""
    report, model = Report(""), _built(name, options)
    before, head = dict(model.options), model.head_keys
    try:
        given = model.adapt_weights({key: value.to("meta") for key, value in state.items()}, "error", report)
    except ValueError:  # a classifier of images
        return _Fit(0, 0, ["its classifier is of images"], True)
    except Exception:  # names of this network with other shapes fail anywhere
        return None
    if model.options != before:  # it followed the file
        _built.cache_clear()
    own = model.state_dict()
    if not given.keys() & own.keys():
        return None
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    differs = [f"{key} {_size(given.get(key))} in the file, {_size(own.get(key))} in the network"
               for key in sorted((own.keys() | given.keys()) - counters)
               if key in report.resized or not _alike(given.get(key), own.get(key), head=key in head)]  # fmt: skip
    outputs = given[head[0]].shape[0] if head[0] in given and given[head[0]].ndim else 0
    share = len(own.keys() & given.keys()) / len(own.keys() | given.keys())
    return _Fit(share, outputs, differs, bool(report.resized and report.kept.keys() - counters))


def _alike(one: Tensor | None, other: Tensor | None, head: bool) -> bool:
    if one is None or other is None:
        return False
    return one.shape[head:] == other.shape[head:]  # of a classifier the number of outputs does not count


def _size(value: Tensor | None) -> str:
    return "is not" if value is None else f"is {shape_of(value)}"


def _either(names: Sequence[str], most: int = 8) -> str:
    shown = [*names[:most], "…"] if len(names) > most else [*names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
