"""The learning rate over the run, as functions of the config and of how far the run has come.

Our own schedules are functions of the epoch and the step. Those of torch, and the one that follows the
accuracy, are torch's objects. They move a stand-in of the optimiser, whose rate is then every group's, times
the group's scale.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from codistill.config import Config, ScheduleConfig
from codistill.config.training import SCHEDULES
from codistill.errors import InputError, one_line
from codistill.torch_classes import checked_arguments, find_class
from codistill.training.optimizer import make_optimizer, set_learning_rate

PER_STEP = ("CyclicLR", "OneCycleLR")
"""torch's schedules that count steps; all others count epochs."""
CYCLED = ("momentum", "betas")
"""What these two change beside the rate."""
WITH_FUNCTIONS = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler")
USABLE = "use StepLR, MultiStepLR, ExponentialLR, ReduceLROnPlateau or CyclicLR"


def rate_factor(config: ScheduleConfig, *, epochs: int, epoch: int, step: int, steps: int) -> float | None:
    """Return what `optimizer.lr` is multiplied by in one step, or `None` where torch's object decides.

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


class TorchSchedule:
    """A scheduler of torch that moves a stand-in of the optimiser.

    Schedulers know nothing of groups whose rate is a share of the others', as the adapters' is.

    Args:
        config: The run's.
        steps: Steps of an epoch, for OneCycleLR, which must know the end.

    Raises:
        InputError: torch has no such scheduler, or does not take these arguments.
    """

    def __init__(self, config: Config, steps: int) -> None:
        self.name = config.schedule.name
        self.stand_in = make_optimizer(config.optimizer, [nn.Parameter(torch.zeros(1))], [], 1.0)
        self.scheduler = _make_scheduler(config, self.stand_in, steps)

    def set_rate(self, optimizer: Optimizer) -> None:
        """Give an optimiser the stand-in's rate, and the momentum that some schedules cycle."""
        group = self.stand_in.param_groups[0]
        set_learning_rate(optimizer, float(group["lr"]))
        for name in CYCLED:
            if name in group:
                for other in optimizer.param_groups:
                    other[name] = group[name]

    def end_step(self) -> None:
        """Count a step."""
        if self.name in PER_STEP:
            self._advance()

    def end_epoch(self, accuracy: float | None) -> None:
        """Count an epoch; `accuracy` is the validation accuracy, where there is one."""
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            assert accuracy is not None
            self._advance(accuracy)
        elif self.name not in PER_STEP:
            self._advance()

    def _advance(self, *metric: float) -> None:
        self.stand_in.step()  # Without a gradient nothing moves; torch wants to see it first.
        self.scheduler.step(*metric)

    def state_dict(self) -> dict[str, Any]:
        """Return basic types only."""
        group = {name: value for name, value in self.stand_in.param_groups[0].items() if name != "params"}
        return {"scheduler": _basic(self.scheduler.state_dict()), "group": _basic(group)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        fresh = self.scheduler.state_dict()
        self.scheduler.load_state_dict(
            {name: _like(fresh.get(name), value) for name, value in state["scheduler"].items()}
        )
        group = self.stand_in.param_groups[0]
        group.update({name: _like(group.get(name), value) for name, value in state["group"].items()})


def make_schedule(config: Config, steps: int) -> TorchSchedule | None:
    """Return the scheduler of torch that a config asks for, if it does."""
    named = config.schedule.name not in SCHEDULES
    return TorchSchedule(config, steps) if named or config.schedule.name == "plateau" else None


def _make_scheduler(config: Config, stand_in: Optimizer, steps: int) -> Any:
    schedule = config.schedule
    if schedule.name == "plateau":
        return lr_scheduler.ReduceLROnPlateau(
            stand_in, mode="max", factor=schedule.factor, patience=schedule.patience, threshold=0.0
        )
    if schedule.name in WITH_FUNCTIONS:
        needed = "a function" if schedule.name in WITH_FUNCTIONS[:2] else "other schedulers"
        raise InputError(f"schedule.name: {schedule.name} needs {needed}, which no config can hold; {USABLE}")
    cls = find_class(lr_scheduler, lr_scheduler.LRScheduler, schedule.name, "schedule.name")
    arguments = checked_arguments(cls, schedule.arguments, "schedule.arguments", ("optimizer",))
    _refuse_unfit(config, arguments, steps)
    if schedule.name == "OneCycleLR" and not {"total_steps", "epochs", "steps_per_epoch"} & set(arguments):
        arguments["total_steps"] = config.training.epochs * steps
    try:
        return cls(stand_in, **arguments)
    except Exception as error:
        raise InputError(
            f"schedule.arguments: torch's {schedule.name} refuses them: {one_line(error, 160)}"
        ) from None


def _refuse_unfit(config: Config, arguments: dict[str, Any], steps: int) -> None:
    if arguments.get("last_epoch", -1) != -1:
        raise InputError(
            f"schedule.arguments.last_epoch must be -1, not {arguments['last_epoch']}: a run that is resumed"
            " knows where it stands"
        )
    if config.schedule.name == "ReduceLROnPlateau" and arguments.get("mode", "min") != "max":
        raise InputError("schedule.arguments.mode must be max: the schedule follows an accuracy, which rises")
    if config.schedule.name == "OneCycleLR":
        total = arguments.get("total_steps")
        if total is None and "epochs" in arguments and "steps_per_epoch" in arguments:
            total = arguments["epochs"] * arguments["steps_per_epoch"]
        needed = config.training.epochs * steps
        if total is not None and total < needed:
            raise InputError(
                f"schedule.arguments.total_steps must be at least {needed:,}, the steps of"
                f" {config.training.epochs} epochs, not {total:,}"
            )


def _basic(value: Any) -> Any:
    """Return dicts, lists and plain values alone, of what schedulers hold."""
    if isinstance(value, dict):
        return {key: _basic(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_basic(item) for item in value]
    return value.item() if isinstance(value, torch.Tensor) else value


def _like(fresh: Any, value: Any) -> Any:
    """Return a value as the type that stands there in a fresh scheduler."""
    if isinstance(fresh, tuple) and isinstance(value, list):
        return tuple(value)
    return type(fresh)(value) if isinstance(fresh, dict) and isinstance(value, dict) else value
