"""Weights in and models out: released checkpoint files into a model, our own model files written and read."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as safetensors_bytes
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vidstill.config import Run, resolve
from vidstill.files import atomic
from vidstill.models.adapt import Report, shape_of
from vidstill.models.model import LONGEST_NAME, SavedModel, VideoModel
from vidstill.models.pretrained import find_pretrained, pretrained
from vidstill.models.registry import create_model
from vidstill.models.released import network, what_fits
from vidstill.models.unpickle import read_pickled

FORMAT = 1  # of what describes a model
DESCRIPTION = "vidstill"  # name of that in the header of a .safetensors file
MEANT = ("architecture", "classes", "input", "activation")  # of it, what decides what the model says
WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict", "blobs")
LONGEST_JSON = 16 << 20  # bytes; 20,000 classes need 1 MB
LARGEST_OPTION, MOST_OPTIONS = 100_000, 1_000  # of a description: no network has more blocks, channels or entries
PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")  # left by DataParallel, DDP and torch.compile

log = logging.getLogger(__name__)


def load_weights(
    model: VideoModel, source: str | Path | Mapping[str, Any], *, head: Literal["error", "fresh"] = "error"
) -> Report:
    """Weights of a released file, of one of ours, or of a mapping, into `model`; returns what went where.

    `source`: .pth/.pyth/.pt/.th/.tar/.ckpt/.pkl (pickles are never executed), .safetensors, a run folder,
    `hf://owner/repo/file`, or the mapping such a file holds. Wrappers (`model`, `state_dict`, `model_state`) and
    prefixes of all names (`module.`, Lightning's `model.`) come off. A classifier of another size is an error, or with
    `head="fresh"` the model keeps its own. A family adapts what its releases need (2-D FocalNet → video). Raises
    ValueError that names the keys where names or shapes do not fit, and what does; the weights are then unchanged.
    """
    name = "mapping" if isinstance(source, Mapping) else str(source)
    state = find_state_dict(source if isinstance(source, Mapping) else read_tensors(source), name)
    try:
        return _take(model, state, name, head)
    except OtherNetworkError as error:
        raise OtherNetworkError(f"{error}; {what_fits(state)}") from None


class OtherNetworkError(ValueError):
    """Weights that are not of the network which is to have them."""


class OtherClassesError(ValueError):
    """Weights with a classifier of another size."""


def _take(model: VideoModel, given: Mapping[str, Tensor], name: str, head: str) -> Report:
    report = Report(name)
    state = model.adapt_weights(dict(given), head, report)
    own = model.state_dict()
    if not state.keys() & own.keys():
        raise OtherNetworkError(f"{name} holds weights of another network: {_some(state)} against {_some(own)}")
    for key in [key for key in model.head_keys if key in state and key in own]:
        if state[key].shape != own[key].shape:
            if head == "error":
                raise OtherClassesError(
                    f"{name}: the classifier {key} is {shape_of(state[key])}, the model's {shape_of(own[key])}: "
                    'build the model with as many classes, or pass head="fresh" for a new classifier'
                )
            report.kept[key] = f"classifier of another size, {shape_of(state.pop(key))} in the file"
    if wrong := [key for key in state if key in own and state[key].shape != own[key].shape]:
        shown = "; ".join(f"{key} is {shape_of(state[key])}, the model's {shape_of(own[key])}" for key in wrong[:3])
        more = "; …" if len(wrong) > 3 else ""
        raise OtherNetworkError(f"{name}: {len(wrong)} weights have another shape: {shown}{more}")
    if missing := [key for key in own if key not in state and key not in report.kept]:
        raise OtherNetworkError(f"{name} lacks {len(missing)} weights of the model: {_some(missing)}")
    if surplus := [key for key in state if key not in own]:
        raise OtherNetworkError(f"{name} has {len(surplus)} weights that the model lacks: {_some(surplus)}")
    check_finite(state, name)
    model.load_state_dict(state, strict=False)
    report.loaded = [key for key in state if key not in report.resized]
    return report


def load_released(source: str | Path, recipe: str | Path, run: Run | None = None) -> tuple[VideoModel, Report]:
    """The model of a file that does not describe itself: network, classes, clip and activation are those of the recipe
    (a shipped name or a YAML file; `run`: that with settings of your own). Returns it with what went where.

    Raises ValueError for a file that describes itself, and for one that is not of the recipe's network and classes,
    with the recipes that it fits.
    """
    path, recipe = fetch(source), str(recipe)
    if describes_itself(path):
        raise ValueError(f"{source} says itself which network it is of, with which classes: leave the recipe out")
    run = run or resolve(recipe)
    state = find_state_dict(read_tensors(path), str(source))
    model = network(recipe, run, state)
    try:
        report = _take(model, state, str(source), "error")
    except OtherNetworkError as error:
        raise OtherNetworkError(f"not of recipe {recipe}: {error}; {what_fits(state, recipe)}") from None
    except OtherClassesError as error:
        problem = str(error).split(": build the model", 1)[0]  # which the recipe does
        raise OtherClassesError(f"not of recipe {recipe}: {problem}; {what_fits(state, recipe)}") from None
    if lacking := [key for key in report.kept if not key.endswith("num_batches_tracked")]:
        raise OtherNetworkError(f"not of recipe {recipe}: {source} lacks {_some(lacking)}; {what_fits(state, recipe)}")
    return model, report


def read_tensors(source: str | Path) -> Any:
    """What the file holds, tensors on the CPU. See `load_weights` for the sources."""
    path = fetch(source)
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise ValueError(f"no weights at {path}: give a file, a run folder or hf://owner/repo/file")
    if path.suffix != ".safetensors":
        return read_pickled(path)
    return _read_safetensors(path)


def find_state_dict(value: Any, name: str) -> dict[str, Tensor]:
    """The state dict inside what a checkpoint file holds, without wrappers and prefixes.

    Raises ValueError when there is none.
    """
    for wrapper in WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping):
            value = value[wrapper]
    entries = value.items() if isinstance(value, Mapping) else ()
    tensors = {key: entry for key, entry in entries if isinstance(key, str) and isinstance(entry, Tensor)}
    if not tensors:
        what = f"a mapping of {_some(value)}" if isinstance(value, Mapping) else f"a {type(value).__name__}"
        raise ValueError(f"{name} holds no weights: looked for tensors under {', '.join(WRAPPERS)}, found {what}")
    if all(PREFIXES.match(key) for key in tensors):
        tensors = {PREFIXES.sub("", key): value for key, value in tensors.items()}
    while len({key.partition(".")[0] for key in tensors}) == 1 and any(key.count(".") > 1 for key in tensors):
        tensors = {key.partition(".")[2]: value for key, value in tensors.items()}  # e.g. Lightning's model.
    return tensors


def save(
    model: SavedModel,
    stem: str | Path,
    *,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write <stem>.safetensors and <stem>.json (architecture, classes, activation, input, metrics, provenance).

    The first holds all that the second says, for people, once more: it is a whole model to ship. Each appears whole or
    not at all. Raises ValueError when the disk is full or cannot be written; what was there
    before is then untouched. Returns the path of the weights.
    """
    path = Path(str(stem).removesuffix(".safetensors"))
    about = {
        "format": FORMAT,
        **model.description(),
        "metrics": dict(metrics or {}),
        "provenance": dict(provenance or {}),
    }
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    weights = safetensors_bytes(state, {"format": "pt", DESCRIPTION: json.dumps(about, ensure_ascii=False)})
    text = json.dumps(about, indent=1, ensure_ascii=False)
    with atomic(_with(path, ".safetensors")) as file:
        file.write(weights)
    with atomic(_with(path, ".json")) as file:
        file.write(text.encode())
    return _with(path, ".safetensors")


def load(path: str | Path, device: str | torch.device = "cpu", *, recipe: str | Path | None = None) -> VideoModel:
    """A model in eval mode, with its `classes`, `activation` and `input`.

    `path`: a run folder (its best.*), a .safetensors file, the .json beside it, or `hf://owner/repo/file`; with a
    `recipe` any released file, see `load_released`. A .safetensors file that we wrote is enough; where a .json of its
    name lies beside it, which people can edit, that is what counts. Raises ValueError where one is missing or damaged,
    they do not fit each other, or the weights are not finite; for a released file without a recipe it names those that
    fit. Neither is trusted: nothing larger is built than the weights that are there.
    """
    if recipe is not None:
        return load_released(path, recipe)[0].to(device).eval()
    about, weights = describe(path)
    shapes = _shapes(weights)
    try:
        architecture = about["architecture"]
        _check_options(architecture)
        # The weights come from the file: none are drawn.
        with _Bounded(2 * len(shapes) + 100):
            model = create_model(
                architecture["name"], architecture["num_classes"], device="meta", **architecture["options"]
            )
        model.describe(about)
    except Exception as error:  # options of the wrong type fail anywhere
        raise _no_description(weights, error) from None
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    if wrong := [key for key in sorted(own.keys() | shapes.keys()) if own.get(key) != shapes.get(key)]:
        shown = (f"{key} {_size(shapes.get(key))} there, {_size(own.get(key))} by its description" for key in wrong[:3])
        raise ValueError(
            f"{weights} does not fit {_source(weights)}: {'; '.join(shown)}{'; …' if len(wrong) > 3 else ''}"
        )
    state = _read_safetensors(weights)
    _check_values(state, {key for key, value in model.state_dict().items() if value.is_floating_point()}, weights)
    model.load_state_dict(state, assign=True)
    return model.to(device).eval()


class _Bounded(TorchFunctionMode):
    """Stops the construction of a network that has more tensors than a file can hold weights for."""

    MAKE = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.tensor))

    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.left = tensors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= func in self.MAKE
        if self.left < 0:
            raise ValueError("it describes a larger network than the weights are of")
        return func(*args, **(kwargs or {}))


def _check_options(value: Any) -> None:
    """Raises ValueError for what no constructor should get to see: endless lists, numbers that are none."""
    rest, seen = [value], 0
    while rest:
        value = rest.pop()
        seen += 1
        if isinstance(value, dict | list):
            rest += [*value, *value.values()] if isinstance(value, dict) else value
        if seen + len(rest) > MOST_OPTIONS:
            raise ValueError(f"more than {MOST_OPTIONS} options and entries")
        if isinstance(value, int | float) and not abs(value) <= LARGEST_OPTION:
            raise ValueError(f"an option is no number up to {LARGEST_OPTION}")
        if isinstance(value, str) and len(value) > LONGEST_NAME:
            raise ValueError(f"an option of {len(value)} letters")


def _check_values(state: Mapping[str, Tensor], floating: set[str], path: Path) -> None:
    """Raises ValueError for weights with which no network can say anything."""
    types = {state[key].dtype for key in floating}
    if any(not dtype.is_floating_point for dtype in types) or len(types) > 1:
        raise ValueError(f"{path}: weights of the types {_some(sorted(map(str, types)))}, not of one floating type")
    check_finite(state, str(path))
    if wrong := [key for key in floating if key.endswith("running_var") and (state[key] < 0).any()]:
        raise ValueError(f"{path}: {len(wrong)} variances are negative: {_some(wrong)}")


def check_finite(state: Mapping[str, Tensor], name: str) -> None:
    """Raises ValueError that names what is infinite or not a number."""
    if broken := [key for key in state if state[key].is_floating_point() and not state[key].isfinite().all()]:
        raise ValueError(f"{name}: {len(broken)} weights are not finite: {_some(broken)}")


def describes_itself(path: Path) -> bool:
    """Whether a file or folder is one of our models, and no released file or bare weights."""
    if path.is_dir() or path.suffix == ".json":
        return True
    return (
        path.suffix == ".safetensors" and path.is_file() and (_described(path).is_file() or _header(path) is not None)
    )


def describe(path: str | Path) -> tuple[dict[str, Any], Path]:
    """What a saved model says of itself, unchecked, and the file of its weights; arguments and errors as `load`."""
    path = fetch(path)
    stem = path / "best" if path.is_dir() else path.with_suffix("")
    weights = _with(stem, ".safetensors")
    if path.is_dir() or path.suffix in (".safetensors", ".json"):
        if not weights.is_file():
            raise ValueError(f"no model at {path}: {weights} is missing")
    elif not path.is_file():
        raise ValueError(f"no model at {path}: give a run folder, a .safetensors file, or a released file and --recipe")
    if path.is_file() and not describes_itself(path):
        raise needs_recipe(path)
    try:
        if not _described(weights).is_file():
            return _parsed(_header(weights) or ""), weights
        if (size := _described(weights).stat().st_size) > LONGEST_JSON:
            raise ValueError(f"{size} bytes, more than {LONGEST_JSON}")
        about = _parsed(_described(weights).read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise _no_description(weights, error) from None
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        held = _parsed(_header(weights) or "")
        if other := [part for part in MEANT if about.get(part) != held.get(part)]:
            log.warning("%s says otherwise than %s of %s, and counts", _described(weights), weights, ", ".join(other))
    return about, weights


def needs_recipe(source: str | Path) -> ValueError:
    """What is said of a released file that is given alone; raises ValueError where it cannot be read."""
    fits = what_fits(find_state_dict(read_tensors(source), str(source)))
    return ValueError(f"{source} does not say which network it is of, so that it needs its recipe: {fits}")


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > LONGEST_JSON:
        raise ValueError(f"{len(text)} letters, more than {LONGEST_JSON}")
    return dict(json.loads(text))


def _header(weights: Path) -> str | None:
    """The description in the header of a safetensors file."""
    try:
        with safe_open(weights, "pt") as file:
            return (file.metadata() or {}).get(DESCRIPTION)
    except (OSError, SafetensorError) as error:
        raise _not_safetensors(weights, error) from None


def _described(weights: Path) -> Path:
    return weights.with_suffix(".json")


def _source(weights: Path) -> Path | str:
    """Where its description stands."""
    return _described(weights) if _described(weights).is_file() else "the description in its header"


def _no_description(weights: Path, error: Exception) -> ValueError:
    source = _described(weights) if _described(weights).is_file() else f"the header of {weights}"
    return ValueError(f"{source} does not describe a model: {' '.join(str(error).split())[:200]}")


def _shapes(path: Path) -> dict[str, list[int]]:
    """Of every tensor in a safetensors file, from its header; the values are not read."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_slice(key).get_shape() for key in [*file.keys()]}
    except (OSError, SafetensorError) as error:
        raise _not_safetensors(path, error) from None


def _not_safetensors(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is not a readable safetensors file: {' '.join(str(error).split())[:120]}")


def _size(shape: Iterable[int] | None) -> str:
    return "is not" if shape is None else f"is {'×'.join(map(str, shape)) or 'a scalar'}"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return parse_safetensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise _not_safetensors(path, error) from None


def fetch(source: str | Path) -> Path:
    """The file or folder that `source` names: by its path, by a name of the table of `pretrained`, or as
    `hf://owner/repo/file`, which is downloaded, a .safetensors file with the .json of its name where there is one.
    Raises ValueError for what cannot be had."""
    if str(source) in pretrained():
        return find_pretrained(str(source))
    if not (address := re.fullmatch(r"hf:/+(.*)", str(source))):  # a Path has one slash of two
        return Path(os.path.expanduser(source))  # noqa: PTH111 - without a home too
    owner, _, rest = address[1].partition("/")
    repository, _, name = rest.partition("/")
    if not (owner and repository and name):
        raise ValueError(f"{source}: Hugging Face files are named hf://owner/repo/file")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(f"{owner}/{repository}", name))
        if path.suffix == ".safetensors":
            with contextlib.suppress(EntryNotFoundError):
                hf_hub_download(f"{owner}/{repository}", f"{name.removesuffix('.safetensors')}.json")
        return path
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"cannot download {source}: {' '.join(str(error).split())[:200]}") from None


def _with(stem: Path, suffix: str) -> Path:
    """`stem` may hold dots of its own."""
    return stem.with_name(stem.name + suffix)


def _some(keys: Any, count: int = 4) -> str:
    keys = [str(key) for key in keys]
    return ", ".join(keys[:count]) + (", …" if len(keys) > count else "")
