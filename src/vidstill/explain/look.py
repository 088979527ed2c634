"""What is explained: the window of a video that `predict` scores highest, or all of it, and what the model says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vidstill.config import Clip
from vidstill.data.transforms import normalise
from vidstill.data.views import read_views
from vidstill.evaluation.engine import TorchEngine
from vidstill.evaluation.metrics import per_cent
from vidstill.inference.live import is_live
from vidstill.inference.overlay import clock
from vidstill.inference.predictor import Predictor, Ranked, SeenWindow, rank
from vidstill.models.registry import VideoModel
from vidstill.video.decode import probe


@dataclass(frozen=True)
class Look:
    """A window of the video `source`, from `start` to `end` of its `length` seconds, as the model sees it: `views` in
    grey levels (V,T,S,S,3), normalised as `clips` (V,3,T,S,S), its frames shown at `seconds` (V,T). `scores` (K,) are
    the window's, `target` is the class to explain."""

    source: str
    start: float
    end: float
    length: float
    views: Tensor
    clips: Tensor
    seconds: np.ndarray
    scores: np.ndarray
    names: list[str]
    target: int

    @property
    def pictures(self) -> np.ndarray:
        """The views as uint8."""
        return self.views.round().clamp(0, 255).to(torch.uint8).cpu().numpy()

    @property
    def ranked(self) -> Ranked:
        """The explained class first, then the likeliest others, three in all."""
        best = [pair for pair in rank(self.scores, self.names, 3) if pair[0] != self.names[self.target]]
        return [(self.names[self.target], float(self.scores[self.target])), *best[:2]]

    def title(self, what: str) -> list[str]:
        """Of a sheet: what it shows, class and score, then source and times."""
        (name, score), *others = self.ranked
        further = ", ".join(f"{other} {per_cent(share)}" for other, share in others)
        times = f"{clock(self.start)} to {clock(self.end)} of {clock(self.length)}"
        return [f"{what}: {name} {per_cent(score)}", f"{Path(self.source).name}  {times}  (next: {further})"]


def look_at(
    model: VideoModel,
    source: str | Path,
    *,
    target: int | None = None,
    clips: int | None = None,
    crops: Literal[1, 3] = 1,
) -> Look:
    """The window of the file `source` in which `target` scores highest, by default the class that `predict` gives the
    whole, cut and sampled as `predict` does it. With `clips` the whole file at once, as a test of so many clips does.

    Without, the file is read twice, so that no more than a window of it is in memory. Raises VideoError for a file that
    cannot be read, ValueError for another source, no clips and a class that is not there.
    """
    if is_live(str(source)):
        raise ValueError(f"{source}: what is explained is read twice, which only files can be: record it first")
    if clips is not None and clips < 1:
        raise ValueError(f"{clips} clips: take 1 or more")
    names = model.classes or [str(number) for number in range(model.num_classes)]
    if target is not None and not 0 <= target < len(names):
        raise ValueError(f"no class {target}: the model has {len(names)}, counted from 0")
    training, engine = model.training, TorchEngine(model.eval())
    engine.classes = names
    predictor = Predictor(engine)
    if clips is None:
        windows = predictor.windows(predictor.open(source, crops=crops), crops=crops)
        scores = [window.probabilities for window in predictor.scores(windows)]
        chosen = int(np.mean(scores, axis=0).argmax()) if target is None else target
        best = int(np.argmax([window[chosen] for window in scores]))
        stream = predictor.open(source, crops=crops)
        seen = next(itertools.islice(predictor.windows(stream, crops=crops), best, None))
    else:
        stream = predictor.open(source, crops=crops)
        seen = _whole(source, model.input, clips, crops)
        scores, best = [window.probabilities for window in predictor.scores([seen])], 0
        chosen = int(scores[best].argmax()) if target is None else target
    model.train(training)
    views = seen.views.to(next(model.parameters()).device).pixels()
    normalised = normalise(views, model.input.mean, model.input.std)
    return Look(
        str(source), seen.start, seen.end, stream.length, views, normalised, seen.seconds, scores[best], names, chosen
    )


def _whole(source: str | Path, spec: Clip, clips: int, crops: Literal[1, 3]) -> SeenWindow:
    """A file as a test sees it, its frames at the times of a constant rate."""
    info, views = probe(source), read_views(source, spec, clips, crops)
    return SeenWindow(0.0, info.seconds, views, views.shown() / info.fps)
