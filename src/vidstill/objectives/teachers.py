"""Teachers: trained models, checked against the student's data before anything is learned from them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vidstill.config import Clip, Distil
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import load, load_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    model: VideoModel
    source: str
    sha256: str  # of the weights file, first 16 digits


def load_teachers(settings: Distil, classes: Sequence[str], clip: Clip, device: torch.device) -> list[Teacher]:
    """The teachers of a run, each with its own head.

    A run folder or a saved model says which network it is, of which classes and format. Any other file needs
    `distil.teacher_model`; it is loaded strictly, takes the student's format and is believed about its classes.
    Raises ValueError where classes, their order or the head differ from the student's.
    """
    teachers = [_load_teacher(source, settings, classes, clip) for source in settings.teacher]
    for teacher in teachers:
        teacher.model.to(device).eval().requires_grad_(False)
    return teachers


def _load_teacher(source: str, settings: Distil, classes: Sequence[str], clip: Clip) -> Teacher:
    path = Path(source)
    if not path.exists() and not source.startswith("hf://"):
        raise ValueError(f"no teacher at {source}: give a run folder or a model file")
    if path.is_dir() or path.suffix in (".safetensors", ".json"):
        model = load(path)
        weights = path / "best.safetensors" if path.is_dir() else path.with_suffix(".safetensors")
    elif settings.teacher_model is None:
        raise ValueError(
            f"teacher {source}: the file does not say which network it holds; name it, e.g. "
            "--distil.teacher_model.name video_focalnet_base"
        )
    else:
        model = create_model(settings.teacher_model.name, len(classes), **settings.teacher_model.options)
        log.info("teacher %s", load_weights(model, source, head="error"))
        log.warning("teacher %s names no classes: its outputs are taken in the order of the data's", source)
        model.classes, model.input, weights = list(classes), clip.model_copy(), path
    if model.classes is None:
        raise ValueError(f"teacher {source} names no classes: save it with model.classes set")
    if list(model.classes) != list(classes):
        raise ValueError(f"teacher {source}: {class_difference(classes, model.classes)}")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "remote"
    return Teacher(model, source, digest[:16])


def class_difference(given: Sequence[str], known: Sequence[str]) -> str:
    """In words, how the classes of data and model differ."""
    missing, surplus = sorted(set(known) - set(given)), sorted(set(given) - set(known))
    if not missing and not surplus:
        place = next(i for i, (a, b) in enumerate(zip(given, known, strict=True)) if a != b)
        return (
            f"data and model have the same classes in another order ({place} is {given[place]!r} in the data, "
            f"{known[place]!r} in the model): give the model's own list with --data.classes"
        )
    return (
        f"the data has {len(given)} classes, the model {len(known)}; only in the data: {surplus[:3]}, "
        f"only in the model: {missing[:3]}"
    )
