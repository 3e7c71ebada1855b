"""Naming files in messages, and finding the folder that holds a source's files."""

import os
from collections.abc import Sequence
from pathlib import Path

from codistill.config.data import DataConfig
from codistill.data.download import downloaded
from codistill.errors import InputError


def shown(path: str | Path) -> str:
    """Return a path as a message shows it: quoted, on one line whatever its name holds."""
    return repr(os.fspath(path))


def root_folder(config: DataConfig) -> Path:
    """Return `config.root` as a path; `InputError` unless it is a folder.

    A folder that `download` is to fill need not exist yet.
    """
    if config.root is None:
        raise InputError(f"data.root: is needed for {config.source}: the folder that holds its files")
    root = Path(config.root).expanduser()
    if root.is_dir() or (config.download and not root.exists()):
        return root
    raise InputError(f"data.root: {shown(root)} {'is not a folder' if root.exists() else 'does not exist'}")


def folder_with(
    config: DataConfig, places: Sequence[str], names: Sequence[str], *, or_packed: bool = False
) -> Path:
    """Return the first of `places` below `config.root` that holds every file of `names`.

    With `or_packed` a file may also be there with .gz behind its name. Where none holds them all,
    torchvision downloads them if `config.download` says so, else `InputError` says what was sought.
    """
    root = root_folder(config)
    folder = _first_with(root, places, names, or_packed)
    if folder is None and config.download:
        downloaded(config.source, root)
        folder = _first_with(root, places, names, or_packed)
    if folder is None:
        packed = " (each packed as .gz or not)" if or_packed else ""
        looked = ", ".join(place or "the folder itself" for place in places)
        raise InputError(
            f"data.root: {shown(root)} does not hold {config.source}: "
            f"looked for {', '.join(names)}{packed} in {looked}"
        )
    return folder


def _first_with(root: Path, places: Sequence[str], names: Sequence[str], or_packed: bool) -> Path | None:
    for place in places:
        if all(stored(root / place / name, or_packed).is_file() for name in names):
            return root / place
    return None


def stored(path: Path, or_packed: bool = True) -> Path:
    """Return the path itself, or where only a packed file is there, that file's path."""
    return path if path.is_file() or not or_packed else path.with_name(f"{path.name}.gz")
