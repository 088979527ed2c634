"""What the command line writes: text that cannot steer a terminal, and errors in one line with their traceback kept."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# What moves the cursor, changes colours, titles or the direction of writing, or is no character at all.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str, keep: str = "") -> str:
    """`text` with control characters, but for those to `keep`, as Python writes them.

    >>> print(plain("a\\x1b[2J.mp4"))
    a\\x1b[2J.mp4
    """
    return CONTROLS.sub(lambda m: m[0] if m[0] in keep else m[0].encode("unicode_escape").decode(), text)


def say(renderable: Any) -> None:
    """A line, or a table of rich, on standard output."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    console = Console(highlight=False, markup=False)
    if isinstance(renderable, str):
        console.print(plain(renderable, keep="\n"), soft_wrap=True)
    else:
        drawn = console.render(renderable)
        console.print(Segments(Segment(plain(text, keep="\n"), style, code) for text, style, code in drawn), end="")


class Listed:
    """Short texts, as a cell of a table of rich whose lines break only between them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.cells import cell_len
        from rich.text import Text

        lines = [""]
        for text in self.texts:
            longer = f"{lines[-1]}  {text}".lstrip()
            if cell_len(longer) <= options.max_width:
                lines[-1] = longer
            else:
                lines.append(text)
        yield Text("\n".join(filter(None, lines)), overflow="fold")

    def __rich_measure__(self, console: Any, options: Any) -> Any:
        from rich.cells import cell_len
        from rich.measure import Measurement

        longest, whole = max(map(cell_len, self.texts), default=0), cell_len("  ".join(self.texts))
        return Measurement(min(longest, options.max_width), min(whole, options.max_width))


def complain(message: str) -> None:
    sys.stderr.write(f"vidstill: {plain(message)}\n")


@contextlib.contextmanager
def whole_output() -> Iterator[None]:
    """Standard output and errors that take every character, as an escape where their encoding lacks it.

    A reader that has seen enough (`| head`) ends the program silently with exit code 1, a full disk in one line.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by `>&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # a notebook's has no encoding to lack anything
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        gone = closed_streams() if isinstance(error, BrokenPipeError) else [sys.stdout]
        for stream in gone:  # so that Python, which writes what is left when it ends, can end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            complain(f"cannot write to standard output: {error.strerror}")
        raise SystemExit(1) from None


def closed_streams() -> list[Any]:
    """Which of standard output and errors nobody reads any more. Where a system cannot say it, both."""
    streams = [sys.stdout, sys.stderr]
    if not hasattr(select, "poll"):
        return streams
    closed = []
    for stream in streams:
        with contextlib.suppress(OSError):  # a notebook's has no number
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                closed.append(stream)
    return closed


class UnforeseenError(Exception):
    """Wraps an error that this package did not raise, in a run that keeps a log."""

    def __init__(self, log: Path) -> None:
        super().__init__(str(log))
        self.log = log


def foreseen(error: BaseException) -> bool:
    """Whether the error is about what a person gave, or the machine, and its message is enough.

    Such are the errors that a `raise` in this package makes, also in a loader process, and those of the operating
    system. All else may be a defect, which can only be found with the traceback.
    """
    from opcode import opmap

    if type(error).__module__.startswith("vidstill.") or (isinstance(error, OSError) and error.errno is not None):
        return True
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None or not Path(place.tb_frame.f_code.co_filename).is_relative_to(Path(__file__).parent):
        return False
    return isinstance(error, ValueError | ImportError) and (
        place.tb_frame.f_code.co_code[place.tb_lasti] == opmap["RAISE_VARARGS"]
    )


def one_line(error: BaseException) -> str:
    text = str(error).rstrip()
    if "\nOriginal Traceback" in text:  # of a loader process, as PyTorch passes it on: its last line is the message
        text = text.rpartition("\n")[2].partition(": ")[2]
    line = " ".join(text.split()) or type(error).__name__
    return line if foreseen(error) else f"{type(error).__name__}: {line[:500]}"


def keep_traceback(error: BaseException, log: Path | None) -> Path | None:
    """Where the traceback was written: the end of `log` if there is such a file, else a new one for temporary files;
    None where neither can be written to."""
    text = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        if log is not None and log.is_file():
            with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return log
    with contextlib.suppress(OSError):
        number, name = tempfile.mkstemp(prefix="vidstill-", suffix=".log")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
            file.write(text)
        return Path(name)
    return None
