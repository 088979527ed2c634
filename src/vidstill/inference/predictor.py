"""What is in a video: scores over sliding windows of files, folders, URLs, cameras and arrays."""

from __future__ import annotations

import itertools
import logging
import math
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vidstill.data.sampling import Timing, clip_length
from vidstill.data.views import Views, frame_side, kept, views_of
from vidstill.evaluation.engine import DTYPES, Engine, TorchEngine, fused_scores, video_scores
from vidstill.evaluation.metrics import per_cent
from vidstill.inference.sources import Source, Stream, all_sources, open_stream
from vidstill.inference.stream import sliding_windows
from vidstill.inference.unknown import NONE, lowest_score
from vidstill.models.registry import VideoModel
from vidstill.models.weights import load
from vidstill.video.decode import Frame, VideoError

log = logging.getLogger(__name__)

# A file up to so many times the usual length of the training videos is one window, as in a test.
WHOLE = 2.0
# Length of the training videos where the model does not say: that of a Kinetics video.
USUAL_SECONDS = 10.0

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
    """Scores of one source: the mean over its windows, and each window's. `speed` is that of the processing: frames
    read and scored per second. Whose best class scores less than `none_below` is none of these."""

    source: str
    classes: list[str]
    windows: list[WindowScores]
    speed: float
    none_below: float | None = None

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.mean([window.probabilities for window in self.windows], axis=0)

    def top(self, k: int = 5) -> Ranked:
        """The k likeliest classes with their probabilities, best first."""
        return rank(self.probabilities, self.classes, k)

    @property
    def label(self) -> str:
        """The likeliest class, or that it is none of these."""
        return self.named(self.probabilities, 1)[0][0]

    def named(self, probabilities: np.ndarray, k: int) -> Ranked:
        """As `rank`; where no class scores enough, `NONE` comes before them, with nan for its score."""
        return rank(probabilities, self.classes, k, self.none_below)

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

    def to_dict(self, k: int | None = None) -> dict[str, Any]:
        """For JSON: source, label, the scores of all classes or the k likeliest, best first, the same of each window,
        the score that a class needed, and how many frames per second were processed."""

        def ranked(scores: np.ndarray) -> list[dict[str, Any]]:
            best = rank(scores, self.classes, len(self.classes) if k is None else k)
            return [{"class": name, "score": round(score, 6)} for name, score in best]

        def labelled(scores: np.ndarray) -> dict[str, Any]:
            return {"label": self.named(scores, 1)[0][0], "top": ranked(scores)}

        windows = [
            {"start": round(w.start, 3), "end": round(w.end, 3), **labelled(w.probabilities)} for w in self.windows
        ]
        return {
            "source": self.source, **labelled(self.probabilities), "windows": windows, "none_below": self.none_below,
            "processing_speed": round(self.speed, 2),
        }  # fmt: skip


def rank(probabilities: np.ndarray, classes: list[str], k: int, none_below: float | None = None) -> Ranked:
    """The k likeliest classes with their probabilities, best first; of equal ones the first. Where the best is below
    `none_below`, `NONE` comes first, with nan, and then one less of them."""
    best = np.argsort(-probabilities, kind="stable")[:k]
    ranked = [(classes[index], float(probabilities[index])) for index in best]
    if none_below is not None and ranked and ranked[0][1] < none_below:
        return [(NONE, math.nan), *ranked[: k - 1]]
    return ranked


@dataclass(frozen=True)
class SeenWindow:
    """What the model sees from `start` to `end`, in seconds: the views, and the times (V,T) of their frames."""

    start: float
    end: float
    views: Views
    seconds: np.ndarray


class Predictor:
    """A trained model that labels sources.

    `model` is a run folder or a model file (a released one with its `recipe`), which is prepared for inference, a
    VideoModel, which is used as it is, or another `Engine`. `device` is a torch device, by default the GPU where there
    is one. What no class scores `none_below` in is labelled `NONE`; "auto" is the score that training fitted (see
    `lowest_score`). Raises ValueError for a model without class names, and for a device or precision that this machine
    does not have.
    """

    def __init__(
        self,
        model: VideoModel | Engine | str | Path,
        device: str | torch.device | None = None,
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        recipe: str | Path | None = None,
        none_below: float | str | None = None,
    ) -> None:
        self.none_below = lowest_score(none_below, model)
        if isinstance(model, VideoModel | str | Path):
            self.engine: Engine = _torch_engine(model, device, precision, recipe)
        else:
            self.engine = model
        if not self.engine.classes:
            raise ValueError(
                "the model has no class names: set model.classes, or name them in the recipe of a released file, "
                "--data.classes kinetics400"
            )
        self.classes = list(self.engine.classes)

    def predict(
        self,
        source: Source,
        *,
        window: float | None = None,
        stride: float | None = None,
        crops: Literal[1, 3] = 1,
        seconds: float | None = None,
        fps: float | None = None,
        show: Show | None = None,
        report: Report = ignore,
    ) -> Prediction:
        """Scores of a file, URL, camera ("camera:0") or array uint8 (T,H,W,3) of `fps` frames per second, over windows
        of `window` seconds, `stride` seconds apart.

        By default a file up to twice as long as the training videos is one window, scored like the single view of a
        test, and anything longer is seen through windows of their length; a model whose clips are stretches of a video
        has windows as long as a clip. The stride is half a window. `seconds` stops a stream, as Ctrl-C does. A camera
        or broadcast never waits for the scores: windows that a later one has overtaken, and frames that would be seen
        too late, are left out. `show` gets every frame in its full size, the scores before it and the speed of
        processing so far, in frames per second. `report` hears of {"what", "done", "total", "detail"}. Raises
        VideoError where nothing can be read, ValueError for a stride that leaves frames out.
        """
        began = time.perf_counter()
        stream = self.open(source, crops=crops, fps=fps, whole_frames=show is not None)
        end = min(stream.length, math.inf if seconds is None else seconds)
        scored: list[WindowScores] = []
        count = 0

        def watched() -> Iterator[Frame]:
            nonlocal count
            for frame in stream.frames:
                if seconds is not None and frame.seconds >= seconds:
                    return
                count += 1
                if show is not None:
                    show(frame, scored, count / (time.perf_counter() - began))
                yield frame

        try:
            windows = self.windows(replace(stream, frames=watched()), window=window, stride=stride, crops=crops)
            for scores in self.scores(windows, waits=stream.length < math.inf):
                scored.append(scores)
                label, score = self.rank(scores.probabilities, 1)[0]
                total = end if end < math.inf else scores.end + 1
                detail = f"{Path(stream.name).name}  {scores.end:.1f} s  {label} {per_cent(score, 0)}"
                report({"what": "labelling", "done": min(scores.end, total), "total": total, "detail": detail})
        except KeyboardInterrupt:
            if stream.length < math.inf or not scored:  # a live source is stopped like this
                raise
        finally:
            if stream.live is not None:
                stream.live.close()
                if stream.live.dropped:
                    log.warning("%s: %d frames were left out to keep up with it", stream.name, stream.live.dropped)
        if not scored:
            raise VideoError(f"{stream.name}: no frame within {seconds} s")
        report({"what": "labelling", "done": 1, "total": 1})
        speed = count / (time.perf_counter() - began)
        return Prediction(stream.name, self.classes, scored, speed, self.none_below)

    def rank(self, probabilities: np.ndarray, k: int) -> Ranked:
        """The k likeliest classes, or that it is none of these and the likeliest."""
        return rank(probabilities, self.classes, k, self.none_below)

    def open(
        self, source: Source, *, crops: Literal[1, 3] = 1, fps: float | None = None, whole_frames: bool = False
    ) -> Stream:
        """The stream of a source, its frames resized as they are decoded where `windows` would do so anyway."""
        spec = self.engine.input
        resized = spec.views == "opencv" and not whole_frames
        short_side = frame_side(spec, crops) if resized else None
        return open_stream(source, fps=fps, short_side=short_side, measure=not spec.spans)

    def windows(
        self, stream: Stream, *, window: float | None = None, stride: float | None = None, crops: Literal[1, 3] = 1
    ) -> Iterator[SeenWindow]:
        """What the model sees of a stream, window by window, each sampled and cropped as a test would a video of just
        these frames, with as many clips as fit. Frames are buffered as `kept`, no more than a window of them."""
        spec = self.engine.input
        side = frame_side(spec, crops)
        window = self._window(stream.timing, stream.length) if window is None else window
        size: tuple[int, int] = (0, 0)

        def buffered() -> Iterator[Frame]:
            nonlocal size
            for frame in stream.frames:
                size = frame.pixels.shape[0], frame.pixels.shape[1]
                yield replace(frame, pixels=kept(frame.pixels, spec, side))

        newest = None if stream.live is None else stream.live.newest
        for seen in sliding_windows(buffered(), window, window / 2 if stride is None else stride, newest):
            views = views_of([frame.pixels for frame in seen.frames], size, spec, stream.timing, crops)
            times = np.array([frame.seconds for frame in seen.frames])
            found = SeenWindow(seen.start, seen.end, views, times[views.shown()])
            del seen  # while the next frames come, the buffer alone holds them
            yield found

    def scores(self, windows: Iterable[SeenWindow], *, waits: bool = True) -> Iterator[WindowScores]:
        """The scores of each window. Those of a source that `waits` are computed several at a time, others as soon as
        they are complete."""
        for count, alike in itertools.groupby(windows, key=lambda window: len(window.views)):
            together = max(1, self.engine.at_once // count) if waits else 1
            while batch := list(itertools.islice(alike, together)):
                found = video_scores(self.engine, [seen.views for seen in batch]).cpu().numpy()
                for seen, scores in zip(batch, found, strict=True):
                    yield WindowScores(seen.start, seen.end, scores)

    def score(self, views: np.ndarray) -> np.ndarray:
        """Views uint8 (N,V,T,S,S,3) → probabilities (N,K), the mean over the views."""
        logits = self.engine.logits(torch.from_numpy(views).to(self.engine.device))
        return fused_scores(logits, self.engine.activation).cpu().numpy()

    def _window(self, timing: Timing, length: float) -> float:
        """Seconds of a window where nobody says."""
        spec = self.engine.input
        if not spec.spans:
            return clip_length(spec, timing) / timing.fps
        usual = spec.seconds or USUAL_SECONDS
        return math.inf if length <= WHOLE * usual else usual


def _torch_engine(
    model: VideoModel | str | Path, device: str | torch.device | None, precision: str, recipe: str | Path | None
) -> TorchEngine:
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if precision not in ("fp32", *DTYPES):
        raise ValueError(f"precision {precision!r}: take fp32, bf16 or fp16")
    if precision == "fp16" and place.type == "cpu":
        raise ValueError("precision fp16 needs a GPU: on a CPU take bf16 or fp32")
    loaded = model if isinstance(model, VideoModel) else load(model, recipe=recipe)
    try:
        loaded = loaded.to(place).eval()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(f"device {place} cannot be used: {str(error).splitlines()[0]}") from None
    if loaded is not model:
        loaded.optimise_for_inference(bf16=precision == "bf16")
        if place.type == "cpu" or next(loaded.parameters()).dtype == torch.bfloat16:
            precision = "fp32"  # what is to be in bfloat16 is packed so
    return TorchEngine(loaded, precision=precision, measured=True)


def predict(
    model: VideoModel | Engine | str | Path,
    *sources: Source | Sequence[Source],
    recipe: str | Path | None = None,
    window: float | None = None,
    stride: float | None = None,
    crops: Literal[1, 3] = 1,
    seconds: float | None = None,
    fps: float | None = None,
    device: str | torch.device | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    none_below: float | str | None = None,
    report: Report = ignore,
) -> tuple[list[Prediction], list[VideoError]]:
    """Predictions for every video that `sources` name, alone or in lists, and the errors of those that could not be
    read or found. Arrays uint8 (T,H,W,3) are sources too, with their `fps`.

    Other arguments are those of `Predictor` and `Predictor.predict`.

    >>> predictions, failures = vidstill.predict("runs/demo", "clips/")
    >>> predictions[0].top(1)
    [('move_left', 0.98)]
    """
    videos, failures = all_sources(sources)
    predictor = Predictor(model, device, precision, recipe, none_below)
    predictions = []
    for number, video in enumerate(videos, 1):
        name = "array" if isinstance(video, np.ndarray) else Path(video).name
        try:
            predictions.append(
                predictor.predict(
                    video, window=window, stride=stride, crops=crops, seconds=seconds, fps=fps,
                    report=report if len(videos) == 1 else ignore,
                )
            )  # fmt: skip
        except VideoError as error:
            failures.append(error)
        if len(videos) > 1:
            report({"what": "labelling", "done": number, "total": len(videos), "detail": name})
    return predictions, failures
