"""Pictures in files of their own: found in folders, one a class, and read at once or as they are needed."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from codistill.config.data import Resize
from codistill.data.arrays import in_memory
from codistill.data.cache import cached
from codistill.data.files import shown
from codistill.data.images import LabelledImages, SourceData, StreamedImages
from codistill.data.pictures import Header, Picture, decode, decode_all, fits, header
from codistill.errors import InputError

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
TEST_FOLDERS = ("test", "val", "validation", "valid")


class PictureFiles(NamedTuple):
    """Files and the class of each, int64 [n]."""

    paths: list[Path]
    labels_n: np.ndarray

    def take(self, positions: np.ndarray) -> "PictureFiles":
        """Return the files at these positions."""
        return PictureFiles([self.paths[position] for position in positions], self.labels_n[positions])


def class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, hidden ones apart."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError as error:
        raise InputError(f"{shown(folder)}: cannot be read: {error.strerror}") from error
    return sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")


def read_classes(folder: Path) -> tuple[list[str], PictureFiles]:
    """Find the pictures of a folder that has a folder for each class: sorted classes, sorted files.

    `InputError` names a class without pictures, or says that there are fewer than two classes.
    """
    classes = class_folders(folder)
    if len(classes) < 2:
        found = f"one, {classes[0]!r}" if classes else "none"
        raise InputError(f"{shown(folder)}: needs a folder for each class, two at least, and has {found}")
    return classes, files_of_classes((folder / name, sorted(_pictures_in(folder / name))) for name in classes)


def files_of_classes(classes: Iterable[tuple[Path, list[Path]]]) -> PictureFiles:
    """Return the files of classes, each given as its folder and its pictures; none may be empty."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, (folder, found) in enumerate(classes):
        if not found:
            raise InputError(f"{shown(folder)}: holds no pictures ({', '.join(sorted(EXTENSIONS))})")
        paths += found
        labels += [label] * len(found)
    return PictureFiles(paths, np.array(labels, np.int64))


def refuse_difference(train: str, classes: Sequence[str], test: object, test_classes: Sequence[str]) -> None:
    """Raise `InputError` unless both parts, which messages call `train` and `test`, have the same classes."""
    if list(classes) == list(test_classes):
        return
    differing = sorted(set(classes) ^ set(test_classes))
    if not differing:
        raise InputError(f"{test}: has the classes of {train} in another order")
    name = differing[0]
    there, missing = (train, test) if name in classes else (test, train)
    raise InputError(f"{missing}: lacks the class {name!r}, which {there} has; both need the same classes")


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
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield Path(place, name)


def file_header(path: Path) -> Header:
    """Read the header of a file's picture; `InputError` unless it is a still picture of a known kind."""
    try:
        empty = path.stat().st_size == 0
    except OSError:
        raise InputError(f"{shown(path)}: cannot be read, or leads nowhere") from None
    if empty:
        raise InputError(f"{shown(path)}: is empty")
    return header(Picture(path, shown(path)))


def labelled(files: PictureFiles, shape: tuple[int, int, int], resize: Resize | None) -> LabelledImages:
    """Decode all files into memory, uint8 [n, H, W, C] of the given shape."""
    return in_memory(_decoded(files, shape, resize), files.labels_n)


def streamed(files: PictureFiles, shape: tuple[int, int, int], resize: Resize | None) -> LabelledImages:
    """Return the files' images, which are decoded as they are needed."""
    read = _ReadFile(tuple(str(path) for path in files.paths), shape, resize)
    images = StreamedImages(read, len(files.paths), shape)
    return LabelledImages(images=images, labels=torch.from_numpy(files.labels_n))


def colour_squares(
    train: PictureFiles,
    test: PictureFiles,
    classes: Sequence[str],
    *,
    size: int,
    resize: Resize | None,
    memory_gib: float,
) -> SourceData:
    """Read pictures as colour squares: decoded once and cached, or beyond `memory_gib` as they are needed.

    The latter all have their headers read first, so that most of what is no picture is told at once.
    """
    shape = (size, size, 3)
    if not fits(len(train.paths) + len(test.paths), shape, memory_gib):
        for path in (*train.paths, *test.paths):
            file_header(path)
        return SourceData(
            train=streamed(train, shape, resize), test=streamed(test, shape, resize), classes=tuple(classes)
        )
    parts = {"train": train, "test": test}
    images = cached(
        ["files", *(_digest(part.paths) for part in parts.values()), shape, resize],
        lambda: {name: _decoded(part, shape, resize) for name, part in parts.items()},
    )
    return SourceData(
        train=in_memory(images["train"], train.labels_n),
        test=in_memory(images["test"], test.labels_n),
        classes=tuple(classes),
    )


def _decoded(files: PictureFiles, shape: tuple[int, int, int], resize: Resize | None) -> np.ndarray:
    pictures = (Picture(path, shown(path)) for path in files.paths)
    return decode_all(pictures, len(files.paths), shape, resize)


def _digest(paths: Sequence[Path]) -> str:
    """Return what changes whenever one of the files does."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            raise InputError(f"{shown(path)}: cannot be read, or leads nowhere") from None
        digest.update(json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _ReadFile:
    paths: tuple[str, ...]
    shape: tuple[int, int, int]
    resize: Resize | None

    def __call__(self, position: int) -> np.ndarray:
        path = Path(self.paths[position])
        return decode(Picture(path, shown(path)), self.shape, self.resize)
