"""The checkpoint of a run: everything that an interrupted run needs to go on exactly, written atomically."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from vidstill.config import ConfigError, Run, parse_yaml, validate
from vidstill.files import BusyError, WriteError, atomic, locked

CHECKPOINT = "last.pt"
# Settings that change how fast a run goes, not what it computes: they may differ when it is resumed.
FREE = ("train.workers", "train.start", "train.save_every", "out")


class TrainingError(ValueError):
    """A run that cannot start or go on; the message says what is safe on disk and how to continue."""


@contextlib.contextmanager
def open_folder(run: Run, wait: float = 10.0) -> Iterator[Path]:
    """The run's folder, made or taken up again, and held against a second process.

    Raises TrainingError where another process still trains in it after `wait` seconds, or where a run with other
    settings has begun to train.
    """
    folder = run.folder
    busy = f"another process trains in {folder}: wait for it or choose another --name"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder, wait, busy))
        except OSError as error:
            raise TrainingError(f"cannot use {folder} as run folder: {error.strerror}") from None
        except (BusyError, WriteError) as error:
            raise TrainingError(str(error)) from None
        config = folder / "config.yaml"
        if config.exists() and has_checkpoint(folder):
            _refuse_other_settings(run, parse_yaml(config.read_text(encoding="utf-8"), str(config)), folder)
        with atomic(config) as file:
            file.write(run.to_yaml().encode())
        yield folder


def _refuse_other_settings(run: Run, before: dict[str, Any], folder: Path) -> None:
    with contextlib.suppress(ConfigError):  # under the names and in the forms of today
        before = validate(before, str(folder)).model_dump(mode="json")
    old, new, usual = (_flat(values) for values in (before, run.model_dump(mode="json"), Run().model_dump(mode="json")))
    old["data.root"], new["data.root"] = (str(Path(each["data.root"]).absolute()) for each in (old, new))
    pairs = {key: (old.get(key, usual.get(key)), new.get(key)) for key in {**new, **old} if key not in FREE}
    different = [key for key, (was, given) in pairs.items() if was != given]
    if different == ["train.epochs"] and new["train.epochs"] > old["train.epochs"]:
        raise TrainingError(_way_on(folder, old["train.epochs"], new["train.epochs"], run.name))
    changed = [f"{key} {pairs[key][0]!r} → {pairs[key][1]!r}" for key in different]
    if changed:
        shown = ", ".join(changed[:3])
        raise TrainingError(
            f"{folder} holds a run with other settings ({shown}{', …' if len(changed) > 3 else ''}): "
            "choose another --name or delete that folder"
        )


def _way_on(folder: Path, before: int, epochs: int, name: str) -> str:
    """For who wants a run to be longer than it was planned."""
    told = f"{folder} is a run of {before} epochs, and its rates were planned for as many; add to the command"
    other = f"--name {name}-{epochs}"
    if not (folder / "best.safetensors").exists():
        return f"{told} {other} to train {epochs} from the start"
    best = f"{other} --model.weights {shlex.quote(str(folder))}"
    return f"{told} {best} to train its best model for {epochs} more, or {other} alone to train {epochs} from the start"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and key != "options"
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


_WHOLE = StateDictOptions(full_state_dict=True)  # on every rank: validation needs the weights everywhere


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Whole (unsharded) weights and optimiser state by parameter name. Every rank must call it."""
    weights, moments = get_state_dict(model, optimiser, options=_WHOLE)
    return {"model": weights, "optimiser": moments}


def restore(model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    set_state_dict(
        model,
        optimiser,
        model_state_dict=state["model"],
        optim_state_dict=state["optimiser"],
        options=_WHOLE,
    )


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    with atomic(folder / CHECKPOINT) as file:
        torch.save(state, file)


def has_checkpoint(folder: Path) -> bool:
    return (folder / CHECKPOINT).exists()


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state that `write_checkpoint` left, or None in a fresh folder."""
    if not has_checkpoint(folder):
        return None
    path = folder / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{path} cannot be read ({reason}): delete it to start over") from error
    return state
