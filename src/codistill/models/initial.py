"""Initial weights of a network that was narrowed: as if it had been built so narrow.

A slice of a wide layer's weights keeps the wide layer's scale, which its rule of initialisation would not
have drawn for fewer inputs or outputs. Which rule it was is read off the scale itself.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

_RULES: tuple[Callable[[float, float], float], ...] = (
    lambda fan_in, fan_out: math.sqrt(1 / (3 * fan_in)),  # torch's default
    lambda fan_in, fan_out: math.sqrt(2 / fan_out),  # He et al. 2015, forward or backward
    lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),  # Glorot, Bengio 2010
    lambda fan_in, fan_out: math.sqrt(1 / fan_in),  # LeCun et al. 1998
    lambda fan_in, fan_out: math.sqrt(1 / (3 * fan_out)),
)
"""Standard deviation of a layer's weights by the usual rules, from its fan-in and fan-out."""

TOLERANCE = 0.1
"""Relative difference up to which a scale is taken for a rule's; a constant one fits none."""


def rescale(narrow: nn.Module, wide: nn.Module) -> None:
    """Bring the weights of a narrowed network to the scale that its layers' own fans ask for.

    A layer whose scale follows no rule of its fans, as a constant 0.02, keeps it.

    Args:
        narrow: The network to change; its modules are named as the wide one's.
        wide: The network, freshly drawn, that it was narrowed from.
    """
    originals = dict(wide.named_modules())
    with torch.no_grad():
        for name, layer in narrow.named_modules():
            original = originals.get(name)
            if not isinstance(layer, LAYERS) or not isinstance(original, LAYERS):
                continue
            if layer.weight.shape == original.weight.shape:
                continue
            layer.weight.mul_(_gain(original, layer))
            if layer.bias is not None and layer.bias.abs().max() > 0:
                layer.bias.mul_(math.sqrt(_fans(original)[0] / _fans(layer)[0]))


def shuffled(network: nn.Module) -> nn.Module:
    """Return the network with each layer's weights in an order drawn from torch's generator.

    Their distribution stays, so students that start from one freshly built network start apart.
    """
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, LAYERS):
                order = torch.randperm(layer.weight.numel())
                layer.weight.copy_(layer.weight.flatten()[order].view_as(layer.weight))
    return network


def _gain(wide: nn.Module, narrow: nn.Module) -> float:
    weight: Tensor = wide.weight  # type: ignore[assignment]
    scale = weight.std().item()
    if not scale:
        return 1.0
    differences = [abs(math.log(rule(*_fans(wide)) / scale)) for rule in _RULES]
    nearest = min(differences)
    if nearest > TOLERANCE:
        return 1.0
    rule = _RULES[differences.index(nearest)]
    return rule(*_fans(narrow)) / rule(*_fans(wide))


def _fans(layer: nn.Module) -> tuple[float, float]:
    """Return fan-in and fan-out; of a grouped convolution those of a group."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    area = math.prod(weight.shape[2:])
    groups = getattr(layer, "groups", 1)
    return weight.shape[1] * area, weight.shape[0] * area / groups
