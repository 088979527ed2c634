"""The annotated video: what the model says, written on what it saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidstill.inference.predictor import Prediction, Ranked, is_live, rank
from vidstill.video.decode import VideoError, iter_frames, probe
from vidstill.video.encode import VideoWriter

INK, MUTED, ACCENT, PLATE = (255, 255, 255), (190, 196, 204), (94, 190, 255), (12, 14, 18, 190)


def annotate(
    source: str | Path,
    prediction: Prediction,
    path: str | Path,
    *,
    top_k: int = 3,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Path:
    """Write `source` again to `path` (.mp4 or .gif) with the classes, scores and time of each moment below.

    Every frame shows the window whose middle is nearest. Small videos are enlarged so that the text can be read. Raises
    VideoError for a live source, which cannot be read again.
    """
    if is_live(str(source)):
        raise VideoError(f"{source}: a live source cannot be annotated afterwards; record it to a file first")
    info = probe(source)
    scale = max(1, -(-240 // min(info.width, info.height)))
    size = (info.width * scale, info.height * scale)
    with VideoWriter(path, info.fps) as video:
        for frame in iter_frames(source):
            image = Image.fromarray(frame.pixels)
            if image.size != size:
                image = image.resize(size, Image.Resampling.BICUBIC)
            ranked = rank(prediction.at(frame.seconds).probabilities, prediction.classes, top_k)
            video.write(np.asarray(draw_label(image, ranked, frame.seconds)))
            if frame.index % 32 == 0:
                report({"what": "writing", "done": frame.index, "total": info.frames})
    report({"what": "writing", "done": info.frames, "total": info.frames})
    return Path(path)


def draw_label(image: Image.Image, ranked: Ranked, seconds: float) -> Image.Image:
    """`image` with a plate at its foot: a line and a bar for each class, the time at the right of the first."""
    width, height = image.size
    text = max(11, round(min(width, height) / 18))
    line, margin = round(text * 1.45), round(text * 0.6)
    shown = ranked[: max(1, min(len(ranked), (height // 2 - margin) // line))]
    top = height - margin - line * len(shown)
    plate = Image.new("RGBA", (width, height - top + margin // 2), PLATE)
    base = image.convert("RGBA")
    base.alpha_composite(plate, (0, height - plate.height))
    draw = ImageDraw.Draw(base)
    font = ImageFont.load_default(text)
    clock = f"{seconds:.1f} s"
    bar_left, bar_right = round(width * 0.52), width - margin - round(font.getlength("000.0 s")) - margin
    for number, (name, score) in enumerate(shown):
        y = top + number * line
        colour = INK if number == 0 else MUTED
        draw.text((margin, y), _fit(f"{score:4.0%}  {name}", font, bar_left - 2 * margin), fill=colour, font=font)
        middle, half = y + text * 0.62, max(2, text // 6)
        draw.rectangle((bar_left, middle - half, bar_right, middle + half), fill=(70, 76, 86))
        filled = bar_left + (bar_right - bar_left) * score
        draw.rectangle((bar_left, middle - half, max(filled, bar_left + 1), middle + half), fill=ACCENT if number == 0 else MUTED)
    draw.text((width - margin, top), clock, fill=MUTED, font=font, anchor="ra")
    return base.convert("RGB")


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """`text`, shortened with an ellipsis to `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
