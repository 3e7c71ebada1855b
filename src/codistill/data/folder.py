"""Any folder of pictures, one folder a class."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from codistill.config.data import DataConfig
from codistill.data.arrays import in_memory
from codistill.data.files import root_folder, shown
from codistill.data.held_out import held_out
from codistill.data.images import LabelledImages, SourceData, StreamedImages
from codistill.data.pictures import Picture, decode, decode_all, fits, header
from codistill.errors import InputError

_EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
_TEST_FOLDERS = ("test", "val", "validation", "valid")


class _Files(NamedTuple):
    paths: list[Path]
    labels_n: np.ndarray

    def take(self, positions: np.ndarray) -> "_Files":
        return _Files([self.paths[position] for position in positions], self.labels_n[positions])


def load_folder(config: DataConfig) -> SourceData:
    """Load `config.root`/train/CLASS/… and `config.root`/test/CLASS/…, or `config.root`/CLASS/….

    A folder val, validation or valid serves as test set where there is no folder test. Where there is
    neither a train nor a test folder, 20 % of each class is held out, drawn with seed 0. Classes are the
    sorted names; pictures may lie in folders within a class; hidden files and folders are passed over.

    Images are uint8 [n, H, W, C] with one channel where all are grey, else three. All must have one size,
    unless `config.image_size` asks for squares: shorter side scaled, centre cut out. Beyond
    `config.memory_gib` they stay on disk. `InputError` names the file or folder that cannot be used.
    """
    root = root_folder(config)
    train_folder = root / "train"
    # A class may be called train: then the pictures lie directly in it.
    if train_folder.is_dir() and _folders(train_folder):
        classes, train = _read_classes(train_folder)
        test_folder = _test_folder(root)
        test_classes, test = _read_classes(test_folder)
        if classes != test_classes:
            raise InputError(_difference(train_folder, classes, test_folder, test_classes))
    else:
        classes, files = _read_classes(root)
        train, test = (files.take(positions) for positions in held_out(files.labels_n, classes, shown(root)))
    shape = _common_shape([*train.paths, *test.paths], config.image_size)
    resize = config.image_size is not None
    in_ram = fits(len(train.paths) + len(test.paths), shape, config.memory_gib)
    labelled = _decoded if in_ram else _streamed
    return SourceData(
        train=labelled(train, shape, resize), test=labelled(test, shape, resize), classes=tuple(classes)
    )


def _decoded(files: _Files, shape: tuple[int, int, int], resize: bool) -> LabelledImages:
    pictures = (Picture(path, shown(path)) for path in files.paths)
    return in_memory(decode_all(pictures, len(files.paths), shape, resize), files.labels_n)


def _streamed(files: _Files, shape: tuple[int, int, int], resize: bool) -> LabelledImages:
    read = _ReadFile(tuple(str(path) for path in files.paths), shape, resize)
    images = StreamedImages(read, len(files.paths), shape)
    return LabelledImages(images=images, labels=torch.from_numpy(files.labels_n))


@dataclass(frozen=True)
class _ReadFile:
    paths: tuple[str, ...]
    shape: tuple[int, int, int]
    resize: bool

    def __call__(self, position: int) -> np.ndarray:
        path = Path(self.paths[position])
        return decode(Picture(path, shown(path)), self.shape, self.resize)


def _folders(folder: Path) -> list[str]:
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError as error:
        raise InputError(f"{shown(folder)}: cannot be read: {error.strerror}") from error
    return sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")


def _test_folder(root: Path) -> Path:
    for name in _TEST_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise InputError(
        f"data.root: {shown(root)} has a folder train but none of {', '.join(_TEST_FOLDERS)}; "
        f"give {shown(root / 'train')} to hold out 20 % of it"
    )


def _difference(train: Path, classes: Sequence[str], test: Path, test_classes: Sequence[str]) -> str:
    name = sorted(set(classes) ^ set(test_classes))[0]
    there, missing = (train, test) if name in classes else (test, train)
    return f"{shown(missing)}: lacks the class {name!r}, which {shown(there)} has; both need the same classes"


def _read_classes(folder: Path) -> tuple[list[str], _Files]:
    classes = _folders(folder)
    if len(classes) < 2:
        found = f"one, {classes[0]!r}" if classes else "none"
        raise InputError(f"{shown(folder)}: needs a folder for each class, two at least, and has {found}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found_paths = sorted(_pictures_in(folder / name))
        if not found_paths:
            raise InputError(f"{shown(folder / name)}: holds no pictures ({', '.join(sorted(_EXTENSIONS))})")
        paths += found_paths
        labels += [label] * len(found_paths)
    return classes, _Files(paths, np.array(labels, np.int64))


def _pictures_in(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = os.path.realpath(place)
        if real in seen:  # A link to a folder above would lead round for ever.
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in _EXTENSIONS:
                yield Path(place, name)


def _common_shape(paths: Sequence[Path], image_size: int | None) -> tuple[int, int, int]:
    all_grey = True
    first: tuple[int, int] | None = None
    for path in paths:
        try:
            empty = path.stat().st_size == 0
        except OSError:
            raise InputError(f"{shown(path)}: cannot be read, or leads nowhere") from None
        if empty:
            raise InputError(f"{shown(path)}: is empty")
        found = header(Picture(path, shown(path)))
        all_grey = all_grey and found.grey
        size = (found.height, found.width)
        first = first or size
        if image_size is None and size != first:
            raise InputError(
                f"{shown(path)}: is {size[0]}×{size[1]} pixels, but {shown(paths[0])} {first[0]}×{first[1]}; "
                f"data.image_size makes them alike"
            )
    height, width = (image_size, image_size) if image_size is not None else first or (0, 0)
    return height, width, 1 if all_grey else 3
