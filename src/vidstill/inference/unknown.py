"""None of these: what is said where the best score of a model is too low to mean its class."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from pathlib import Path

from vidstill.evaluation.metrics import MISSED
from vidstill.models.registry import VideoModel
from vidstill.models.weights import describe

NONE = "none of these"
KEYS = ("none_below", "none_below_videos")  # of the metrics in a model's description

log = logging.getLogger(__name__)


def lowest_score(given: float | str | None, model: object) -> float | None:
    """The score that a class needs: the number `given`, or "auto", as training fitted it and the file of `model` says.

    Raises ValueError for a number that is no score, and for "auto" where nothing was fitted.
    """
    if given is None:
        return None
    if given != "auto":
        with suppress(ValueError):
            if 0 <= float(given) <= 1:
                return float(given)
        raise ValueError(f"none below {given}: give a score between 0 and 1, or auto")
    if not isinstance(model, str | Path):
        name = model.name if isinstance(model, VideoModel) else type(model).__name__
        raise ValueError(f"none below auto: {name} is no run folder or model file, which say it: give 0.4, say")
    metrics = describe(model)[0].get("metrics")
    fitted, videos = (metrics.get(key) if isinstance(metrics, dict) else None for key in KEYS)
    if not isinstance(fitted, int | float) or not math.isfinite(fitted) or not isinstance(videos, int | float):
        raise ValueError(
            f"none below auto: {model} has no score that was fitted on validation videos, which a training with such "
            "videos does: give a number, e.g. 0.4"
        )
    log.info("%s: a best score below %.1f %%, as %.0f %% of the %d rightly labelled validation videos have it",
             NONE, 100 * fitted, 100 * MISSED, videos)  # fmt: skip
    return float(fitted)
