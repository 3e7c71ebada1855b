"""The optimiser and its learning rate, as functions of the config and of how far the run has come."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from codistill.config import OptimizerConfig, ScheduleConfig


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
            optimizer: Optimizer = getattr(torch.optim, config.name)(
                groups, lr=config.lr, **(config.arguments or {})
            )
            return optimizer


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set every group's rate: `rate` times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def rate_factor(config: ScheduleConfig, *, epochs: int, epoch: int, step: int, steps: int) -> float | None:
    """Return what `optimizer.lr` is multiplied by in one step, or `None` where plateau decides.

    multistep and exponential change between epochs (paper, section 4); warm-up and cosine with every step.

    Args:
        config: The schedule.
        epochs: Epochs it spans.
        epoch: Epochs done.
        step: Steps done of this epoch.
        steps: Steps of an epoch.
    """
    position = epoch + step / steps
    if position < config.warmup_epochs:
        return min(1.0, (position + 1 / steps) / config.warmup_epochs)
    match config.name:
        case "constant":
            return 1.0
        case "plateau":
            return None
        case "multistep":
            # 0.55 of 100 epochs is 55.00000000000001 in floating point.
            return config.factor ** sum(epoch >= share * epochs - 1e-6 for share in config.milestones)
        case "exponential":
            return config.decay ** (epoch // config.decay_epochs)
        case "cosine":
            progress = (position - config.warmup_epochs) / (epochs - config.warmup_epochs)
            return 0.5 * (1 + math.cos(math.pi * progress))
        case _:
            return None


def make_plateau(config: ScheduleConfig, optimizer: Optimizer) -> ReduceLROnPlateau | None:
    """Return the schedule that follows the validation accuracy, where the config asks for it."""
    if config.name != "plateau":
        return None
    return ReduceLROnPlateau(
        optimizer, mode="max", factor=config.factor, patience=config.patience, threshold=0.0
    )
