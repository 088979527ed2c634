"""Self-contained pages in the house style."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from vidstill.files import atomic

PAGE = Path(__file__).with_name("page.html")

Tile = tuple[str, str, str]  # what it is, the figure, a word about it


def write_page(path: Path, title: str, parts: Sequence[str]) -> Path:
    """A page in the house style around pieces of HTML; empty ones are left out. Raises WriteError."""
    page = Template(PAGE.read_text(encoding="utf-8"))
    with atomic(path) as file:
        text = page.substitute(title=escape(title), body="\n".join(filter(None, parts)))
        file.write(text.encode(errors="replace"))  # a path may hold bytes that are no text
    return path


def chart_style() -> str:
    """The rules for charts, for one that stands in a file of its own: literal colours, since many viewers of such files
    know no variables."""
    style = PAGE.read_text(encoding="utf-8")
    rules = style.partition("/* charts */")[2].partition("/* end of charts */")[0]
    light, dark = (
        dict(re.findall(r"(--\w+): (#\w+)", root)) for root in re.findall(r":root {(.*?)}", style, re.DOTALL)
    )

    def coloured(colours: dict[str, str]) -> str:
        return re.sub(r"var\((--\w+)\)", lambda name: colours[name[1]], rules)

    ground = "svg { font-family: system-ui, sans-serif }"
    return f"{ground}{coloured(light)}@media (prefers-color-scheme: dark) {{{coloured(dark)}}}"


def tiles(figures: Sequence[Tile]) -> str:
    """A row of figures, the first of which stands out."""
    drawn = [
        f'<div class="card{"" if number else " first"}"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<small>{escape(told)}</small></div>"
        for number, (name, value, told) in enumerate(figures)
    ]
    return f'<div class="figures">{"".join(drawn)}</div>'
