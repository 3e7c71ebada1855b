"""Decoded images kept on disk, so that a data set is decoded once."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from codistill.data.files import shown
from codistill.errors import one_line

_FORMAT = 1  # To be raised whenever decoding changes, so that no older entry is taken for a new one.

Arrays = Mapping[str, np.ndarray]


def cache_folder() -> Path:
    """Return $CODISTILL_CACHE, $XDG_CACHE_HOME/codistill or ~/.cache/codistill: where decoded images are."""
    if own := os.environ.get("CODISTILL_CACHE"):
        return Path(own).expanduser()
    if common := os.environ.get("XDG_CACHE_HOME"):
        return Path(common) / "codistill"
    return Path.home() / ".cache" / "codistill"


def cached(identity: Any, make: Callable[[], Arrays]) -> Arrays:
    """Return what `make` returns, from the cache where the same identity (JSON-like) was made before.

    Entries are .npz files without pickles, whose checksums NumPy verifies as it reads; one that is torn,
    damaged or made for another identity is made anew. A folder that cannot be written costs the caching
    and one line on the log.
    """
    key = json.dumps([_FORMAT, identity], sort_keys=True)
    path = cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    arrays = _read(path, key)
    if arrays is None:
        arrays = make()
        try:
            _write(path, key, arrays)
        except OSError as error:
            logging.getLogger(__name__).warning(
                "decoded images are not kept: %s cannot be written: %s", shown(path), one_line(error)
            )
    return arrays


def _read(path: Path, key: str) -> Arrays | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if stored["key"].item() != key:
                return None
            return {name: stored[name] for name in stored.files if name != "key"}
    except Exception:  # Absent, or damaged in whatever way: either is made anew.
        return None


def _write(path: Path, key: str, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {"key": np.array(key), **arrays}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **entries)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
