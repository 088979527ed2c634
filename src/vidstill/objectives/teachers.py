"""Teachers: trained models, checked against the student's data before anything is learned from them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vidstill.config import Clip, Distil
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.weights import describe, fetch, load, load_weights

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
    path = fetch(source)
    if not path.exists():
        raise ValueError(f"no teacher at {source}: give a run folder or a model file")
    described = path.suffix in (".safetensors", ".json") and path.with_suffix(".json").exists()
    if path.is_dir() or described:
        weights, model = describe(path)[1], load(path)
    elif settings.teacher_model is None:
        raise ValueError(
            f"teacher {source}: the file does not say which network it holds; name it, e.g. "
            "--distil.teacher_model.name video_focalnet_base"
        )
    else:
        weights, model = path, create_model(settings.teacher_model.name, len(classes), **settings.teacher_model.options)
        log.info("teacher %s", load_weights(model, path, head="error"))
        log.warning("teacher %s names no classes: its outputs are taken in the order of the data's", source)
        model.classes, model.input = list(classes), clip
    if model.classes is None:
        raise ValueError(f"teacher {source} names no classes: save it with model.classes set")
    if list(model.classes) != list(classes):
        raise ValueError(f"teacher {source}: {class_difference(classes, model.classes)}")
    with weights.open("rb") as file:
        return Teacher(model, source, hashlib.file_digest(file, "sha256").hexdigest()[:16])


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
