"""The optimiser of stem, students and adapters, one of ours or any of torch's."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from codistill.config import OptimizerConfig
from codistill.errors import InputError, one_line
from codistill.torch_classes import checked_arguments, find_class


def make_optimizer(
    config: OptimizerConfig,
    network: Iterable[nn.Parameter],
    adapters: Iterable[nn.Parameter],
    adapter_scale: float,
) -> Optimizer:
    """Return the optimiser of stem and students (group 0) and, where there are any, adapters (group 1).

    Every group carries its `lr_scale`, by which `set_learning_rate` multiplies the rate.
    """
    groups = [
        {"params": list(parameters), "lr_scale": scale}
        for parameters, scale in ((network, 1.0), (adapters, adapter_scale))
    ]
    groups = [group for group in groups if group["params"]]
    common: Any = {"lr": config.lr, "weight_decay": config.weight_decay}
    match config.name:
        case "sgd":
            return torch.optim.SGD(groups, **common, momentum=config.momentum, nesterov=config.nesterov)
        case "adam":
            return torch.optim.Adam(groups, **common, betas=config.betas, eps=config.eps)
        case "adamw":
            return torch.optim.AdamW(groups, **common, betas=config.betas, eps=config.eps)
        case "rmsprop":
            return torch.optim.RMSprop(
                groups, **common, alpha=config.alpha, momentum=config.momentum, eps=config.eps
            )
        case _:
            return _named(config, groups)


def _named(config: OptimizerConfig, groups: list[dict[str, Any]]) -> Optimizer:
    cls = find_class(torch.optim, Optimizer, config.name, "optimizer.name")
    if "lr" in (config.arguments or {}):
        raise InputError("optimizer.arguments.lr: the rate is optimizer.lr")
    arguments = checked_arguments(cls, config.arguments, "optimizer.arguments", ("params", "lr"))
    try:
        optimizer: Optimizer = cls(groups, lr=config.lr, **arguments)
    except Exception as error:
        reason = one_line(error, 150)
        raise InputError(
            f"optimizer.arguments: torch's {config.name} refuses them or such networks: {reason}"
        ) from None
    return optimizer


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set every group's rate: `rate` times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def count_moments(config: OptimizerConfig) -> int:
    """Return how many numbers the optimiser keeps for each parameter once it has taken a step."""
    weight = nn.Parameter(torch.zeros(4, 4, 3, 3))
    optimizer = make_optimizer(config, [weight], [], 1.0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = sum(value.numel() for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor))
    return kept // weight.numel()


def refuse_unusable_optimizer(config: OptimizerConfig) -> None:
    """Raise `InputError` unless torch has the optimiser, takes its arguments, and can step with it.

    Some need a closure, gradients of a certain kind or matrices alone.
    """
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3, 3, 3), (2, 2), (2,))]
    optimizer = make_optimizer(config, parameters, [nn.Parameter(torch.zeros(2, 2, 1, 1))], 0.5)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    try:
        optimizer.step()
    except Exception as error:
        raise InputError(
            f"optimizer.name: torch's {config.name} cannot train such networks: {one_line(error, 160)}; use"
            " SGD, Adam, AdamW or RMSprop"
        ) from None
