"""CUB-200-2011, birds: JPEG files and text files that number them."""

from pathlib import Path, PurePosixPath

import numpy as np

from codistill.config.data import DataConfig
from codistill.data.files import folder_with, shown
from codistill.data.images import SourceData
from codistill.data.picture_files import PictureFiles, colour_squares
from codistill.errors import InputError

_PLACES = ("CUB_200_2011", "", "CUB2011/CUB_200_2011", "cub2011/CUB_200_2011")
_IMAGES, _LABELS, _SPLIT = "images.txt", "image_class_labels.txt", "train_test_split.txt"
_CLASSES = "classes.txt"


def load_cub(config: DataConfig) -> SourceData:
    """Load CUB_200_2011 below `config.root`, colour squares, uint8 [n, H, W, 3].

    images.txt numbers the files below images/, image_class_labels.txt gives each a class counted from 1,
    train_test_split.txt says 1 for training and 0 for testing. Names come from classes.txt or, where it is
    not there, from the folder of each class. `InputError` names the file and line that cannot be used.
    """
    folder = folder_with(config, _PLACES, (_IMAGES, _LABELS, _SPLIT))
    names = _numbered(folder / _IMAGES)
    labels = _of_images(folder / _LABELS, names)
    parts = _of_images(folder / _SPLIT, names)
    classes = _class_names(folder, names, labels)
    labels_n = _numbers(labels, 1, len(classes), folder / _LABELS) - 1
    is_train_n = _numbers(parts, 0, 1, folder / _SPLIT)
    files = PictureFiles([_path(folder, number, name) for number, name in names.items()], labels_n)
    for part, name in ((1, "train"), (0, "test")):
        if not np.any(is_train_n == part):
            raise InputError(f"{shown(folder / _SPLIT)}: has no image to {name} on (marked {part})")
    assert config.image_size is not None
    return colour_squares(
        files.take(np.flatnonzero(is_train_n == 1)),
        files.take(np.flatnonzero(is_train_n == 0)),
        classes,
        size=config.image_size,
        resize=config.resize,
        memory_gib=config.memory_gib,
    )


def _numbered(path: Path) -> dict[str, str]:
    """Read lines such as "17 text" as number → text, in the order of the lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError:
        raise InputError(f"{shown(path)}: is not text") from None
    entries: dict[str, str] = {}
    for row, line in enumerate(lines, start=1):
        number, _, text = line.strip().partition(" ")
        if not number.isdecimal() or not text.strip() or number in entries:
            raise InputError(f"{shown(path)}: line {row} is not a new number and a text: {line[:100]!r}")
        entries[number] = text.strip()
    if not entries:
        raise InputError(f"{shown(path)}: is empty")
    return entries


def _of_images(path: Path, names: dict[str, str]) -> list[str]:
    """Read the entry of every image of images.txt."""
    entries = _numbered(path)
    differing = sorted(names.keys() ^ entries.keys(), key=int)
    if differing:
        there, missing = (_IMAGES, path.name) if differing[0] in names else (path.name, _IMAGES)
        raise InputError(
            f"{shown(path.parent / missing)}: lacks image {differing[0]}, which {there} has; "
            f"the files have {len(entries)} and {len(names)} lines"
        )
    return [entries[number] for number in names]


def _numbers(texts: list[str], low: int, high: int, path: Path) -> np.ndarray:
    for row, text in enumerate(texts, start=1):
        if not (text.isdecimal() and len(text) < 9 and low <= int(text) <= high):
            raise InputError(
                f"{shown(path)}: {text[:100]!r} of entry {row} is not a whole number from {low} to {high}"
            )
    return np.array([int(text) for text in texts], np.int64)


def _class_names(folder: Path, names: dict[str, str], labels: list[str]) -> tuple[str, ...]:
    path = folder / _CLASSES
    if path.is_file():
        entries = _numbered(path)
    else:
        path = folder / _LABELS
        entries = {
            label: PurePosixPath(name).parent.name
            for label, name in zip(labels, names.values(), strict=True)
            if label.isdecimal()
        }
    expected = {str(number) for number in range(1, len(entries) + 1)}
    if entries.keys() != expected or len(entries) < 2:
        raise InputError(f"{shown(path)}: the classes must be numbered from 1 on, without gaps, two at least")
    return tuple(entries[str(number)] for number in range(1, len(entries) + 1))


def _path(folder: Path, number: str, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts:
        raise InputError(f"{shown(folder / _IMAGES)}: image {number} lies outside images/: {name[:100]!r}")
    return folder.joinpath("images", *parts)
