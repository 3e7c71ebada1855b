"""Checkpoints: whole or absent, and the newest good one is found even when the newest is torn."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from codistill.atomic import write_atomically

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


def _load(path: Path) -> dict[str, Any] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # A record's checksum is wrong.
                return None
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # Whatever is wrong with the file, an older one may be good.
        return None
    return state if isinstance(state, dict) else None
