"""Settings as text: YAML, and overrides (`--optim.lr 0.01`), which are read by the type of their field."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

DEPTH = 32  # of nested YAML; recipes have five levels


class ConfigError(ValueError):
    """A recipe or an override that cannot be used: the message is one line and says how to mend it."""


class _Loader(yaml.SafeLoader):
    """Plain YAML: numbers as in YAML 1.2 (PyYAML reads `1e-4` as a string), no aliases, which a few lines can make
    gigabytes of, nothing nested without end, and no key twice in one mapping."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line}: *{event.anchor} is an alias: write the value out")
        if self.depth == DEPTH:
            raise ValueError(f"line {line}: nested more than {DEPTH} levels deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ValueError(f"line {key.start_mark.line + 1}: {key.value} is given a second time")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> Any:
    """What the YAML says. Raises ConfigError that begins with `source`."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # from above, or of a date such as 2020-13-01
        raise ConfigError(f"{source}: {error}") from None


def put_all(values: dict[str, Any], overrides: Sequence[str], section: Any = Any) -> None:
    """Put overrides into nested settings; sections that are missing are made, list entries are numbered from 0.

    `section` is the BaseModel that the settings are of: its fields say how a value is to be read.
    """
    for key, text in split_overrides(overrides):
        kind = _kind(section, key)
        if text is None and not {bool, Any} & {*members(kind)}:
            raise ConfigError(f"--{key} needs a value: --{key} VALUE")
        _put(values, key, True if text is None else parse_value(text, f"--{key}", kind))


def split_overrides(tokens: Sequence[str]) -> list[tuple[str, str | None]]:
    """Key and text of `--a.b value` and `--a.b=value`, None for a flag without a value, and of OpenMMLab's
    `--cfg-options a.b=value c=value`."""
    pairs: list[tuple[str, str | None]] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token == "--cfg-options":
            while rest and not rest[0].startswith("--") and "=" in rest[0]:
                key, _, text = rest.pop(0).partition("=")
                pairs.append((key, text))
            continue
        if not token.startswith("--"):
            raise ConfigError(f"unexpected argument {token!r}: settings are given as --section.key value")
        key, equals, text = token[2:].partition("=")
        value = rest.pop(0) if not equals and rest and not rest[0].startswith("--") else text if equals else None
        pairs.append((key.replace("-", "_"), value))
    return pairs


def parse_value(text: str, source: str, kind: Any = Any) -> Any:
    """The value of an override for a field of type `kind`, which pydantic then checks.

    Words and paths are taken as they are, mappings are YAML, lists are written as `[1, 2]` or as OpenMMLab has them:
    `1,2`, `(1,2)`, or in quotes. Without a type the text says what it is:

    >>> parse_value("(train,1),(val,0.5)", "--workflow")
    [('train', 1), ('val', 0.5)]
    >>> parse_value("(train,1),(val,0.5)", "--name", str)
    '(train,1),(val,0.5)'
    """
    try:
        return _guess(text, source) if kind is Any else _read(text, source, kind)
    except RecursionError:
        raise ConfigError(f"{source}: {text[:20]}… is nested too deep") from None


def _read(text: str, source: str, kind: Any) -> Any:
    kinds = members(kind)
    if NoneType in kinds and text.strip().lower() in ("none", "null"):
        return None
    several = next((each for each in kinds if get_origin(each) in (list, tuple)), None)
    single = next((each for each in kinds if each not in (several, NoneType)), None)
    if several is not None and (single is None or len(_entries(text)) > 1):
        inside = get_args(several)
        return [
            parse_value(_unquoted(entry), source, inside[min(position, len(inside) - 1)])
            for position, entry in enumerate(_entries(text))
        ]
    if single in (str, Path):
        return text
    if get_origin(single) is Literal:
        return next((allowed for allowed in get_args(single) if str(allowed) == text), text)
    if get_origin(single) is dict or _is_section(single):
        return parse_yaml(text, source)
    return _scalar(_unquoted(text.strip()))


def _guess(text: str, source: str) -> Any:
    text = _unquoted(text.strip())
    parts = _split(text)
    if len(parts) > 1 and not text.startswith("{"):
        return [_guess(part, source) for part in parts]
    inside = _split(text[1:-1])
    if text[:1] + text[-1:] == "[]":
        return [_guess(part, source) for part in inside if part.strip()]
    if text[:1] + text[-1:] == "()" and len(inside) > 1:  # else a regular expression
        return tuple(_guess(part, source) for part in inside if part.strip())
    return parse_yaml(text, source) if text[:1] in ("{", "[") else _scalar(text)


def _scalar(text: str) -> Any:
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(text)
    return {"true": True, "false": False, "none": None, "null": None}.get(text.lower(), text)


def _entries(text: str) -> list[str]:
    """Of a list, with or without brackets or quotes around it."""
    text = text.strip()
    for inside in (text, _unquoted(text)):
        if len(_split(inside)) == 1 and inside[:1] + inside[-1:] in ("[]", "()"):
            text = inside[1:-1]
    return [part.strip() for part in _split(text) if part.strip()]


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        if text[0] == '"':  # as JSON has it, with \u00e9
            with contextlib.suppress(ValueError):
                return str(json.loads(text))
        return text[1:-1]
    return text


def _split(text: str) -> list[str]:
    """At the commas outside of all brackets and of quotes that begin an entry."""
    parts, depth, quote, escaped = [""], 0, "", False
    for letter in text:
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and not escaped
        elif letter in "'\"" and not parts[-1].strip():
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _kind(section: Any, key: str) -> Any:
    """The type of the field that a dotted key names, Any where none says it."""
    kind = section
    for part in key.split("."):
        kind = next((each for each in members(kind) if each is not NoneType), Any)
        if _is_section(kind):
            kind = kind.model_fields[part].annotation if part in kind.model_fields else Any
        else:
            kind = get_args(kind)[-1] if get_origin(kind) in (dict, list) else Any
    return kind


def members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one."""
    if get_origin(kind) is Annotated:
        return members(get_args(kind)[0])
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Raises ConfigError where `key` goes through a single setting, or beyond the end of a list."""
    *sections, leaf = key.split(".")
    place: Any = values
    for section in sections:
        place = place.setdefault(section, {}) if isinstance(place, dict) else _item(place, section, key)
        if not isinstance(place, dict | list):
            raise ConfigError(f"--{key}: {section} is a single setting, not a section")
    if isinstance(place, dict):
        place[leaf] = value
    else:
        _item(place, leaf, key)
        place[int(leaf)] = value


def _item(place: list[Any], number: str, key: str) -> Any:
    if not re.fullmatch("[0-9]+", number) or int(number) >= len(place):
        raise ConfigError(f"--{key}: no entry {number}, there are {len(place)}, counted from 0")
    return place[int(number)]
