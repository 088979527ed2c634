"""The annotated video: what the model says, in a panel below what it saw."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidstill.evaluation.metrics import per_cent
from vidstill.inference.live import is_live
from vidstill.inference.predictor import Prediction, Predictor, Ranked, Report, WindowScores, ignore
from vidstill.inference.sources import timed
from vidstill.inference.window import Window
from vidstill.video.decode import Frame, VideoError, iter_frames, probe
from vidstill.video.encode import VideoWriter
from vidstill.video.source import as_video

GROUND, TRACK, INK, MUTED, ACCENT = (17, 19, 23), (52, 57, 66), (243, 245, 247), (160, 167, 177), (86, 174, 255)
SMALLEST = 240  # short side, pixels: smaller videos are enlarged, so that text of a readable size fits
LIVE_RATE = 25  # frames per second of what is recorded from a camera, whatever its own rate
LONGEST_HOLD = 2.0  # seconds: a longer pause between two frames is cut to this, or one wild time stamp fills a disk
FONTS = ("DejaVuSans{}.ttf", "NotoSans{}.ttf", "Arial{}.ttf")  # more alphabets than the one that Pillow brings along


def annotate(
    source: str | Path,
    prediction: Prediction,
    path: str | Path | None,
    *,
    window: Window | None = None,
    seconds: float | None = None,
    fps: float | None = None,
    top_k: int = 3,
    report: Report = ignore,
) -> None:
    """Write the file `source` again to `path` (.mp4 or .gif), play it in `window`, or both, with the classes and scores
    of each moment, the time and the speed of processing.

    Scores change gradually from window to window. Small videos are enlarged; an .mp4 keeps the sound. `seconds` is how
    much of it, `fps` the rate of a frame folder. A window that is closed ends it, unless there is a file to finish.
    `report` hears of {"what", "done", "total"}. Raises VideoError where the one cannot be read, or the other written.
    """
    if is_live(str(source)):
        raise VideoError(f"{source}: a live source cannot be read again; `record` labels and writes it in one go")
    if path is not None and as_video(source).path.resolve() == Path(path).resolve():
        raise VideoError(f"{path}: would replace the video itself by its annotated copy; give another name")
    video = timed(source, fps)
    info = probe(video)
    length = min(info.seconds, math.inf if seconds is None else seconds)
    total = math.ceil(length * info.fps)
    with Outputs(path, info.fps, window, sound=source, seconds=seconds) as outputs:
        for frame in iter_frames(video):
            if (seconds is not None and frame.seconds >= seconds) or (outputs.closed and path is None):
                break
            ranked = prediction.named(prediction.at(frame.seconds), top_k)
            outputs.write(draw(frame.pixels, ranked, frame.seconds, length, top_k, prediction.speed), frame.seconds)
            if frame.index % 32 == 0:
                report({"what": "writing", "done": min(frame.index, total), "total": total})
    report({"what": "writing", "done": total, "total": total})


def record(
    predictor: Predictor,
    source: str,
    path: str | Path | None,
    *,
    screen: Window | None = None,
    seconds: float | None = None,
    window: float | None = None,
    stride: float | None = None,
    top_k: int = 3,
    report: Report = ignore,
) -> Prediction:
    """Label a camera or URL and write it to `path`, show it on `screen`, or both at the same time, each frame with the
    last complete window's scores.

    Ends after `seconds`, with the stream, with Ctrl-C or as its window on the screen is closed. It has no sound. Errors
    are those of `Predictor.predict` and `annotate`.
    """
    with Outputs(path, LIVE_RATE, screen) as outputs:

        def show(frame: Frame, scored: list[WindowScores], speed: float) -> None:
            if outputs.closed:
                raise KeyboardInterrupt
            ranked = predictor.rank(scored[-1].probabilities, top_k) if scored else []
            outputs.write(draw(frame.pixels, ranked, frame.seconds, seconds, top_k, speed), frame.seconds)

        return predictor.predict(source, window=window, stride=stride, seconds=seconds, show=show, report=report)


def draw(
    pixels: np.ndarray,
    ranked: Ranked,
    seconds: float,
    length: float | None = None,
    lines: int | None = None,
    speed: float | None = None,
) -> np.ndarray:
    """A frame uint8 (H,W,3), enlarged where it is small, with a panel below it: uint8, taller.

    The panel has room for `lines` classes, as many as are `ranked` by default: the first with a large bar and the time,
    the others smaller, and `speed`, the frames processed per second. With `length` in seconds a line at its foot shows
    how far the video is.
    """
    height, width = pixels.shape[:2]
    scale = max(1, -(-SMALLEST // min(height, width)))
    if scale > 1:
        pixels = cv2.resize(pixels, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC)
    share = min(1.0, seconds / length) if length else 0.0
    lines = len(ranked) if lines is None else lines
    panel = _panel(pixels.shape[1], pixels.shape[0], ranked, seconds, share, lines, speed)
    return np.concatenate([pixels, panel])


def _panel(
    width: int, height: int, ranked: Ranked, seconds: float, share: float, lines: int, speed: float | None
) -> np.ndarray:
    large = round(max(16, min(height / 20, width / 18)))
    small = round(max(12, 0.62 * large))
    margin, thick, step = round(0.7 * large), max(4, round(0.3 * large)), round(1.55 * small)
    rest = 1.45 * large + thick  # from the first line to where the smaller ones begin
    panel = round(2 * margin + rest + step * max(1, lines - 1)) + thick // 2
    image = Image.new("RGB", (width, panel), GROUND)
    pen = ImageDraw.Draw(image)
    right = width - margin
    name, score = ranked[0] if ranked else ("…", 0.0)
    shown = per_cent(score, 0) if ranked else ""
    left_of_score = write_text(pen, (right, margin), shown, large, INK, bold=True, ends=True)
    write_text(pen, (margin, margin), name, large, INK, bold=True, room=left_of_score - 2 * margin)
    y = margin + 1.4 * large
    _bar(pen, margin, right, y, thick, score, ACCENT)
    y += thick + 0.6 * margin
    notes = [clock(seconds)]
    if speed:  # below the time, where there is a line for it
        said = f"{'processing speed' if width >= 320 else 'speed'} {speed:.0f} fps"
        notes = [*notes, said] if lines > 2 else [f"{notes[0]}  {said}"]
    lefts = [write_text(pen, (right, y + n * step), note, small, MUTED, ends=True) for n, note in enumerate(notes)]
    column = margin + font(small, False).getlength("100%")
    end = min(lefts) - 1.5 * margin
    bars = end - 0.22 * width if width >= 480 else end  # a narrow panel leaves the room to the names
    for name, score in ranked[1:]:
        write_text(pen, (column, y), per_cent(score, 0), small, MUTED, ends=True)
        write_text(
            pen, (column + margin, y), name, small, MUTED, room=bars - column - (2 if bars < end else 1) * margin
        )
        if bars < end:
            _bar(pen, bars, end, y + 0.42 * small, max(3, thick // 2), score, MUTED)
        y += step
    pen.rectangle((0, panel - thick // 2, width, panel), fill=TRACK)
    if share > 0:
        pen.rectangle((0, panel - thick // 2, share * width, panel), fill=ACCENT)
    return np.asarray(image)


def clock(seconds: float) -> str:
    """Minutes and seconds: 5:03.2."""
    tenths = int(10 * seconds + 1e-6)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def _bar(
    pen: ImageDraw.ImageDraw, left: float, right: float, top: float, thick: int, share: float, colour: Any
) -> None:
    pen.rounded_rectangle((left, top, right, top + thick), thick / 2, TRACK)
    if share * (right - left) >= thick:  # a shorter one would not be round, and that of no score is none
        pen.rounded_rectangle((left, top, left + share * (right - left), top + thick), thick / 2, colour)


def write_text(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: Any, *,
    bold: bool = False, room: float = math.inf, ends: bool = False,
) -> float:  # fmt: skip
    """Write `text` from `at`, or so that it `ends` there; what exceeds its `room` is cut. Returns its left."""
    letters = font(size, bold)
    if letters.getlength(text) > room:
        while text and letters.getlength(f"{text}…") > room:
            text = text[:-1]
        text = f"{text.rstrip()}…"
    left = at[0] - letters.getlength(text) if ends else at[0]
    pen.text((left, at[1]), text, fill=colour, font=letters)
    return left


@lru_cache
def font(size: int, bold: bool = False) -> Any:
    """A font of that size in pixels, of this machine's where it has one of the usual."""
    for name in FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name.format(("-Bold" if "Arial" not in name else " Bold") if bold else ""), size)
    return ImageFont.load_default(size)


class Outputs:
    """Where annotated frames go: a file at `path` of `rate` frames per second, with the `sound` of a file, a window on
    the screen, or both."""

    def __init__(
        self,
        path: str | Path | None,
        rate: float,
        window: Window | None = None,
        *,
        sound: str | Path | None = None,
        seconds: float | None = None,
    ) -> None:
        self.video = None if path is None else VideoWriter(path, rate, sound=sound, sound_end=seconds)
        self.paced = None if self.video is None else _Paced(self.video, rate)
        self.window = window

    def __enter__(self) -> Outputs:
        if self.video is not None:
            self.video.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.video is not None:
            self.video.__exit__(kind, error, trace)

    @property
    def closed(self) -> bool:
        return self.window is not None and self.window.closed

    def write(self, frame: np.ndarray, seconds: float) -> None:
        if self.paced is not None:
            self.paced.write(frame, seconds)
        if self.window is not None:
            self.window.write(frame, seconds)


class _Paced:
    """Writes frames at a constant rate, repeating or dropping them to keep to their time stamps."""

    def __init__(self, video: VideoWriter, rate: float) -> None:
        self.video, self.rate = video, rate
        self.count, self.cut = 0, 0
        self.last: np.ndarray | None = None

    def write(self, frame: np.ndarray, seconds: float) -> None:
        due = round(seconds * self.rate) + 1 - self.cut - self.count
        if (surplus := due - round(LONGEST_HOLD * self.rate)) > 0:
            self.cut, due = self.cut + surplus, due - surplus
            self.video.end_sound(self.count / self.rate)  # from here on it would come too early
        for _ in range(due - 1):
            self.video.write(frame if self.last is None else self.last)
        if due > 0:
            self.video.write(frame)
        self.count, self.last = self.count + max(0, due), frame
