"""Teachers: trained models, checked against the student's data before anything is learned from them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vidstill.config import Clip, Distil
from vidstill.models.registry import VideoModel, create_model
from vidstill.models.released import what_fits
from vidstill.models.weights import (
    describe,
    describes_itself,
    fetch,
    find_state_dict,
    load,
    load_released,
    load_weights,
    read_tensors,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    model: VideoModel
    source: str
    sha256: str  # of the weights file, first 16 digits


def load_teachers(settings: Distil, classes: Sequence[str], clip: Clip, device: torch.device) -> list[Teacher]:
    """The teachers of a run, each with its own head, whose outputs are brought into the order of the classes.

    A run folder or a saved model says which network it is, of which classes and format; for a released file
    `distil.teacher_recipe` says so. Without a recipe it needs `distil.teacher_model`; it is loaded strictly, takes the
    student's format and is believed about its classes. Raises ValueError where classes differ from the student's.
    """
    teachers = [_load_teacher(source, settings, classes, clip) for source in settings.teacher]
    for teacher in teachers:
        teacher.model.to(device).eval().requires_grad_(False)
    return teachers


def _load_teacher(source: str, settings: Distil, classes: Sequence[str], clip: Clip) -> Teacher:
    path = fetch(source)
    if not path.exists():
        raise ValueError(f"no teacher at {source}: give a run folder or a model file")
    weights = path
    if describes_itself(path):
        weights, model = describe(path)[1], load(path)
    elif settings.teacher_recipe is not None:
        model, report = load_released(path, settings.teacher_recipe)
        log.info("teacher %s", report)
    elif settings.teacher_model is not None:
        model = create_model(settings.teacher_model.name, len(classes), **settings.teacher_model.options)
        log.info("teacher %s", load_weights(model, path, head="error"))
        log.warning("teacher %s names no classes: its outputs are taken in the order of the data's", source)
        model.classes, model.input = list(classes), clip
    else:
        fits = what_fits(find_state_dict(read_tensors(path), source)).replace("--recipe", "--teacher-recipe")
        raise ValueError(f"teacher {source} does not say which network it is of, so that it needs its recipe: {fits}")
    if model.classes is None:
        raise ValueError(f"teacher {source} names no classes: save it with model.classes set")
    if set(model.classes) != set(classes):
        raise ValueError(f"teacher {source}: {class_difference(classes, model.classes)}")
    if model.classes != list(classes):
        _reorder(model, classes)
        log.info("teacher %s: its outputs are brought into the order of the data's classes", source)
    with weights.open("rb") as file:
        return Teacher(model, source, hashlib.file_digest(file, "sha256").hexdigest()[:16])


def _reorder(model: VideoModel, classes: Sequence[str]) -> None:
    """The classifier's outputs in the order of `classes`, which are the model's own."""
    assert model.classes is not None
    order = [model.classes.index(name) for name in classes]
    state = model.state_dict()
    model.load_state_dict({key: state[key][order] for key in model.head_keys if key in state}, strict=False)
    model.classes = list(classes)


def class_difference(given: Sequence[str], known: Sequence[str]) -> str:
    """In words, how the classes of data and model differ."""
    missing, surplus = sorted(set(known) - set(given)), sorted(set(given) - set(known))
    return (
        f"the data has {len(given)} classes, the model {len(known)}; only in the data: {surplus[:3]}, "
        f"only in the model: {missing[:3]}"
    )
