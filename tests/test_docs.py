"""Every command that the documents show is one that the command line takes."""

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from vidstill import cli
from vidstill.config import recipe_names, resolve

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
LINE = re.compile(r"^(?:\w+=\S+ )?(vidstill [a-z].*)$", re.M)
INLINE = re.compile(r"`(vidstill [a-z][^`]*)`")
VARIABLE = re.compile(r'^(\w+)="([^"]*)"', re.M)


def shown() -> list[Any]:
    commands = []
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = "\n".join(FENCED.findall(text))
        for name, value in VARIABLE.findall(blocks):
            blocks = blocks.replace(f"${name}", value)
        for command in [*LINE.findall(blocks), *INLINE.findall(FENCED.sub("", text))]:
            command = command.partition("  #")[0].strip()
            commands.append(pytest.param(command, id=f"{path.stem}: {command}"))
    return commands


@pytest.mark.parametrize("command", shown())
def test_commands(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, verb, *arguments = (word for word in shlex.split(command) if word != "…")
    assert verb in cli.VERBS, verb
    taken: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    real = cli.VERBS[verb]

    @functools.wraps(real)
    def instead(*positional: Any, **named: Any) -> None:
        taken.append((positional, named))

    monkeypatch.setitem(cli.VERBS, verb, instead)
    if arguments or verb in ("demo", "models", "recipes", "bench"):  # a verb alone is but named
        cli.main(arguments=[verb, *arguments])
        ((positional, named),) = taken
        if recipe := named.get("recipe") or (positional[:1] or [None])[0] if "settings" in named else None:
            resolve(recipe if recipe in recipe_names() else None, named["settings"])
