"""What is in a video: scores over sliding windows of files, folders, URLs and cameras."""

from __future__ import annotations

import contextlib
import glob
import itertools
import logging
import math
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vidstill.data.rows import walk
from vidstill.evaluation.views import VIEWS_AT_ONCE, score_views
from vidstill.inference.live import Live, is_live, never_waits
from vidstill.inference.stream import clip_frames, frame_side, sliding_windows
from vidstill.models.registry import VideoModel
from vidstill.models.weights import load
from vidstill.video.decode import Frame, VideoError, iter_frames, probe

log = logging.getLogger(__name__)

# A file up to so many times the usual length of the training videos is one window, as in a test.
WHOLE = 2.0
# Length of the training videos where the model does not say: that of a Kinetics video.
USUAL_SECONDS = 10.0
# A stream's frame rate is measured over so many frames.
MEASURED = 10

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

Ranked = list[tuple[str, float]]
Report = Callable[[dict[str, Any]], None]


def ignore(event: dict[str, Any]) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class WindowScores:
    """Probabilities (K,) of what was seen from `start` to `end`, in seconds."""

    start: float
    end: float
    probabilities: np.ndarray


Show = Callable[[Frame, list[WindowScores], float], None]


@dataclass(frozen=True)
class Prediction:
    """Scores of one source: the mean over its windows, and each window's. `fps`: frames read and scored per second."""

    source: str
    classes: list[str]
    windows: list[WindowScores]
    fps: float

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.mean([window.probabilities for window in self.windows], axis=0)

    def top(self, k: int = 5) -> Ranked:
        """The k likeliest classes with their probabilities, best first."""
        return rank(self.probabilities, self.classes, k)

    def at(self, seconds: float) -> np.ndarray:
        """Probabilities (K,) at that time, linear between the middles of the windows and held beyond the outer ones."""
        after = bisect(self._middles, seconds)
        if after in (0, len(self.windows)):
            return self.windows[min(after, len(self.windows) - 1)].probabilities
        left, right = self._middles[after - 1 : after + 1]
        share = (seconds - left) / (right - left)
        before, behind = (window.probabilities for window in self.windows[after - 1 : after + 1])
        return (1 - share) * before + share * behind

    @cached_property
    def _middles(self) -> list[float]:
        return [(window.start + window.end) / 2 for window in self.windows]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """For JSON: source, top-k, windows with their top-k, and the measured rate."""

        def ranked(scores: np.ndarray) -> list[dict[str, Any]]:
            return [{"class": name, "score": round(score, 6)} for name, score in rank(scores, self.classes, k)]

        windows = [
            {"start": round(w.start, 3), "end": round(w.end, 3), "top": ranked(w.probabilities)} for w in self.windows
        ]
        return {
            "source": self.source, "top": ranked(self.probabilities), "windows": windows, "fps": round(self.fps, 2)
        }  # fmt: skip


def rank(probabilities: np.ndarray, classes: list[str], k: int) -> Ranked:
    """The k likeliest classes with their probabilities, best first; of equal ones the first."""
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [(classes[index], float(probabilities[index])) for index in best]


class Predictor:
    """A trained model that labels sources.

    `model` is a run folder or a model file, which is prepared for inference, or a VideoModel, which is used as it is.
    `device` is a torch device, by default the GPU where there is one. Raises ValueError for a model without class
    names, and for a device or precision that this machine does not have.
    """

    def __init__(
        self,
        model: VideoModel | str | Path,
        device: str | torch.device | None = None,
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if precision not in ("fp32", *DTYPES):
            raise ValueError(f"precision {precision!r}: take fp32, bf16 or fp16")
        if precision == "fp16" and self.device.type == "cpu":
            raise ValueError("precision fp16 needs a GPU: on a CPU take bf16 or fp32")
        loaded = model if isinstance(model, VideoModel) else load(model)
        if not loaded.classes:
            raise ValueError(
                "the model has no class names: load it from a run folder, or set model.classes, for released weights "
                'e.g. to vidstill.labels.class_names("kinetics400")'
            )
        self.classes = list(loaded.classes)
        try:
            self.model = loaded.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise ValueError(f"device {self.device} cannot be used: {str(error).splitlines()[0]}") from None
        self.autocast: torch.dtype | None = DTYPES.get(precision)
        if loaded is not model:
            self.model.optimise_for_inference(bf16=precision == "bf16")
            if self.device.type == "cpu" or next(self.model.parameters()).dtype == torch.bfloat16:
                self.autocast = None

    def predict(
        self,
        source: str | Path,
        *,
        window: float | None = None,
        stride: float | None = None,
        crops: Literal[1, 3] = 1,
        seconds: float | None = None,
        show: Show | None = None,
        report: Report = ignore,
    ) -> Prediction:
        """Scores of a file, URL or camera ("camera:0") over windows of `window` seconds, `stride` seconds apart.

        By default a file up to twice as long as the training videos is one window, scored like the single view of a
        test; anything longer is seen through windows of their length, and a dense model sees its own clips. The stride
        is half a window. `seconds` stops a stream, as Ctrl-C does. A camera or broadcast never waits for the scores:
        windows that a later one has overtaken, and frames that would be seen too late, are left out. `show` gets every
        frame in its full size, the scores before it and the frames per second so far. `report` hears of {"what",
        "done", "total", "detail"}. Raises VideoError where nothing can be read, ValueError for a stride that leaves
        frames out.
        """
        name, live = str(source), is_live(str(source))
        length = math.inf if live else probe(source).seconds
        end = min(length, math.inf if seconds is None else seconds)
        side = frame_side(self.model.input, crops)
        scored: list[WindowScores] = []
        count, began = 0, time.perf_counter()
        frames = iter_frames(source, short_side=side if show is None else None)
        fresh = Live(frames) if never_waits(name) else None
        newest = None if fresh is None else fresh.newest

        def watched() -> Iterator[Frame]:
            nonlocal count
            for frame in fresh or frames:
                if seconds is not None and frame.seconds >= seconds:
                    return
                count += 1
                if show is not None:
                    show(frame, scored, count / (time.perf_counter() - began))
                    frame = frame.resized(side)
                yield frame

        try:
            scan = self.scan(watched(), window=window, stride=stride, crops=crops, length=length, newest=newest)
            for scores in scan:
                scored.append(scores)
                label, score = rank(scores.probabilities, self.classes, 1)[0]
                total = end if end < math.inf else scores.end + 1
                detail = f"{Path(name).name}  {scores.end:.1f} s  {label} {score:.0%}"
                report({"what": "labelling", "done": min(scores.end, total), "total": total, "detail": detail})
        except KeyboardInterrupt:
            if not live or not scored:  # a live source is stopped like this
                raise
        finally:
            if fresh is not None:
                fresh.close()
                if fresh.dropped:
                    log.warning("%s: %d frames were left out to keep up with it", name, fresh.dropped)
        if not scored:
            raise VideoError(f"{source}: no frame within {seconds} s")
        report({"what": "labelling", "done": 1, "total": 1})
        return Prediction(name, self.classes, scored, count / (time.perf_counter() - began))

    def scan(
        self,
        frames: Iterable[Frame],
        *,
        window: float | None = None,
        stride: float | None = None,
        crops: Literal[1, 3] = 1,
        length: float = math.inf,
        newest: Callable[[], float] | None = None,
    ) -> Iterator[WindowScores]:
        """Score any stream of frames, their short side at `frame_side(model.input, crops)`, window by window.

        `length` is that of the stream in seconds where it is known: the windows of a file are scored several at a time,
        those of a stream without end as soon as they are complete. `newest`: see `sliding_windows`.
        """
        if window is None:
            window, frames = self._window(iter(frames), length)
        stride = window / 2 if stride is None else stride
        windows = sliding_windows(frames, self.model.input, window, stride, crops, newest)
        for shape, alike in itertools.groupby(windows, key=lambda window: window.views.shape):
            together = 1 if length == math.inf else max(1, VIEWS_AT_ONCE // shape[0])
            while batch := list(itertools.islice(alike, together)):
                for seen, scores in zip(batch, self.score(np.stack([seen.views for seen in batch])), strict=True):
                    yield WindowScores(seen.start, seen.end, scores)

    def score(self, views: np.ndarray) -> np.ndarray:
        """Views uint8 (N,V,T,S,S,3) → probabilities (N,K), the mean over the views."""
        with torch.autocast(self.device.type, self.autocast) if self.autocast else contextlib.nullcontext():
            return score_views(self.model, torch.from_numpy(views).to(self.device)).cpu().numpy()

    def _window(self, frames: Iterator[Frame], length: float) -> tuple[float, Iterator[Frame]]:
        """Seconds of a window, and the frames again: a dense model's needs their rate, measured on the first ones."""
        spec = self.model.input
        if not spec.spans:
            first = list(itertools.islice(frames, MEASURED))
            passed = first[-1].seconds - first[0].seconds if first else 0.0
            rate = (len(first) - 1) / passed if passed > 0 else 25.0
            return clip_frames(spec) / rate, itertools.chain(first, frames)
        usual = spec.seconds or USUAL_SECONDS
        return (math.inf if length <= WHOLE * usual else usual), frames


def find_sources(source: str | Path) -> list[str]:
    """The videos that a file, folder (at any depth), glob, URL or camera names. Raises VideoError for none."""
    text = str(source)
    if is_live(text) or Path(text).is_file():
        return [text]
    if Path(text).is_dir():
        found = [str(path) for path in walk(Path(text))]
    else:
        matching = glob.glob(text, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        found = sorted(path for path in matching if Path(path).is_file())
    if not found:
        raise VideoError(f"{text}: no such video, and no folder or pattern that holds one")
    return found


def predict(
    model: VideoModel | str | Path,
    *sources: str | Path,
    window: float | None = None,
    stride: float | None = None,
    crops: Literal[1, 3] = 1,
    seconds: float | None = None,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    report: Report = ignore,
) -> tuple[list[Prediction], list[VideoError]]:
    """Predictions for every video that `sources` name, and the errors of those that could not be read.

    Arguments are those of `Predictor` and `Predictor.predict`. Raises VideoError for a source that names nothing.

    >>> predictions, failures = vidstill.predict("runs/demo", "clips/")
    >>> predictions[0].top(1)
    [('move_left', 0.98)]
    """
    videos = list(dict.fromkeys(itertools.chain.from_iterable(map(find_sources, sources))))
    predictor = Predictor(model, device, precision)
    predictions, failures = [], []
    for number, video in enumerate(videos, 1):
        try:
            predictions.append(
                predictor.predict(
                    video, window=window, stride=stride, crops=crops, seconds=seconds,
                    report=report if len(videos) == 1 else ignore,
                )
            )  # fmt: skip
        except VideoError as error:
            failures.append(error)
        if len(videos) > 1:
            report({"what": "labelling", "done": number, "total": len(videos), "detail": Path(video).name})
    return predictions, failures
