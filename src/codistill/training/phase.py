"""Who trains in an epoch, and whose gradient reaches the stem."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from codistill.config import TrainingConfig
from codistill.objectives.paper import PSEUDO_TEACHER


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What one epoch trains.

    Args:
        name: In pretraining the stem and S1 train alone, on the labels; then all others join.
        epoch: Epochs of this phase that are done.
        students: Those that take part, S1 first.
        senders: Those whose gradient reaches the stem.
        stem_is_frozen: Whether the stem's weights and statistics keep still.
    """

    name: Literal["pretraining", "joint"]
    epoch: int
    students: Sequence[str]
    senders: Sequence[str]
    stem_is_frozen: bool


def first_epoch(config: TrainingConfig, students: Sequence[str]) -> int:
    """Return the epoch in which a run begins.

    Who has no part in the pretraining, as the baseline of another student than S1, begins where it joins.
    """
    return 0 if PSEUDO_TEACHER in students else config.pretraining_epochs


def phase_of(config: TrainingConfig, students: Sequence[str], epoch: int) -> Phase:
    """Return what is trained after `epoch` epochs of the run."""
    if epoch < config.pretraining_epochs:
        return Phase(
            name="pretraining",
            epoch=epoch,
            students=[PSEUDO_TEACHER],
            senders=[PSEUDO_TEACHER],
            stem_is_frozen=False,
        )
    senders = [PSEUDO_TEACHER] if config.stem_gradient == "pseudo_teacher" else students
    return Phase(
        name="joint",
        epoch=epoch - config.pretraining_epochs,
        students=students,
        senders=[] if config.freeze_stem else senders,
        stem_is_frozen=config.freeze_stem,
    )


def is_tested(config: TrainingConfig, epoch: int) -> bool:
    """Say whether epoch number 0, 1, … of the run ends with a test.

    Of those in which all train together it is the first, every so many later, and the last.
    """
    joint = epoch - config.pretraining_epochs
    if config.test_interval is None or joint < 0:
        return False
    return joint % config.test_interval == 0 or joint == config.epochs - 1


def count_tests_left(config: TrainingConfig, epoch: int) -> int:
    """Count the tests from that epoch to the end."""
    return sum(is_tested(config, later) for later in range(epoch, config.pretraining_epochs + config.epochs))
