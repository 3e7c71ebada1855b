"""Which settings there are, what each admits, and how to say so."""

import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints


def setting_types(section: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the type of every setting of a section and those within it."""
    for name, kind in get_type_hints(section).items():
        if is_dataclass(kind):
            yield from setting_types(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def allowed_values(kind: Any) -> str:
    """Say in words what values a type admits."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if kind in words:
        return words[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is dict:
        return "settings with plain values, such as {name: 0.1}"
    if origin is Literal:
        return f"one of {', '.join(str(argument) for argument in arguments)}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(allowed_values(argument) for argument in arguments)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)} values"
        return f"a list{count}, each {allowed_values(arguments[0])}"
    return str(kind)


def admits(kind: Any, value: Any) -> bool:
    """Say whether a value is of a setting's type; whole numbers count as numbers."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (types.UnionType, typing.Union):
        return any(admits(argument, value) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, tuple) or (arguments[-1] is not Ellipsis and len(value) != len(arguments)):
            return False
        return all(admits(arguments[0], item) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            isinstance(key, str) and _is_plain(item) for key, item in value.items()
        )
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _is_plain(value: Any) -> bool:
    """Say whether a value is a finite number, text, true, false, null, or a list of these."""
    if isinstance(value, list | tuple):
        return all(_is_plain(item) and not isinstance(item, list | tuple) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if type(value) is int:
        return abs(value) < 2**63
    return value is None or isinstance(value, bool | str)


def mapping_settings(section: type) -> tuple[str, ...]:
    """Return the dotted names of the settings that hold settings of another library, by its own names."""
    return tuple(
        name
        for name, kind in setting_types(section)
        if dict in (get_origin(kind), *(get_origin(part) for part in get_args(kind)))
    )


def admits_null(kind: Any) -> bool:
    """Say whether a setting of this type may be null."""
    return type(None) in get_args(kind)


def closest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the name that somebody most probably meant, whatever its capitals; `None`: none is close."""
    folded: dict[str, str] = {}
    for each in names:
        folded.setdefault(each.casefold(), each)
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[near[0]] if near else None


def shown(value: Any) -> str:
    """Return a value as an error message quotes it."""
    if value is None:
        return "null"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # A whole number of more than 4,300 digits, say.
        return "so large a value"
    return text if len(text) <= 200 else f"{text[:199]}…"
