"""Maps as colours, pictures side by side with captions, and all that into a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from PIL import Image, ImageDraw

from vidstill.files import atomic
from vidstill.inference.overlay import GROUND, INK, MUTED, font, write_text
from vidstill.video.encode import write_video

Colours = Literal[
    "viridis", "autumn", "bone", "cividis", "cool", "deepgreen", "hot", "hsv", "inferno", "jet", "magma", "ocean",
    "parula", "pink", "plasma", "rainbow", "spring", "summer", "turbo", "twilight", "twilight_shifted", "winter",
]  # fmt: skip

GAP = 4  # pixels between two pictures
LABEL = 14  # size of captions, pixels
BAR = 14  # height of the scale of colours
LABELLED_WIDTH = 80  # pixels of a picture with a label, at least
LEAST_WIDTH = 480  # of a sheet with a title


class Scale(NamedTuple):
    """The colours of a sheet and what their ends mean."""

    least: str
    greatest: str
    colours: Colours = "viridis"


def colour(heat: np.ndarray, colours: Colours = "viridis") -> np.ndarray:
    """(…) between 0 and 1 → RGB (…,3) between 0 and 1, in 256 steps."""
    return _table(colours)[np.minimum((heat * 256).astype(int), 255)]


def blend(frame: np.ndarray, heat: np.ndarray, colours: Colours = "viridis", alpha: float = 0.5) -> np.ndarray:
    """`frame` RGB (…,3), 0 to 1, under the colours of `heat` (…), 0 to 1, of which there is a share of `alpha`."""
    return alpha * colour(heat, colours) + (1 - alpha) * frame


@lru_cache
def _table(colours: Colours) -> np.ndarray:
    if colours not in get_args(Colours):
        raise ValueError(f"colours {colours!r}: take one of OpenCV's colour maps: {', '.join(get_args(Colours))}")
    steps = np.arange(256, dtype=np.uint8)
    table = cv2.applyColorMap(steps, getattr(cv2, f"COLORMAP_{colours.upper()}"))
    return table.reshape(256, 3)[:, ::-1] / 255


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str] = (),
    *,
    title: Sequence[str] = (),
    labels: Sequence[Sequence[str]] = (),
    scale: Scale | None = None,
) -> np.ndarray:
    """Pictures uint8 (H,W,3), all of one size, in rows and columns, each row under its caption and each picture above
    its label; over all of them the lines of `title`, below them the colours from the least to the greatest."""
    if labels and (times := -(-LABELLED_WIDTH // rows[0][0].shape[1])) > 1:  # room for what stands below
        rows = [
            [cv2.resize(each, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC) for each in row] for row in rows
        ]
    height, width = rows[0][0].shape[:2]
    above, below = (LABEL + 2 * GAP if captions else GAP), (LABEL + GAP if labels else 0)
    columns = max(len(row) for row in rows)
    head = GAP + sum(size + 2 * GAP for size in _sizes(title)) if title else 0
    foot = BAR + 3 * GAP if scale else 0
    step = height + above + below
    least = max([LEAST_WIDTH] * bool(title) + [columns * (width + GAP) + GAP])
    sheet = Image.new("RGB", (least, head + len(rows) * step + GAP + foot), GROUND)
    pen: Any = ImageDraw.Draw(sheet)
    top = GAP
    for line, size in zip(title, _sizes(title), strict=True):
        write_text(pen, (GAP, top), line, size, INK, bold=size > LABEL, room=sheet.width - 2 * GAP)
        top += size + 2 * GAP
    for number, row in enumerate(rows):
        top = head + number * step
        if captions:
            write_text(pen, (GAP, top + GAP), captions[number], LABEL, MUTED, room=sheet.width - 2 * GAP)
        for column, picture in enumerate(row):
            left = GAP + column * (width + GAP)
            sheet.paste(Image.fromarray(picture), (left, top + above))
            if labels and column < len(labels[number]):
                write_text(pen, (left, top + above + height), labels[number][column], LABEL, MUTED, room=width)
    if scale is not None:
        _draw_scale(sheet, pen, sheet.height - foot, scale)
    return np.asarray(sheet)


def _sizes(title: Sequence[str]) -> list[int]:
    return [round(1.4 * LABEL), *[LABEL] * (len(title) - 1)][: len(title)]


def _draw_scale(sheet: Image.Image, pen: Any, top: int, scale: Scale) -> None:
    shades = (colour(np.linspace(0, 1, 160), scale.colours) * 255).astype(np.uint8)
    bar = Image.fromarray(np.broadcast_to(shades, (BAR, 160, 3)).copy())
    left = 2 * GAP + round(font(LABEL).getlength(scale.least))
    write_text(pen, (GAP, top), scale.least, LABEL, MUTED)
    sheet.paste(bar, (left, top + GAP // 2))
    write_text(pen, (left + 160 + GAP, top), scale.greatest, LABEL, MUTED)


def write_pictures(
    path: str | Path,
    rows: Sequence[Sequence[np.ndarray]],
    fps: float,
    captions: Sequence[str] = (),
    **about: Any,
) -> Path:
    """Pictures uint8 (H,W,3) of one size as an .mp4 or a .gif, row after row, or as one sheet (.png) of these rows,
    each under its caption, with what else `grid` takes; whole or not at all."""
    path = Path(path)
    if path.suffix.lower() == ".png":
        return write_png(path, grid(rows, captions, **about))
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise ValueError(f"{path}: pictures are written as .mp4, .gif or .png, not {path.suffix or 'without a suffix'}")
    write_video(path, [picture for row in rows for picture in row], fps)
    return path


def write_png(path: Path, picture: np.ndarray) -> Path:
    coded = BytesIO()
    Image.fromarray(picture).save(coded, "png")
    with atomic(path) as file:
        file.write(coded.getvalue())
    return path
