"""Checkpoints: whole or absent, and the newest good one is found even when the newest is torn."""

import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from codistill.atomic import sync_folder, write_atomically
from codistill.errors import InputError

PATTERN = "step-*.pt"


def save_checkpoint(folder: Path, state: dict[str, Any], *, step: int, keep: int) -> None:
    """Write the state after `step` steps of the run, and drop all older but the newest `keep` checkpoints.

    A checkpoint of a later step does not count as one that is kept: it was torn, else the run had gone on
    from there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    newest = folder / f"step-{step:09d}.pt"
    write_atomically(newest, buffer.getvalue())
    for old in [path for path in sorted(folder.glob(PATTERN)) if path <= newest][:-keep]:
        old.unlink()


def load_newest_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[Path]]:
    """Return the newest state that can be read, or `None`, and the newer files that cannot.

    Only tensors and basic types are read, so a checkpoint cannot execute anything.
    """
    torn: list[Path] = []
    for path in sorted(folder.glob(PATTERN), reverse=True):
        state = _load(path)
        if state is not None:
            return state, torn
        torn.append(path)
    return None, torn


def keep_checkpoint(folder: Path, *, step: int, epoch: int) -> None:
    """Keep the checkpoint of a step, which ends so many epochs, under a name that is never dropped."""
    kept = kept_file(folder, epoch)
    if kept.exists():
        return
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
    newest = folder / f"step-{step:09d}.pt"
    try:
        try:
            os.link(newest, temporary)
        except OSError:  # Some file systems have no links.
            shutil.copyfile(newest, temporary)
        temporary.replace(kept)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)


def kept_file(folder: Path, epoch: int) -> Path:
    """Return where the checkpoint after so many epochs is kept."""
    return folder / f"epoch-{epoch:05d}.pt"


def kept_epochs(folder: Path) -> list[int]:
    """Return the epochs after which a checkpoint is kept, ascending."""
    names = [path.stem.removeprefix("epoch-") for path in folder.glob("epoch-*.pt")]
    return sorted(int(name) for name in names if name.isdecimal())


def load_kept(run: Path, epoch: int) -> dict[str, Any]:
    """Return the state of a run after so many epochs.

    Raises:
        InputError: No checkpoint of that epoch is kept, or it cannot be read.
    """
    folder = run / "checkpoints"
    epochs = kept_epochs(folder)
    if epoch not in epochs:
        there = f"choose one of {', '.join(map(str, epochs))}"
        none = f"none is yet (training.test_interval); 'codistill resume {run}' goes on where it stands"
        raise InputError(f"{run}: no checkpoint after epoch {epoch} is kept: {there if epochs else none}")
    state = _load(kept_file(folder, epoch))
    if state is None:
        raise InputError(f"{kept_file(folder, epoch)}: cannot be read: it is torn or no checkpoint")
    return state


def _load(path: Path) -> dict[str, Any] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # A record's checksum is wrong.
                return None
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # Whatever is wrong with the file, an older one may be good.
        return None
    return state if isinstance(state, dict) else None
