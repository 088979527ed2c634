"""Maps as colours, pictures side by side with captions, and all that into a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from PIL import Image, ImageDraw

from vidstill.files import atomic
from vidstill.inference.overlay import GROUND, INK, write_text
from vidstill.video.encode import write_video

Colours = Literal["viridis", "magma"]

GAP = 4  # pixels between two pictures
LABEL = 14  # size of captions, pixels


def colour(heat: np.ndarray, colours: Colours = "viridis") -> np.ndarray:
    """(…) between 0 and 1 → RGB (…,3) between 0 and 1, in 256 steps."""
    return _table(colours)[np.minimum((heat * 256).astype(int), 255)]


def blend(frame: np.ndarray, heat: np.ndarray, colours: Colours = "viridis", alpha: float = 0.5) -> np.ndarray:
    """`frame` RGB (…,3), 0 to 1, under the colours of `heat` (…), 0 to 1, of which there is a share of `alpha`."""
    return alpha * colour(heat, colours) + (1 - alpha) * frame


@lru_cache
def _table(colours: Colours) -> np.ndarray:
    if colours not in get_args(Colours):
        raise ValueError(f"colours {colours!r}: take {' or '.join(get_args(Colours))}")
    steps = np.arange(256, dtype=np.uint8)
    table = cv2.applyColorMap(steps, getattr(cv2, f"COLORMAP_{colours.upper()}"))
    return table.reshape(256, 3)[:, ::-1] / 255


def grid(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str] = ()) -> np.ndarray:
    """Pictures uint8 (H,W,3), all of one size, in rows and columns, each row under its caption."""
    height, width = rows[0][0].shape[:2]
    room = LABEL + 2 * GAP if captions else GAP
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, len(rows) * (height + room) + GAP), GROUND)
    pen: Any = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = number * (height + room)
        if captions:
            write_text(pen, (GAP, top + GAP), captions[number], LABEL, INK, room=sheet.width - 2 * GAP)
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (GAP + column * (width + GAP), top + room))
    return np.asarray(sheet)


def write_pictures(
    path: str | Path, rows: Sequence[Sequence[np.ndarray]], fps: float, captions: Sequence[str] = ()
) -> Path:
    """Pictures uint8 (H,W,3) of one size as an .mp4 or a .gif, row after row, or as one sheet (.png) of these rows,
    each under its caption; whole or not at all."""
    path = Path(path)
    if path.suffix.lower() == ".png":
        return write_png(path, grid(rows, captions))
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
