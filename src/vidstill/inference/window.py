"""A window on the screen that plays frames, through tkinter: the OpenCV that is installed has none."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vidstill.video.decode import VideoError

MOST = 0.9  # share of the screen that a frame may take
TICK = 0.02  # seconds between two looks at the keys while a frame waits for its time


class Window:
    """Shows frames at their times until q, Esc or its button closes it: `closed`. It appears with the first frame.

    Raises VideoError where no window can be opened.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise VideoError(
                f"no window can be opened, for Python lacks {error.name or 'tkinter'}: install it (python3-tk, "
                "python3-pil.imagetk), or write the annotated video instead (--video out.mp4)"
            ) from None
        try:
            self._root: Any = tkinter.Tk()
        except tkinter.TclError as error:
            raise VideoError(
                f"no window can be opened: {error}; show needs a screen: write the annotated video instead "
                "(--video out.mp4)"
            ) from None
        self.closed = False
        self._photo: Any = None
        self._make, self._label = ImageTk.PhotoImage, tkinter.Label(self._root, borderwidth=0)
        self._began: float | None = None  # the clock at second 0
        self._root.withdraw()
        self._root.title(title)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("<Escape>", "q", "Q"):
            self._root.bind(key, self._close)

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._root.destroy()

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Show a frame (H,W,3) uint8 RGB, `seconds` after the first one is shown, or at once if that is over. Frames
        for a window that is closed are left out."""
        if self._began is None:
            self._began = time.monotonic() - seconds
        while not self.closed and (wait := self._began + seconds - time.monotonic()) > 0:
            self._root.update()
            time.sleep(min(wait, TICK))
        if not self.closed:
            self._draw(Image.fromarray(self._fitted(frame)))
            self._root.update()

    def _draw(self, image: Image.Image) -> None:
        if self._photo is None:
            self._photo = self._make(image)
            self._label.configure(image=self._photo)
            self._root.deiconify()
        else:
            self._photo.paste(image)

    def _fitted(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        room = self._root.winfo_screenheight(), self._root.winfo_screenwidth()
        scale = min(1.0, MOST * room[0] / height, MOST * room[1] / width)
        if scale == 1:
            return frame
        size = max(1, round(scale * width)), max(1, round(scale * height))
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)

    def _close(self, event: Any = None) -> None:
        self.closed = True
        self._root.withdraw()
