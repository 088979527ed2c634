"""The window on the screen, with a stand-in for tkinter: when frames are shown, how large, and what closes it."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidstill.inference import window as module
from vidstill.inference.window import Window
from vidstill.video.decode import VideoError


class Screen:
    """What tkinter, ImageTk and the clock are asked to do; time passes as somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.shown, self.keys, self.done = 100.0, list[tuple[float, tuple[int, int]]](), {}, list[str]()
        self.press: tuple[float, str] | None = None

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    def update(self) -> None:
        if self.press is not None and self.now >= self.press[0]:
            self.keys[self.press[1]](object())

    def bind(self, key: str, call: Any) -> None:
        self.keys[key] = call

    def photo(self, image: Image.Image) -> Any:
        self.paste(image)
        return self

    def paste(self, image: Image.Image) -> None:
        self.shown.append((self.now - 100, image.size))

    def winfo_screenwidth(self) -> int:
        return 1000

    def winfo_screenheight(self) -> int:
        return 500

    def protocol(self, name: str, call: Any) -> None:
        self.keys[name] = lambda event: call()

    def __getattr__(self, name: str) -> Any:
        return lambda *rest, **more: self.done.append(name)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    stand_in = Screen()
    tkinter, imagetk = ModuleType("tkinter"), ModuleType("PIL.ImageTk")
    tkinter.TclError = type("TclError", (Exception,), {})  # type: ignore[attr-defined]
    tkinter.Tk = lambda: stand_in  # type: ignore[attr-defined]
    tkinter.Label = lambda root, **more: stand_in  # type: ignore[attr-defined]
    imagetk.PhotoImage = stand_in.photo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tkinter", tkinter)
    monkeypatch.setitem(sys.modules, "PIL.ImageTk", imagetk)
    monkeypatch.setattr("PIL.ImageTk", imagetk, raising=False)
    monkeypatch.setattr(module, "time", stand_in)
    return stand_in


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def test_frames_are_shown_at_their_times(screen: Screen) -> None:
    with Window("x") as window:
        for seconds in (5.0, 5.5, 5.9):
            window.write(picture(), seconds)
        screen.now += 3  # something else took long
        window.write(picture(), 6.0)
        window.write(picture(), 9.5)
    assert [at for at, _ in screen.shown] == pytest.approx([0, 0.5, 0.9, 3.9, 4.5], abs=0.001)
    assert screen.done.count("deiconify") == 1 and screen.done[-1] == "destroy"


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(48, 64, (64, 48)), (900, 90, (45, 450)), (400, 1800, (900, 200))]
)
def test_a_frame_fits_on_the_screen(screen: Screen, height: int, width: int, expected: tuple[int, int]) -> None:
    with Window("x") as window:
        window.write(picture(height, width), 0)
    assert screen.shown == [(0, expected)]


@pytest.mark.parametrize("key", ["<Escape>", "q", "Q", "WM_DELETE_WINDOW"])
def test_a_key_closes_it_while_a_frame_waits(screen: Screen, key: str) -> None:
    screen.press = (102.0, key)
    with Window("x") as window:
        for seconds in range(10):
            window.write(picture(), float(seconds))
        assert window.closed
    assert len(screen.shown) <= 3 and screen.now < 102.1, "nothing waits for a window that is closed"


def test_without_a_screen_it_is_said_what_to_do(screen: Screen) -> None:
    tkinter: Any = sys.modules["tkinter"]

    def none() -> None:
        raise tkinter.TclError("no display name and no $DISPLAY environment variable")

    tkinter.Tk = none
    with pytest.raises(VideoError, match=r"no display name .*: write the annotated video instead \(--video out.mp4\)"):
        Window("x")


def test_without_tkinter_it_is_said_what_to_do(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(VideoError, match=r"lacks tkinter: install it \(python3-tk"):
        Window("x")
