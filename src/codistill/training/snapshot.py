"""All that changes while a run trains, taken from a trainer and given back to one."""

from typing import TYPE_CHECKING, Any

import torch

from codistill.errors import InputError, one_line
from codistill.models.ensemble import load_tensors
from codistill.training.checkpoint import load_newest_checkpoint
from codistill.training.state import Progress

if TYPE_CHECKING:
    from codistill.training.loop import Trainer


def snapshot(trainer: "Trainer") -> dict[str, Any]:
    """Return tensors and basic types only."""
    return {
        "data": trainer.data.fingerprint(),
        "progress": trainer.progress.state_dict(),
        "ensemble": trainer.ensemble.state_dict(),
        "objective": trainer.objective.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": trainer.schedule.state_dict() if trainer.schedule else None,
        "generator": torch.get_rng_state(),
    }


def take_over(trainer: "Trainer", state: dict[str, Any]) -> None:
    """Let a trainer stand where a snapshot was taken; raises if it is not one of the same run."""
    trainer.progress = Progress.from_state_dict(state["progress"])
    load_tensors(trainer.ensemble, state["ensemble"])
    trainer.objective.load_state_dict(state["objective"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.schedule is not None:
        trainer.schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["generator"])


def restore(trainer: "Trainer") -> None:
    """Go on from the newest good checkpoint of the run folder, or from the start if it has none.

    Raises:
        InputError: The data are not those that the run was started with, or no checkpoint can be read.
    """
    path = trainer.path
    state, torn = load_newest_checkpoint(path / "checkpoints")
    if torn and state is None:
        raise InputError(
            f"{torn[0]}: cannot be read, nor can any other checkpoint; without {torn[0].parent} the run"
            " would start again"
        )
    for file in torn:
        trainer.display.say(f"{file}: cannot be read and is passed over")
    if state is not None:
        if state.get("data") != trainer.data.fingerprint():
            raise InputError(
                f"{path}: the data have changed since the run was started; it cannot go on with them"
            )
        try:
            take_over(trainer, state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path}: its checkpoint is not of this run: {one_line(error)}") from None
        # A best model that is of a run which this one goes on from is not here: best counts from here on.
        trainer.progress.best = {
            name: (epoch, accuracy)
            for name, (epoch, accuracy) in trainer.progress.best.items()
            if epoch == trainer.progress.epoch or (path / "students" / "best" / f"{name}.json").is_file()
        }
        if trainer.progress.step == 0:
            trainer.after_epoch()
    if trainer.run is not None:
        trainer.run.trim_metrics(trainer.progress.epoch)
