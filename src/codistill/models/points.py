"""Where a network of any kind is cut: the modules of its stem, and those that end its three blocks.

Both are found by watching one forward pass. The stem is a chain of modules, each of which takes what the one
before gives, so that it can be run alone.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.models.architecture import BLOCKS
from codistill.models.narrow import classifiers

LARGEST_STEM = 3
"""Layers with weights up to which a network's first part is its stem as a whole."""

WEIGHTED = (nn.Conv2d, nn.Conv1d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Points:
    """Where a network is cut.

    Args:
        stem: The modules that make the stem, in the order in which they run.
        blocks: The modules that end the three blocks.
    """

    stem: tuple[str, ...]
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One call of a module in a forward pass."""

    name: str
    input: Tensor | None
    output: Tensor | None


def find_points(
    model: nn.Module,
    example: Tensor,
    *,
    stem_end: str | None = None,
    blocks: Sequence[str] | None = None,
) -> Points:
    """Return where to cut a network, as far as it is not said.

    The stem is the first layer with weights and what follows it without any: normalisation, activation,
    pooling. The blocks are thirds of the layers behind it, counted in the largest modules of which there
    are three.

    Args:
        model: Images → logits [B, K].
        example: Images [B, C, H, W] that it takes.
        stem_end: The module that ends the stem.
        blocks: The modules that end the three blocks.

    Raises:
        InputError: A module is not there, or the network cannot be cut there or by these rules.
    """
    with _watched(model) as calls, torch.no_grad():
        logits = model.eval()(example)
    names = [call.name for call in calls]
    for role, wanted in (("stem_end", [stem_end] if stem_end else []), ("blocks", blocks or ())):
        for name in wanted:
            if name not in names:
                raise InputError(f"model.{role} {name!r} {_where(model, name)}")
    stem = _chain(calls, example, stem_end) if stem_end else _first_layer(model, calls, example)
    for name in stem:
        if names.count(name) > 1:
            raise InputError(f"{name!r} runs more than once, so it cannot be part of the stem")
    if blocks:
        positions = [names.index(name) for name in (stem[-1], *blocks)]
        if positions != sorted(set(positions)):
            raise InputError(
                f"model.blocks {', '.join(map(repr, blocks))} must be three modules behind the stem's end,"
                f" {stem[-1]!r}, in the order in which they run"
            )
    return Points(stem, tuple(blocks) if blocks else _thirds(model, calls, stem, logits))


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[Call]]:
    """Note every call of a module, in the order in which they end."""
    calls: list[Call] = []

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            first = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
            calls.append(Call(name, first, output if isinstance(output, Tensor) else None))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _where(model: nn.Module, name: str) -> str:
    """Say why a module is not among those that ran."""
    if name in dict(model.named_modules()):
        return "does not run when images are classified"
    children = ", ".join(child for child, _ in model.named_children())
    return f"is no module of {type(model).__name__}, whose parts are {children}"


def count_weights(module: nn.Module) -> int:
    """Count the layers with weights."""
    return sum(isinstance(part, WEIGHTED) for part in module.modules())


def _units(calls: Sequence[Call], of: str = "") -> list[Call]:
    """Return the calls directly below a module: of its children, or of theirs where a child does not run."""
    inside = [call for call in calls if not of or call.name.startswith(f"{of}.")]
    names = {call.name for call in inside}

    def runs_by_itself(name: str) -> bool:
        while (name := name.rpartition(".")[0]) and name != of:
            if name in names:
                return False
        return True

    return [call for call in inside if runs_by_itself(call.name)]


def _chain(calls: Sequence[Call], image: Tensor, end: str) -> tuple[str, ...]:
    """Return the modules that lead from the image to the end of the stem, each fed by the one before."""
    position = next(index for index, call in enumerate(calls) if call.name == end)
    chain = [calls[position]]
    while chain[0].input is not image:
        # The last to end is the outermost; an activation in place gives the tensor that it takes.
        before = [
            index
            for index, call in enumerate(calls[:position])
            if call.output is chain[0].input and not call.name.startswith(f"{chain[0].name}.")
        ]
        if chain[0].input is None or not before:
            raise InputError(
                f"the stem cannot end at {end!r}: what {chain[0].name!r} takes is no module's output; name an"
                " earlier model.stem_end, or put the stem into one nn.Sequential"
            )
        position = before[-1]
        chain.insert(0, calls[position])
    return tuple(call.name for call in chain)


def _first_layer(model: nn.Module, calls: Sequence[Call], image: Tensor) -> tuple[str, ...]:
    """Return the chain from the image through the first layer with weights and those behind without."""
    modules = dict(model.named_modules())
    chain: list[str] = []
    tensor: Tensor | None = image
    units = _units(calls)
    while units:
        call = units.pop(0)
        weights = count_weights(modules[call.name])
        if call.input is not tensor or call.output is None or (weights and any(chain)):
            break
        inner = _units(calls, call.name)
        if weights > LARGEST_STEM and inner:  # A part of the network, whose own first layer is meant.
            units = [*inner, *units]
            continue
        if weights or chain:
            chain.append(call.name)
            tensor = call.output
        else:
            break
    if not chain:
        raise InputError(
            f"the stem of {type(model).__name__} is not found: no layer takes the image as it is; name its"
            " last module as model.stem_end"
        )
    return tuple(chain)


def _thirds(model: nn.Module, calls: Sequence[Call], stem: Sequence[str], logits: Tensor) -> tuple[str, ...]:
    """Return the modules that end three parts of about equal depth, from the stem to the head."""
    modules = dict(model.named_modules())
    behind = next(index for index, call in enumerate(calls) if call.name == stem[-1]) + 1

    heads = classifiers(model, logits)

    def is_in_body(call: Call) -> bool:
        return (
            bool(count_weights(modules[call.name]))
            and call.output is not None
            and call.output.ndim >= 3
            and call not in calls[:behind]
            and not any(part in heads for part in modules[call.name].modules())
            and not any(name.startswith(f"{call.name}.") for name in stem)
        )

    opened: set[str] = {call.name for call in _units(calls)}
    while True:
        units = [call for call in calls if call.name in opened and is_in_body(call)]
        if len(units) >= BLOCKS:
            count = len(units)
            return tuple(units[-(-count * part // BLOCKS) - 1].name for part in range(1, BLOCKS + 1))
        closed = [name for name in opened if _units(calls, name)]
        if not closed:
            raise InputError(
                f"{type(model).__name__} has only {len(units)} modules whose maps could be compared: name"
                " three as model.blocks"
            )
        largest = max(sorted(closed), key=lambda name: count_weights(modules[name]))
        opened.remove(largest)
        opened |= {call.name for call in _units(calls, largest)}
