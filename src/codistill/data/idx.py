"""MNIST and Fashion-MNIST: IDX files, packed (.gz) or not.

A reader of our own, since torchvision accepts only unpacked files in one layout.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from codistill.config.data import SOURCES, DataConfig
from codistill.data.arrays import checked_labels, in_memory
from codistill.data.files import folder_with, shown, stored
from codistill.data.images import LabelledImages, SourceData
from codistill.errors import InputError, one_line

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Each source looks into its own folders only: torchvision puts both below one root.
_PLACES = {
    "mnist": ("", "raw", "MNIST/raw", "MNIST", "MNIST/MNIST/raw"),
    "fashion_mnist": (
        *("", "raw", "FashionMNIST/raw", "FashionMNIST"),
        *("Fashion-MNIST/raw", "Fashion-MNIST", "Fashion-MNIST/FashionMNIST/raw"),
    ),
}
_CLASSES = {
    "mnist": tuple(str(digit) for digit in range(10)),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
_UNSIGNED_BYTES = 8
_HIGHEST_GZIP_RATIO = 1032  # Deflate cannot pack tighter.


def load_idx(config: DataConfig) -> SourceData:
    """Load MNIST or Fashion-MNIST below `config.root`: grey 28×28 images, uint8 [n, 28, 28, 1].

    Missing files are downloaded if `config.download` says so. `InputError` names a file that is missing,
    cut short, of another kind, or at odds with its partner.
    """
    names = [name for pair in _FILES.values() for name in pair]
    folder = folder_with(config, _PLACES[config.source], names, or_packed=True)
    classes = _CLASSES[config.source]
    size = SOURCES[config.source].image_size
    assert size is not None
    train, test = (_labelled(folder, *_FILES[split], size, len(classes)) for split in ("train", "test"))
    return SourceData(train=train, test=test, classes=classes)


def _labelled(
    folder: Path, images_name: str, labels_name: str, size: int, num_classes: int
) -> LabelledImages:
    images_path, labels_path = stored(folder / images_name), stored(folder / labels_name)
    images_NHW = read_idx(images_path, dimensions=3)
    labels_n = checked_labels(read_idx(labels_path, dimensions=1), num_classes, shown(labels_path))
    if images_NHW.shape[1:] != (size, size):
        height, width = images_NHW.shape[1:]
        raise InputError(f"{shown(images_path)}: images are {height}×{width} pixels, not {size}×{size}")
    if len(images_NHW) != len(labels_n):
        raise InputError(
            f"{shown(images_path)}: holds {len(images_NHW)} images, "
            f"but {shown(labels_path)} {len(labels_n)} labels"
        )
    return in_memory(images_NHW[..., None], labels_n)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes, packed if its name ends in .gz, as a uint8 array.

    `InputError` unless it has that many dimensions and exactly the bytes that its header announces.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != bytes([0, 0, _UNSIGNED_BYTES, dimensions]):
                raise InputError(
                    f"{shown(path)}: is not an IDX file of unsigned bytes in {dimensions} dimensions: "
                    f"it starts with {header[:4].hex(' ') or 'nothing'}"
                )
            if len(header) < 4 + 4 * dimensions:
                raise InputError(f"{shown(path)}: is cut short within its header")
            shape = tuple(int(extent) for extent in np.frombuffer(header, dtype=">u4", offset=4))
            expected = math.prod(shape)
            # Asked before reading, so that a forged header cannot fill the memory.
            most = path.stat().st_size * (_HIGHEST_GZIP_RATIO if packed else 1)
            content = file.read(expected + 1) if expected <= most else b""
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{shown(path)}: cannot be read: {one_line(error)}") from error
    if len(content) != expected:
        found = "more" if len(content) > expected else f"{len(content)}" if content else "fewer"
        raise InputError(f"{shown(path)}: its header announces {expected} bytes, but {found} follow")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape).copy()
