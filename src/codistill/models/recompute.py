"""Gradient checkpointing (Chen et al. 2016): activations inside a unit are computed again when needed.

A unit is a residual block, a dense layer or the like. Its second computation draws the same random numbers
and leaves running statistics alone, so that a step gives the same numbers as without, bit for bit.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from codistill.models.points import count_weights

LEAST_WEIGHTS = 2
"""Layers with weights from which a module is a unit: one alone has nothing to compute again."""


def recompute_units(students: nn.ModuleDict) -> int:
    """Let every unit of the students compute its activations again in the backward pass; return their count.

    State, names and copies of a student stay as they are, and so does what it computes without gradients.
    """
    units = [unit for student in students.values() for unit in _units(student)]
    for unit in units:
        unit.__class__ = _recomputing(type(unit))
    return len(units)


class Recomputing(nn.Module):
    """Placed before a module's own class: keeps the input of its forward pass alone."""

    def forward(self, *inputs: Any) -> Any:
        """Return what the module gives."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*inputs)
        # A list may grow before it is used again, as that of a dense block's maps.
        inputs = tuple(list(each) if isinstance(each, list) else each for each in inputs)
        return checkpoint(super().forward, *inputs, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still_statistics(self)


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _recomputing(own: type[nn.Module]) -> type[nn.Module]:
    if issubclass(own, Recomputing):
        return own
    if own not in _classes:
        _classes[own] = type(f"Recomputing{own.__name__}", (Recomputing, own), {"__module__": own.__module__})
    return _classes[own]


def _units(module: nn.Module, *, in_container: bool = False) -> list[nn.Module]:
    """Return the smallest modules in containers that have several layers, unless they hold several such."""
    is_container = type(module) is nn.Sequential or isinstance(module, nn.ModuleList | nn.ModuleDict)
    within = [unit for child in module.children() for unit in _units(child, in_container=is_container)]
    is_unit = in_container and not is_container and count_weights(module) >= LEAST_WEIGHTS
    return [module] if is_unit and len(within) < 2 else within


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norm use the batch's statistics without taking them into the running ones once more."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # Running statistics r become 1 · r + 0 · batch, which is r exactly.
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
