"""How the students are trained: the sections `optimizer`, `schedule`, `training` and `run`."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from codistill.config.problems import Problem, in_range

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "multistep", "exponential", "cosine", "plateau")
TORCH_NAME = re.compile(r"[A-Z]\w{0,60}")


def _arguments_problems(section: Any, own_names: tuple[str, ...], kept: tuple[str, ...]) -> Iterator[Problem]:
    """Yield what is wrong with a choice between our names, which have settings, and torch's, with arguments.

    Args:
        section: Has a `name`, `arguments` and settings of our names.
        own_names: Ours.
        kept: The settings that count for torch's names too.
    """
    if section.name in own_names:
        if section.arguments is not None:
            yield (
                "arguments",
                f"has no meaning for {section.name}, which has settings of its own: it is for torch's",
            )
        return
    if not TORCH_NAME.fullmatch(section.name):
        yield "name", f"must be one of {', '.join(own_names)}, or a class of torch, not {section.name!r}"
    for field in fields(section):
        if field.name not in ("name", "arguments", *kept) and getattr(section, field.name) != field.default:
            yield field.name, f"has no meaning for torch's {section.name}: give it among the arguments"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """One optimiser for the stem, all students and the adapters."""

    name: str = "sgd"
    """Update rule: sgd, adam, adamw or rmsprop with the settings below, or any class of torch.optim, such as
    NAdam, with `arguments`."""

    arguments: dict[str, Any] | None = None
    """What a class of torch.optim is called with, beside the rate: {weight_decay: 0.0001}; none: its own
    defaults."""

    lr: float = 0.1
    """Learning rate at the start of the schedule."""

    momentum: float = 0.9
    """Momentum of sgd and rmsprop."""

    nesterov: bool = True
    """Whether sgd's momentum is Nesterov's."""

    weight_decay: float = 1e-4
    """Weight decay: decoupled in adamw, added to the gradient in the others."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of adam's and adamw's two running means."""

    alpha: float = 0.9
    """Decay of rmsprop's running mean of squares."""

    eps: float = 1e-8
    """Term that keeps the denominators of adam, adamw and rmsprop from zero."""

    def problems(self) -> Iterator[Problem]:
        """Yield everything in this section that cannot be used."""
        yield from in_range(self, "lr", above=0)
        yield from in_range(self, "momentum", low=0, high=0.9999)
        yield from in_range(self, "weight_decay", low=0)
        yield from in_range(self, "alpha", low=0, high=0.9999)
        yield from in_range(self, "eps", above=0)
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            yield "nesterov", "needs a momentum above 0"
        if not all(0 <= beta < 1 for beta in self.betas):
            yield "betas", f"must both be at least 0 and below 1, not {list(self.betas)}"
        yield from _arguments_problems(self, OPTIMIZERS, kept=("lr",))


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate falls from `optimizer.lr`."""

    name: str = "multistep"
    """constant, multistep, exponential, cosine or plateau with the settings below, or any class of
    torch.optim.lr_scheduler, such as StepLR, with `arguments`. multistep and exponential are the paper's;
    cosine falls to 0; plateau waits for the accuracy."""

    arguments: dict[str, Any] | None = None
    """What a class of torch.optim.lr_scheduler is called with, in epochs (CyclicLR and OneCycleLR: in steps):
    {step_size: 30}."""

    milestones: tuple[float, ...] = (0.5, 0.75)
    """multistep: the shares of the epochs after which the rate falls."""

    factor: float = 0.1
    """multistep, plateau: what the rate is multiplied by when it falls."""

    decay: float = 0.97
    """exponential: what the rate is multiplied by every `decay_epochs`."""

    decay_epochs: int = 3
    """exponential: epochs between two falls."""

    patience: int = 10
    """plateau: epochs without a better validation accuracy of the ensemble teacher before a fall."""

    warmup_epochs: float = 0.0
    """Epochs in which the rate rises linearly from 0 at the start of any schedule; parts of one count."""

    def problems(self) -> Iterator[Problem]:
        """Yield everything in this section that cannot be used."""
        if not all(0 < share < 1 for share in self.milestones):
            yield "milestones", f"must be shares above 0 and below 1, not {list(self.milestones)}"
        elif list(self.milestones) != sorted(set(self.milestones)):
            yield "milestones", f"must ascend without repetition, not {list(self.milestones)}"
        yield from in_range(self, "factor", above=0, high=1)
        yield from in_range(self, "decay", above=0, high=1)
        yield from in_range(self, "decay_epochs", low=1)
        yield from in_range(self, "patience", low=0)
        yield from _arguments_problems(self, SCHEDULES, kept=())
        yield from in_range(self, "warmup_epochs", low=0)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length, batches, what reaches the stem, and where it runs."""

    epochs: int = 30
    """Epochs in which all students train together."""

    batch_size: int = 128
    """Images in one step, over all processes."""

    pretraining_epochs: int = 0
    """Epochs before these in which the stem and S1 train alone on the labels, at the initial rate."""

    stem_gradient: Literal["all", "pseudo_teacher"] = "all"
    """Whose gradients the stem receives: every student's, or S1's alone."""

    freeze_stem: bool = False
    """Whether the stem, weights and statistics, keeps still once the students train together."""

    engine: Literal["auto", "eager", "parallel"] = "auto"
    """How a step is computed; parallel runs students beside each other, the same but for rounding."""

    gradient_checkpointing: bool = False
    """Whether activations inside a unit, such as a residual block, are computed again in the backward pass
    instead of kept: less memory, about a third more time, the same numbers."""

    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    """Number format; bf16-mixed computes convolutions and products in bfloat16."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes an accelerator if there is one."""

    processes: int = 1
    """Processes that share each batch, one a device."""

    threads: int | None = None
    """CPU threads; none: as many as torch chooses."""

    checkpoint_minutes: float = 10.0
    """Longest time between two checkpoints; one is always written after each epoch."""

    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay on disk."""

    test_interval: int | None = None
    """Epochs from one test of all students on the test images to the next, after the first epoch and then so
    many on, and after the last; their curves choose nothing, and the checkpoint of every tested epoch stays
    on disk; none: only what is delivered is tested, at the end."""

    def problems(self) -> Iterator[Problem]:
        """Yield everything in this section that cannot be used."""
        yield from in_range(self, "epochs", low=1)
        yield from in_range(self, "batch_size", low=2)
        yield from in_range(self, "pretraining_epochs", low=0)
        yield from in_range(self, "processes", low=1)
        yield from in_range(self, "threads", low=1, high=1024)
        yield from in_range(self, "checkpoint_minutes", low=0)
        yield from in_range(self, "keep_checkpoints", low=1)
        yield from in_range(self, "test_interval", low=1)
        if self.batch_size < 2 * self.processes:
            yield "batch_size", f"must give each of {self.processes} processes at least 2 images"


RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,150}")
TIME_CODE = re.compile(r"%[YmdHMS]")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where the run folder goes."""

    folder: str = "runs"
    """Folder in which run folders are made."""

    name: str | None = None
    """Name of the run folder, in which %Y, %m, %d, %H, %M and %S stand for the time of its start; none: data,
    model, seed and time."""

    curves: Literal["none", "arrays", "pictures"] = "none"
    """Whether accuracies and losses over epochs are written as NumPy arrays, and drawn as pictures too."""

    def folder_name(self, default: str) -> tuple[str, bool]:
        """Return the folder's name, `default` where none is given, and whether it must be exactly that.

        Where it need not, because it says the time alone, a number is set behind a name that is taken.
        """
        if self.name is None:
            return default, False
        now = time.localtime()
        return TIME_CODE.sub(lambda code: time.strftime(code[0], now), self.name), "%" not in self.name

    def problems(self) -> Iterator[Problem]:
        """Yield everything in this section that cannot be used."""
        if self.name is not None and not RUN_NAME.fullmatch(TIME_CODE.sub("00", self.name)):
            yield (
                "name",
                "must be up to 151 letters, digits and ._=,+-, a letter or digit first, with %Y %m %d %H %M"
                f" %S for the time, not {self.name!r}",
            )
