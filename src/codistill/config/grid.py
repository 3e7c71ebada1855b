"""Several values for one setting: every combination of them."""

import itertools
from collections.abc import Sequence

from codistill.errors import InputError


def combinations(options: Sequence[tuple[str, str]]) -> list[tuple[dict[str, str], list[tuple[str, str]]]]:
    """Return for each run of a grid what distinguishes it, and all its options with one value each.

    A value such as `0,1,2` stands for three runs; a list in brackets is one value, `[0.3,0.6],[0.5]` two.
    The last option changes fastest.
    """
    values = [split_values(name, value) for name, value in options]
    varying = [name for (name, _), choices in zip(options, values, strict=True) if len(choices) > 1]
    runs = []
    for chosen in itertools.product(*values):
        settings = [(name, value) for (name, _), value in zip(options, chosen, strict=True)]
        runs.append(({name: value for name, value in settings if name in varying}, settings))
    return runs


def split_values(name: str, text: str) -> list[str]:
    """Split a value at its commas, except those in brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise InputError(f"--{name}: {text!r} holds an empty value")
    return [part.strip() for part in parts] if len(parts) > 1 else parts
