"""Where a run stands: all that changes while it trains, to and from a checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from codistill.errors import DivergedError


@dataclass
class Progress:
    """The position of a run and what it has gathered on the way.

    Args:
        epoch: Epochs done.
        step: Steps done of the epoch under way.
        images: Images seen in it.
        sums: Each named loss summed over these images.
        seconds: Time spent on the steps of this epoch, stops not counted.
        total_seconds: Time spent on the epochs done, steps and validation.
        best: For each student and the teacher its best validation accuracy and the epoch that reached it.
    """

    epoch: int = 0
    step: int = 0
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    total_seconds: float = 0.0
    best: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, terms: dict[str, float], images: int) -> None:
        """Count one step."""
        self.step += 1
        self.images += images
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * images

    def means(self) -> dict[str, float]:
        """Return each named loss, the mean over the images seen in this epoch."""
        return {name: total / self.images for name, total in self.sums.items()}

    def next_epoch(self, validation_seconds: float) -> None:
        """Begin another epoch, after a validation of so many seconds."""
        self.total_seconds += self.seconds + validation_seconds
        self.epoch, self.step, self.images, self.sums, self.seconds = self.epoch + 1, 0, 0, {}, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return basic types only."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "Progress":
        """Return what `state_dict` gave."""
        best = {name: (epoch, accuracy) for name, (epoch, accuracy) in state["best"].items()}
        return cls(**{**state, "best": best})


def check_finite(terms: Mapping[str, float], progress: Progress) -> None:
    """Raise `DivergedError`, which names step, term and student, unless a step's loss is finite."""
    if math.isfinite(terms["loss"]):
        return
    infinite = (name for name, value in terms.items() if name != "loss" and not math.isfinite(value))
    culprit = next(infinite, "loss")
    term, _, student = culprit.partition("/")
    raise DivergedError(
        f"step {progress.step + 1} of epoch {progress.epoch + 1}: the loss is not finite:"
        f" {term}{f' of {student}' if student else ''} is {terms[culprit]}; the last good checkpoint is kept;"
        " a lower optimizer.lr or a longer schedule.warmup_epochs may help"
    )


def check_finite_weights(ensemble: nn.Module, progress: Progress) -> None:
    """Raise `DivergedError`, which names the student or the stem, unless all weights are finite.

    A finite loss may still have sent them away in the last step; such weights must not be saved.
    """
    for name, parameter in ensemble.named_parameters():
        if not parameter.isfinite().all():
            owner = name.split(".")[1] if name.startswith("students.") else "the stem"
            raise DivergedError(
                f"step {progress.step} of epoch {progress.epoch + 1}: the weights of {owner} are not finite;"
                " the last good checkpoint is kept; a lower optimizer.lr may help"
            )
