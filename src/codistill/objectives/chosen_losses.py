"""The losses of torch that a config names, tried on a small example before anything depends on them.

Shapes: B batch, K classes, C channels, H height, W width.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import loss as torch_losses

from codistill.config import ObjectiveConfig
from codistill.errors import InputError, one_line
from codistill.torch_classes import checked_arguments, find_class

DEPRECATED = ("size_average", "reduce")


def label_loss(config: ObjectiveConfig) -> nn.Module:
    """Return the loss between logits [B, K] and labels, int64 [B].

    Raises:
        InputError: torch has no such loss, its arguments are wrong, or it is none for logits and labels.
    """
    loss, setting = _make(config, "label_loss"), "objective.label_loss"
    weight = getattr(loss, "weight", None)
    classes = 4 if weight is None else len(weight)
    if classes < 2:
        raise InputError(f"{setting}_arguments.weight must have a number for each class, not {classes}")
    labels_B = torch.arange(classes)
    right_BK = 3 * torch.eye(classes)
    examples = (right_BK, right_BK.roll(1, dims=0), right_BK + 1)
    try:
        with warnings.catch_warnings():  # Of shapes that do not belong together.
            warnings.simplefilter("error")
            right, wrong, shifted = (float(loss(logits_BK, labels_B)) for logits_BK in examples)
    except Exception as error:
        raise InputError(
            f"{setting}: {config.label_loss} takes no logits [B, K] and labels [B]: {one_line(error, 120)};"
            " use CrossEntropyLoss or MultiMarginLoss"
        ) from None
    if not right < wrong:
        raise InputError(
            f"{setting}: {config.label_loss} is no lower for right predictions than for wrong ones"
        )
    if abs(shifted - right) > 1e-4:
        raise InputError(
            f"{setting}: {config.label_loss} takes log-probabilities; CrossEntropyLoss takes logits"
        )
    return loss


def feature_loss(config: ObjectiveConfig) -> nn.Module:
    """Return the loss between two maps [B, C, H, W], the second of which is the teacher's.

    Raises:
        InputError: torch has no such loss, its arguments are wrong, or it does not compare maps.
    """
    loss, setting = _make(config, "feature_loss"), "objective.feature_loss"
    generator = torch.Generator().manual_seed(0)
    teacher_BCHW = torch.randn(2, 3, 4, 4, generator=generator)
    other_BCHW = torch.randn(2, 3, 4, 4, generator=generator)
    own_BCHW = teacher_BCHW.clone().requires_grad_()
    usable = "use MSELoss, L1Loss, SmoothL1Loss or HuberLoss"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same: Tensor = loss(own_BCHW, teacher_BCHW)
            (gradient,) = torch.autograd.grad(same, own_BCHW)
            different = float(loss(other_BCHW, teacher_BCHW))
    except Exception as error:
        raise InputError(
            f"{setting}: {config.feature_loss} does not take two maps: {one_line(error, 120)}; {usable}"
        ) from None
    if not (bool((gradient == 0).all()) and float(same.detach()) < different):
        raise InputError(f"{setting}: {config.feature_loss} is not lowest where two maps are equal; {usable}")
    return loss


def _make(config: ObjectiveConfig, setting: str) -> nn.Module:
    name: str = getattr(config, setting)
    dotted = f"objective.{setting}"
    cls = find_class(torch_losses, torch_losses._Loss, name, dotted)
    place = f"{dotted}_arguments"
    arguments = checked_arguments(cls, getattr(config, place.partition(".")[2]), place, DEPRECATED)
    if arguments.get("reduction", "mean") not in ("mean", "sum"):
        raise InputError(f"{place}.reduction must be mean or sum, not {arguments['reduction']!r}")
    for key, value in arguments.items():
        if isinstance(value, list):
            arguments[key] = torch.tensor(value, dtype=torch.float32)
    return _called(cls, arguments, place)


def _called(cls: type, arguments: dict[str, Any], place: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made: nn.Module = cls(**arguments)
    except Exception as error:
        raise InputError(f"{place}: torch's {cls.__name__} refuses them: {one_line(error, 160)}") from None
    return made
