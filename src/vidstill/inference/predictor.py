"""What is in a video: scores over sliding windows of files, folders, URLs and cameras."""

from __future__ import annotations

import glob
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidstill.data.rows import walk
from vidstill.data.transforms import normalise
from vidstill.inference.stream import frame_side, sliding_windows
from vidstill.models.registry import VideoModel
from vidstill.models.weights import load
from vidstill.video.decode import Frame, VideoError, iter_frames, probe

# A file up to so many times the usual length of the training videos is one window, as in a test.
WHOLE = 2.0

Ranked = list[tuple[str, float]]


@dataclass(frozen=True)
class WindowScores:
    """Probabilities (K,) of what was seen from `start` to `end`, in seconds."""

    start: float
    end: float
    probabilities: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """Scores of one source: the mean over its windows, and each window's. `fps`: frames read and scored per second."""

    source: str
    classes: list[str]
    windows: list[WindowScores]
    fps: float

    @property
    def probabilities(self) -> np.ndarray:
        return np.mean([window.probabilities for window in self.windows], axis=0)

    def top(self, k: int = 5) -> Ranked:
        """The k likeliest classes with their probabilities, best first."""
        return rank(self.probabilities, self.classes, k)

    def at(self, seconds: float) -> WindowScores:
        """The window whose middle is nearest to that time."""
        return min(self.windows, key=lambda window: abs((window.start + window.end) / 2 - seconds))

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
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [(classes[index], float(probabilities[index])) for index in best]


class Predictor:
    """A trained model that labels sources. `model`: a VideoModel, run folder or model file; `device`: a torch device,
    by default the GPU where there is one."""

    def __init__(self, model: VideoModel | str | Path, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        loaded = model if isinstance(model, VideoModel) else load(model)
        self.model = loaded.to(self.device).eval()
        self.classes = list(loaded.classes or [])
        if not self.classes:
            raise ValueError("the model has no class names: set model.classes, or load it from a run folder")

    def predict(
        self,
        source: str | Path,
        *,
        window: float | None = None,
        stride: float | None = None,
        seconds: float | None = None,
        report: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> Prediction:
        """Scores of a file, URL or camera ("camera:0") over windows of `window` seconds, `stride` seconds apart.

        By default a file about as long as the training videos is one window, scored like the single view of a test, and
        a longer source is seen through windows of their length, half overlapping. `seconds` stops a stream. Raises
        VideoError where nothing can be read.
        """
        began, count = time.perf_counter(), 0
        length, total = self._window_length(str(source), window)

        def counted(frames: Iterable[Frame]) -> Iterator[Frame]:
            nonlocal count
            for frame in frames:
                if seconds is not None and frame.seconds >= seconds:
                    return
                count += 1
                if count % 32 == 0 and total:
                    report({"what": Path(str(source)).name, "done": min(count, total), "total": total})
                yield frame

        frames = counted(iter_frames(source, short_side=frame_side(self.model.input)))
        scored = []
        try:
            for seen in sliding_windows(frames, self.model.input, length, stride or length / 2):
                scored.append(WindowScores(seen.start, seen.end, self.score(seen.clip[None])[0]))
        except KeyboardInterrupt:
            if total or not scored:  # a live source is stopped like this
                raise
        if not scored:
            raise VideoError(f"{source}: no frame within {seconds} s")
        report({"what": Path(str(source)).name, "done": total or count, "total": total or count})
        return Prediction(str(source), self.classes, scored, count / (time.perf_counter() - began))

    @torch.inference_mode()
    def score(self, clips: np.ndarray) -> np.ndarray:
        """Clips uint8 (B,T,S,S,3) → probabilities (B,K)."""
        spec = self.model.input
        batch = normalise(torch.from_numpy(clips).to(self.device), spec.mean, spec.std)
        return self.model(batch).float().softmax(-1).cpu().numpy()

    def _window_length(self, source: str, wanted: float | None) -> tuple[float, int]:
        """Seconds of a window, and the source's frames where it is a file (else 0)."""
        spec = self.model.input
        if is_live(source):
            length, whole, frames = spec.seconds or 2.0, 0.0, 0
        else:
            info = probe(source)
            dense = spec.frames * spec.interval / info.fps if spec.sampling == "dense" else None
            length, whole, frames = dense or spec.seconds or info.seconds, info.seconds, info.frames
        if wanted is not None:
            return wanted, frames
        if whole and spec.sampling == "sparse" and whole <= WHOLE * length:
            length = 2 * whole + 1  # longer than any rounding of time stamps
        return length, frames


def is_live(source: str) -> bool:
    """A camera or URL, which is read once and whose length is unknown."""
    return source.startswith(("camera:", "/dev/video")) or "://" in source


def find_sources(source: str | Path) -> list[str]:
    """The videos that a file, folder (at any depth), glob, URL or camera names. Raises VideoError for none."""
    text = str(source)
    if is_live(text) or Path(text).is_file():
        return [text]
    if Path(text).is_dir():
        found = [str(path) for path in walk(Path(text))]
    else:
        found = sorted(path for path in glob.glob(text, recursive=True) if Path(path).is_file())
    if not found:
        raise VideoError(f"{text}: no such video, and no folder or pattern that holds one")
    return found


def predict(
    model: VideoModel | str | Path,
    *sources: str | Path,
    window: float | None = None,
    stride: float | None = None,
    seconds: float | None = None,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> tuple[list[Prediction], list[VideoError]]:
    """Predictions for every video that `sources` name, and the errors of those that could not be read.

    >>> predictions, failures = vidstill.predict("runs/demo", "clips/")
    >>> predictions[0].top(1)
    [('move_left', 0.98)]
    """
    predictor = Predictor(model)
    predictions, failures = [], []
    videos = list(dict.fromkeys(itertools.chain.from_iterable(map(find_sources, sources))))
    for number, video in enumerate(videos):
        try:
            predictions.append(
                predictor.predict(video, window=window, stride=stride, seconds=seconds, report=report)
            )
        except VideoError as error:
            failures.append(error)
        if len(videos) > 1:
            report({"what": "videos", "done": number + 1, "total": len(videos)})
    return predictions, failures
