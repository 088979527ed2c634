"""Weights in and models out: released checkpoint files into a model, our own model files written and read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from vidstill.config import Clip
from vidstill.files import atomic
from vidstill.models.adapt import Report, shape_of
from vidstill.models.registry import Activation, VideoModel, create_model
from vidstill.models.unpickle import read_pickled

FORMAT = 1  # of <stem>.json
WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict", "blobs")
PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")  # left by DataParallel, DDP and torch.compile


def load_weights(
    model: VideoModel, source: str | Path | Mapping[str, Any], *, head: Literal["error", "fresh"] = "error"
) -> Report:
    """Weights of a released file, of one of ours, or of a mapping, into `model`; returns what went where.

    `source`: .pth/.pt/.th/.tar (pickles are never executed), .safetensors, a run folder, `hf://owner/repo/file`, or
    the mapping such a file holds. Wrappers (`model`, `state_dict`, `model_state`) and `module.` prefixes come off.
    A classifier of another size is an error, or with `head="fresh"` the model keeps its own. A family adapts what its
    releases need (2-D FocalNet → video). Raises ValueError that names the keys where names or shapes do not fit; the
    model's weights are then unchanged.
    """
    name = "mapping" if isinstance(source, Mapping) else str(source)
    state = find_state_dict(source if isinstance(source, Mapping) else read_tensors(source), name)
    report = Report(name)
    state = model.adapt_weights(state, head, report)
    own = model.state_dict()
    if not state.keys() & own.keys():
        raise ValueError(f"{name} holds weights of another network: {_some(state)} against {_some(own)}")
    for key in [key for key in model.head_keys if key in state and key in own]:
        if state[key].shape != own[key].shape:
            if head == "error":
                raise ValueError(
                    f"{name}: the classifier {key} is {shape_of(state[key])}, the model's {shape_of(own[key])}: "
                    'build the model with as many classes, or pass head="fresh" for a new classifier'
                )
            report.kept[key] = f"classifier of another size, {shape_of(state.pop(key))} in the file"
    if wrong := [key for key in state if key in own and state[key].shape != own[key].shape]:
        shown = "; ".join(f"{key} is {shape_of(state[key])}, the model's {shape_of(own[key])}" for key in wrong[:3])
        raise ValueError(f"{name}: {len(wrong)} weights have another shape: {shown}{'; …' if len(wrong) > 3 else ''}")
    if missing := [key for key in own if key not in state and key not in report.kept]:
        raise ValueError(f"{name} lacks {len(missing)} weights of the model: {_some(missing)}")
    if surplus := [key for key in state if key not in own]:
        raise ValueError(f"{name} has {len(surplus)} weights that the model lacks: {_some(surplus)}")
    if broken := [key for key in state if state[key].is_floating_point() and not state[key].isfinite().all()]:
        raise ValueError(f"{name}: {len(broken)} weights are not finite: {_some(broken)}")
    model.load_state_dict(state, strict=False)
    report.loaded = [key for key in state if key not in report.resized]
    return report


def read_tensors(source: str | Path) -> Any:
    """What the file holds, tensors on the CPU. See `load_weights` for the sources."""
    path = _download(str(source)) if str(source).startswith("hf://") else Path(source)
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
    tensors = {k: v for k, v in value.items() if isinstance(v, Tensor)} if isinstance(value, Mapping) else {}
    if not tensors:
        what = f"a mapping of {_some(value)}" if isinstance(value, Mapping) else f"a {type(value).__name__}"
        raise ValueError(f"{name} holds no weights: looked for tensors under {', '.join(WRAPPERS)}, found {what}")
    if all(PREFIXES.match(key) for key in tensors):
        tensors = {PREFIXES.sub("", key): value for key, value in tensors.items()}
    return tensors


def save(
    model: VideoModel,
    stem: str | Path,
    *,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write <stem>.safetensors and <stem>.json (architecture, classes, activation, input, metrics, provenance).

    Each appears whole or not at all. Raises ValueError when the disk is full or cannot be written; what was there
    before is then untouched. Returns the path of the weights.
    """
    path = Path(stem)
    about = {
        "format": FORMAT,
        "architecture": {"name": model.name, "num_classes": model.num_classes, "options": model.options},
        "classes": model.classes,
        "activation": model.activation,
        "input": model.input.model_dump(mode="json"),
        "metrics": dict(metrics or {}),
        "provenance": dict(provenance or {}),
    }
    if not model.name:
        raise ValueError(f"only a model made by create_model can be saved, this {type(model).__name__} has no name")
    if model.classes is not None and len(model.classes) != model.num_classes:
        raise ValueError(
            f"the model has {model.num_classes} outputs but {len(model.classes)} class names: set model.classes"
        )
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    weights, text = safetensors_bytes(state, {"format": "pt"}), json.dumps(about, indent=1, ensure_ascii=False)
    with atomic(_with(path, ".safetensors")) as file:
        file.write(weights)
    with atomic(_with(path, ".json")) as file:
        file.write(text.encode())
    return _with(path, ".safetensors")


def load(path: str | Path, device: str | torch.device = "cpu") -> VideoModel:
    """A saved model in eval mode, with its `classes`, `activation` and `input`.

    `path`: a run folder (its best.*), or a .safetensors or .json file beside the other. Raises ValueError where one of
    them is missing or damaged or they do not fit each other.
    """
    about, weights = describe(path)
    try:
        architecture, options = about["architecture"], about["architecture"]["options"]
        # The weights come from the file: none are drawn.
        model = create_model(architecture["name"], architecture["num_classes"], device="meta", **options)
        model.classes, model.input = about["classes"], Clip.model_validate(about["input"])
        model.activation = about.get("activation", model.activation)
        if model.activation not in get_args(Activation):
            raise ValueError(f"activation {model.activation!r}: allowed are {', '.join(get_args(Activation))}")
    except (KeyError, TypeError, ValueError) as error:
        raise _no_description(weights, error) from None
    try:
        model.load_state_dict(_read_safetensors(weights), assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{weights} does not fit {_described(weights)}: {reason}") from None
    return model.to(device).eval()


def describe(path: str | Path) -> tuple[dict[str, Any], Path]:
    """What the .json of a saved model says, unchecked, and the file of its weights; arguments and errors as `load`."""
    path = Path(path)
    stem = path / "best" if path.is_dir() else path.with_suffix("")
    if not path.is_dir() and path.suffix not in (".safetensors", ".json"):
        raise ValueError(
            f"{path} is not a saved model: give a run folder or a .safetensors file; "
            "released files are read by load_weights"
        )
    weights = _with(stem, ".safetensors")
    for part in (_described(weights), weights):
        if not part.is_file():
            raise ValueError(f"no model at {path}: {part} is missing")
    try:
        return dict(json.loads(_described(weights).read_text(encoding="utf-8"))), weights
    except (TypeError, ValueError) as error:
        raise _no_description(weights, error) from None


def _described(weights: Path) -> Path:
    return weights.with_suffix(".json")


def _no_description(weights: Path, error: Exception) -> ValueError:
    return ValueError(f"{_described(weights)} does not describe a model: {' '.join(str(error).split())[:200]}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return parse_safetensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {' '.join(str(error).split())[:120]}") from None


def _download(address: str) -> Path:
    owner, _, rest = address.removeprefix("hf://").partition("/")
    repository, _, name = rest.partition("/")
    if not (owner and repository and name):
        raise ValueError(f"{address}: Hugging Face files are named hf://owner/repo/file")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(f"{owner}/{repository}", name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"cannot download {address}: {' '.join(str(error).split())[:200]}") from None


def _with(stem: Path, suffix: str) -> Path:
    """`stem` may hold dots of its own."""
    return stem.with_name(stem.name + suffix)


def _some(keys: Any, count: int = 4) -> str:
    keys = [str(key) for key in keys]
    return ", ".join(keys[:count]) + (", …" if len(keys) > count else "")
