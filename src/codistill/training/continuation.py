"""Going on after any epoch whose checkpoint is kept: in the run's folder, or in a new one that names it."""

from dataclasses import asdict, replace
from pathlib import Path

from codistill.config import Config, completed
from codistill.config.kinds import shown
from codistill.config.parsing import load_config
from codistill.config.yaml_file import leaves
from codistill.errors import InputError
from codistill.training.checkpoint import kept_epochs, kept_file, load_kept

FREE = (
    *("data.root", "data.workers", "data.memory_gib", "data.evaluation_batch_size", "data.download"),
    *(
        "training.epochs",
        "training.test_interval",
        "training.checkpoint_minutes",
        "training.keep_checkpoints",
    ),
    *("training.device", "training.threads", "training.engine", "training.processes"),
    *("run.folder", "run.name", "run.curves"),
)
"""What may differ when a run goes on in a new folder: its length, and where and how it is computed."""


def config_of_continuation(run: Path, config: Config | None, epoch: int) -> tuple[Config, bool]:
    """Return the config with which a run goes on after so many epochs, and whether that takes a new folder.

    The run's own folder serves where that epoch is the last one kept and nothing else is asked for: the run
    goes on where it stands, which gives what it would give from there.

    Args:
        run: Its folder.
        config: What is asked for; `None`: what the run was started with.
        epoch: Epochs done, those of pretraining included.

    Raises:
        InputError: No such epoch is kept, nothing is left to do, or settings differ that may not.
    """
    own = load_config(run / "config.yaml")
    config = own if config is None else completed(config)
    differing = _differing(own, config)
    forbidden = [name for name in differing if name not in FREE]
    if forbidden:
        name = forbidden[0]
        there, here = differing[name]
        raise InputError(
            f"{run}: was trained with {name} {shown(there)}, so it cannot go on with {shown(here)}:"
            " only its length may change"
        )
    load_kept(run, epoch)
    epochs = config.training.pretraining_epochs + config.training.epochs
    if epoch >= epochs:
        raise InputError(f"{run}: epoch {epoch} of {epochs} is the last: raise training.epochs to go on")
    is_last = epoch == kept_epochs(run / "checkpoints")[-1]
    is_new = not is_last or (run / "results.json").exists() or "training.epochs" in differing
    if not is_new:
        return replace(own, data=config.data), False
    # Engine and threads decide how sums are rounded. The run's own name is taken.
    training = replace(config.training, engine=own.training.engine, threads=own.training.threads)
    is_taken = config.run.name == own.run.name and "%" not in (own.run.name or "")
    place = replace(config.run, folder=str(run.absolute().parent), name=None if is_taken else config.run.name)
    return replace(config, training=training, run=place), True


def files_of_continuation(run: Path, epoch: int) -> dict[str, bytes]:
    """Return what a new folder takes over from a run: its checkpoint and its metrics up to that epoch."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
    kept = kept_file(run / "checkpoints", epoch)
    state = kept.read_bytes()
    return {
        # Of any later checkpoint the number of steps is higher than that of the epochs here.
        f"checkpoints/step-{epoch:09d}.pt": state,
        f"checkpoints/{kept.name}": state,
        "metrics.jsonl": b"".join(lines[:epoch]),
    }


def _differing(one: Config, other: Config) -> dict[str, tuple[object, object]]:
    ours, theirs = dict(leaves(asdict(one))), dict(leaves(asdict(other)))
    # Arguments that were left out are none; tuples are lists once they have been written.
    return {
        name: (ours.get(name), theirs.get(name))
        for name in [*ours, *(name for name in theirs if name not in ours)]
        if _plain(ours.get(name)) != _plain(theirs.get(name))
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
