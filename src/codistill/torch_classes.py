"""Classes of torch that a config names, with arguments checked against their own signatures."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import torch

from codistill.config.kinds import closest, shown
from codistill.errors import InputError

PLAIN_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def find_class(module: ModuleType, base: type, name: str, setting: str) -> type:
    """Return a class of torch by its name.

    Args:
        module: Where it is.
        base: What it is one of.
        name: Its name there.
        setting: The dotted setting that names it, for the error.

    Raises:
        InputError: There is none of that name; the closest is named.
    """
    names = [
        each
        for each, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value is not base
        and not each.startswith("_")
        and each == value.__name__
    ]
    if name not in names:
        near = closest(name, names)
        meant = f"did you mean {near}?" if near else f"it has {', '.join(sorted(names))}"
        raise InputError(f"{setting}: {module.__name__} has no {name!r}; {meant}")
    found: type = vars(module)[name]
    return found


def checked_arguments(
    cls: type, arguments: Mapping[str, Any] | None, setting: str, taken: Collection[str]
) -> dict[str, Any]:
    """Return what a class is called with, or raise `InputError` where its signature does not allow it.

    Args:
        cls: A class of torch.
        arguments: By name, as YAML holds them.
        setting: The dotted setting that holds them, for the error.
        taken: Names that are filled in otherwise.
    """
    given = dict(arguments or {})
    allowed = {
        name: parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if name not in taken and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    hints = _hints(cls)
    problems = []
    for name, value in given.items():
        if name not in allowed:
            near = closest(name, allowed)
            meant = f"did you mean {near}?" if near else f"it takes {', '.join(allowed)}"
            problems.append(f"{setting}.{name} is no argument of {cls.__name__}; {meant}")
        elif not _fits(hints.get(name, Any), value):
            words = _in_words(hints[name])
            problems.append(f"{setting}.{name} must be {words} for {cls.__name__}, not {shown(value)}")
    for name, parameter in allowed.items():
        if parameter.default is parameter.empty and name not in given:
            problems.append(
                f"{setting}.{name} is needed for {cls.__name__}: {_in_words(hints.get(name, Any))}"
            )
    if problems:
        raise InputError("; ".join(problems))
    return given


def _hints(cls: type) -> dict[str, Any]:
    """Return the type hints of a constructor, or none where they cannot be resolved."""
    # Some names are imported for type checkers alone.
    names = {
        **vars(typing),
        **vars(collections.abc),
        "Tensor": torch.Tensor,
        "Optimizer": torch.optim.Optimizer,
    }
    try:
        return typing.get_type_hints(cls.__init__, localns=names)  # type: ignore[misc]
    except (NameError, TypeError):
        return {}


def _fits(hint: Any, value: Any) -> bool:
    """Say whether a plain value is of the kind that a type hint means; lists stand for tuples."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(argument, value) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return (
            isinstance(value, list)
            and len(value) == len(arguments)
            and all(_fits(kind, item) for kind, item in zip(arguments, value, strict=True))
        )
    if origin in (list, collections.abc.Iterable, collections.abc.Sequence):
        return isinstance(value, list) and all(_fits(arguments[0], item) for item in value)
    if hint is torch.Tensor:
        return isinstance(value, list) and all(_fits(float, item) for item in value)
    if hint is float:
        return type(value) in (int, float)
    return hint in PLAIN_WORDS and type(value) is hint


def _in_words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        # A rate may be a tensor of one number, which no config needs.
        parts = [part for part in arguments if part is not torch.Tensor or float not in arguments]
        return " or ".join(dict.fromkeys(_in_words(part) for part in parts))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list of {len(arguments)} values, each {_in_words(arguments[0])}"
    if origin in (list, collections.abc.Iterable, collections.abc.Sequence):
        return f"a list, each {_in_words(arguments[0])}"
    if hint is torch.Tensor:
        return "a list of numbers"
    return PLAIN_WORDS.get(hint, "what no config can hold")
