"""Every setting of a run as a table: default, meaning, allowed values. `vidstill settings` prints it."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator
from json import dumps
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from vidstill.config import ConfigError, Run
from vidstill.overrides import members
from vidstill.reporting.tables import Table, text

MEANING = "meaning [allowed]"


def tables(pattern: str = "*") -> dict[str, Table]:
    """Settings whose dotted name matches a shell pattern, or holds a word, by what their section is about.

    Raises ConfigError where none does.
    """
    rows = list(_rows(Run, Run()))
    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found: dict[str, Table] = {}
    for name, default, meaning in rows:
        if fnmatch.fnmatchcase(name, wanted):
            table = found.setdefault(_about(name), {"setting": [], "default": [], MEANING: []})
            for column, cell in zip(table.values(), (name, default, meaning), strict=True):
                column.append(text(cell))
    if not found:
        near = difflib.get_close_matches(pattern, [name for name, *_ in rows], 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f'no setting matches {pattern!r}{hint}: give a part of a name, or a pattern such as "clip.*"')
    return found


def _about(name: str) -> str:
    """The section of a setting, with what its class says of itself."""
    section, dot, _ = name.partition(".")
    if not dot:
        return "the run itself"
    kind: Any = Run.model_fields[section].annotation
    return f"{section}: {(kind.__doc__ or '').partition('. ')[0].partition(chr(10))[0].rstrip('.')}"


def _rows(section: type[BaseModel], usual: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of every setting of a section and of those in it."""
    for name, field in section.model_fields.items():
        value = getattr(usual, name)
        if isinstance(value, BaseModel):
            yield from _rows(type(value), value, f"{prefix}{name}.")
        else:
            allowed = _allowed(field.annotation, field.metadata)
            yield prefix + name, _written(value), f"{field.description}{allowed and f' [{allowed}]'}"


def _allowed(kind: Any, bounds: list[Any]) -> str:
    """Choices and ranges in words, where there are such; `bounds` are those of pydantic's `Field`."""
    kinds = members(kind)
    told = list(filter(None, (_kind(each, _range(bounds)) for each in kinds if each is not NoneType)))
    return " or ".join([*told, *(["null"] if NoneType in kinds and told else [])])


def _kind(kind: Any, limits: str) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} numbers"
    if kind in (int, float):
        return limits or "a number"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"{{{', '.join(kind.model_fields)}}}"
    return ""


def _range(bounds: list[Any]) -> str:
    """
    >>> from annotated_types import Ge, Gt, Le, Lt
    >>> [_range(b) for b in ([Ge(1)], [Gt(0)], [Ge(0), Le(1)], [Ge(0), Lt(1)], [])]
    ['1 or more', 'more than 0', '0 … 1', '0 or more, less than 1', '']
    """
    at = {name: getattr(bound, name) for bound in bounds for name in ("ge", "gt", "le", "lt") if hasattr(bound, name)}
    if at.keys() == {"ge", "le"}:
        return f"{at['ge']:g} … {at['le']:g}"
    words = {"ge": "{:g} or more", "gt": "more than {:g}", "le": "at most {:g}", "lt": "less than {:g}"}
    return ", ".join(words[name].format(value) for name, value in at.items())


def _written(value: Any) -> str:
    """As the command line and YAML take it."""
    if isinstance(value, Path | str):
        return str(value)
    if isinstance(value, tuple):
        value = [round(each, 3) for each in value]
    return dumps(value)
