"""Caltech-256: folders of JPEG files named by number and class."""

import os
import re
from pathlib import Path

from codistill.config.data import DataConfig
from codistill.data.download import downloaded
from codistill.data.files import root_folder, shown
from codistill.data.held_out import held_out
from codistill.data.images import SourceData
from codistill.data.picture_files import (
    PictureFiles,
    class_folders,
    colour_squares,
    files_of_classes,
    refuse_difference,
)
from codistill.errors import InputError

_CATEGORIES = "256_ObjectCategories"
_PLACES = ("", _CATEGORIES, f"caltech256/{_CATEGORIES}", f"Caltech/{_CATEGORIES}")
_SPLIT_PLACES = ("Caltech", "", "caltech256")
_NUMBERED = re.compile(r"\d{3}\.")


def load_caltech(config: DataConfig) -> SourceData:
    """Load the folders NNN.name below `config.root`, colour squares, uint8 [n, H, W, 3].

    They lie in 256_ObjectCategories, as in the archive, or already split in Train/256_ObjectCategories and
    Test/256_ObjectCategories. Where they are not split, 20 % of each class is held out, drawn with seed 0.
    The clutter, folder 257, is a class as any other where it is there. Only JPEG files directly in a class's
    folder count: the archive has stray files deeper down.

    Missing folders are downloaded if `config.download` says so. `InputError` names the file or folder that
    cannot be used.
    """
    root = root_folder(config)
    split = _split_folders(root)
    if split is not None:
        train_folder, test_folder = split
        classes, train = _read_numbered(train_folder)
        test_classes, test = _read_numbered(test_folder)
        refuse_difference(shown(train_folder), classes, shown(test_folder), test_classes)
    else:
        folder = _categories(root)
        if folder is None and config.download:
            downloaded(config.source, root)
            folder = _categories(root)
        if folder is None:
            raise InputError(
                f"data.root: {shown(root)} does not hold caltech256: looked for folders such as 001.ak47 in "
                f"{', '.join(place or 'the folder itself' for place in _PLACES)}, and for "
                f"{{Train,Test}}/{_CATEGORIES} in {', '.join(place or 'it' for place in _SPLIT_PLACES)}"
            )
        classes, files = _read_numbered(folder)
        positions = held_out(files.labels_n, classes, shown(folder))
        train, test = (files.take(part) for part in positions)
    assert config.image_size is not None
    return colour_squares(
        train,
        test,
        classes,
        size=config.image_size,
        resize=config.resize,
        memory_gib=config.memory_gib,
    )


def _split_folders(root: Path) -> tuple[Path, Path] | None:
    for place in _SPLIT_PLACES:
        parts = [root / place / name / _CATEGORIES for name in ("Train", "Test")]
        missing = [part for part in parts if not part.is_dir()]
        if not missing:
            return parts[0], parts[1]
        if len(missing) == 1:
            there = next(part for part in parts if part not in missing)
            raise InputError(f"{shown(missing[0])}: is missing beside {shown(there)}")
    return None


def _categories(root: Path) -> Path | None:
    for place in _PLACES:
        folder = root / place
        if folder.is_dir() and any(_NUMBERED.match(name) for name in class_folders(folder)):
            return folder
    return None


def _read_numbered(folder: Path) -> tuple[list[str], PictureFiles]:
    classes = [name for name in class_folders(folder) if _NUMBERED.match(name)]
    if len(classes) < 2:
        raise InputError(f"{shown(folder)}: holds {len(classes)} folders such as 001.ak47, not two at least")
    return classes, files_of_classes((folder / name, _jpegs(folder / name)) for name in classes)


def _jpegs(folder: Path) -> list[Path]:
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".jpg", ".jpeg")))
    return [folder / name for name in names if not name.startswith(".")]
