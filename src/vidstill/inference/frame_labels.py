"""A label for every frame of a long video, from windows counted in frames (OpenMMLab's long-video demo)."""

from __future__ import annotations

import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidstill.data.views import Views, frame_side, kept
from vidstill.evaluation.engine import video_scores
from vidstill.files import atomic
from vidstill.inference.live import is_live
from vidstill.inference.overlay import Outputs, draw
from vidstill.inference.predictor import Predictor, Ranked, Report, ignore, rank
from vidstill.video.decode import Frame, VideoError, iter_frames, probe

log = logging.getLogger(__name__)

PREPARING = "Preparing action recognition ..."
SHOWN = 5  # labels of a frame, at most
_END = object()


def frame_windows(
    frames: Iterable[Any | None], length: int, *, step: int = 1, stride: float = 0.0, rng: np.random.RandomState
) -> Iterator[tuple[int, Any | None, list[Any] | None]]:
    """(number from 1, frame, window of `length` frames to score or None) for every frame that is readable, not None.

    The first window is full at the `length`-th of them. Then of each `step` frames one, drawn by `rng`, joins it and
    the oldest leaves. With `stride` a scored window loses that share of its oldest frames and is scored again once it
    is full; without it is scored at every frame. Raises ValueError for a length, step or stride that cannot be.
    """
    if length < 1 or step < 1 or not 0 <= stride <= 1:
        raise ValueError(f"windows of {length} frames, step {step}, stride {stride}: take 1 or more, and 0 to 1")
    buffer: deque[Any] = deque(maxlen=length)
    waiting: list[Any] = []
    started = False
    for number, (frame, following) in enumerate(_with_next(frames), 1):
        if frame is None:
            continue
        waiting.append(frame)
        if not started and len(waiting) == length:
            buffer.extend(waiting)
            waiting, started = [], True
        elif started and (len(waiting) == step or following is _END):
            buffer.append(waiting[rng.randint(len(waiting))])
            waiting = []
        full = len(buffer) == length
        yield number, frame, list(buffer) if full else None
        if full:
            for _ in range(int(length * stride)):
                buffer.popleft()


def label_frames(
    windows: Iterable[tuple[int, Any, list[Any] | None]],
    score: Callable[[list[Any]], np.ndarray],
    classes: list[str],
    threshold: float = 0.01,
) -> Iterator[tuple[int, Any, Ranked | None]]:
    """(number, frame, classes with their probabilities, best first) of each frame; None before the first window.

    At most five, and none from the first below `threshold` on; they hold until the next window. `score` gives the
    probabilities (K,) of a window's frames.
    """
    shown: Ranked | None = None
    for number, frame, window in windows:
        if window is not None:
            best = rank(score(window), classes, SHOWN)
            shown = list(itertools.takewhile(lambda named: named[1] >= threshold, best))
        yield number, frame, shown


def describe(ranked: Ranked | None) -> str | dict[int, str]:
    """What the JSON file says of a frame: {1: "label: 0.53", …}, or that nothing is known yet."""
    if ranked is None:
        return PREPARING
    return {place: f"{name}: {round(score, 2)}" for place, (name, score) in enumerate(ranked, 1)}


def write_frame_labels(
    predictor: Predictor,
    source: str | Path,
    path: str | Path,
    *,
    clips: int = 1,
    step: int = 1,
    stride: float = 0.0,
    threshold: float = 0.01,
    seed: int = 0,
    report: Report = ignore,
) -> Path:
    """Label every frame of the video `source`: a .json of numbers from 1, or the video again as an .mp4 or .gif.

    A window holds as many frames as `clips` clips of the model, next to each other; until the first is full no frame
    has a label. An .mp4 keeps the sound. Errors are those of `frame_windows`, and VideoError where the one cannot be
    read or the other not written.
    """
    if is_live(str(source)):
        raise VideoError(f"{source}: is live, and its frames are not counted: frames of a file are labelled")
    path, engine, info = Path(path), predictor.engine, probe(source)
    if path.resolve() == Path(source).resolve():
        raise VideoError(f"{path}: would replace the video itself; give another name")
    if path.suffix.lower() not in (".json", ".mp4", ".gif"):
        raise ValueError(f"{path}: labels of frames are written as .json, .mp4 or .gif")
    spec, side = engine.input, frame_side(engine.input)
    places = np.arange(clips * spec.frames).reshape(clips, spec.frames)

    def score(window: list[tuple[Frame, np.ndarray]]) -> np.ndarray:
        frames = torch.from_numpy(np.stack([small for _, small in window]))
        size = window[0][0].pixels.shape
        views = Views(frames, places.reshape(-1), places, (size[0], size[1]), spec, 1, side)
        return video_scores(engine, [views])[0].cpu().numpy()

    frames = ((frame, kept(frame.pixels, spec, side)) for frame in iter_frames(source))
    windows = frame_windows(frames, clips * spec.frames, step=step, stride=stride, rng=np.random.RandomState(seed))
    labelled = label_frames(windows, score, predictor.classes, threshold)
    said: dict[int, Any] = {}

    with Outputs(None if path.suffix.lower() == ".json" else path, info.fps, sound=source) as film:
        for number, (frame, _), ranked in labelled:
            said[number] = describe(ranked)
            if film.video is not None:
                film.write(draw(frame.pixels, ranked or [], frame.seconds, info.seconds, SHOWN), frame.seconds)
            report({"what": "labelling", "done": number, "total": max(number, info.frames)})
    if len(said) < clips * spec.frames:
        log.warning("%s: has %d frames, a window %d: none has a label", source, len(said), clips * spec.frames)
    if film.video is not None:
        return path
    with atomic(path) as file:
        file.write(json.dumps(said, ensure_ascii=False).encode())
    return path


def _with_next(frames: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Every frame with the one after it, the last with an end mark."""
    one, other = itertools.tee(frames)
    next(other, None)
    return zip(one, itertools.chain(other, [_END]), strict=False)
