"""STL-10: plain binary files."""

from pathlib import Path

import numpy as np

from codistill.config.data import DataConfig
from codistill.data.arrays import checked_labels, in_memory
from codistill.data.files import folder_with, shown
from codistill.data.images import LabelledImages, SourceData
from codistill.errors import InputError

_FILES = {"train": ("train_X.bin", "train_y.bin"), "test": ("test_X.bin", "test_y.bin")}
_NAMES = "class_names.txt"
_PLACES = ("stl10_binary", "", "STL10/stl10_binary", "STL10")
_SIZE = 96
_BYTES = 3 * _SIZE * _SIZE
_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def load_stl10(config: DataConfig) -> SourceData:
    """Load the labelled images of STL-10 below `config.root`, uint8 [n, 96, 96, 3].

    The files hold one image after another, one plane per colour, column by column; labels count from 1.
    Unlabelled images are not read. Names come from class_names.txt where it is there. Missing files are
    downloaded if `config.download` says so. `InputError` names a file that is missing, cut short or at odds
    with its partner.
    """
    folder = folder_with(config, _PLACES, [name for pair in _FILES.values() for name in pair])
    train, test = (_labelled(folder / images, folder / labels) for images, labels in _FILES.values())
    return SourceData(train=train, test=test, classes=_class_names(folder / _NAMES))


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return _CLASSES
    try:
        names = tuple(path.read_text(encoding="utf-8").split())
    except ValueError:
        raise InputError(f"{shown(path)}: is not text") from None
    if len(names) != len(_CLASSES) or len(set(names)) != len(names):
        raise InputError(f"{shown(path)}: must hold {len(_CLASSES)} different names, not {len(set(names))}")
    return names


def _labelled(images_path: Path, labels_path: Path) -> LabelledImages:
    size = images_path.stat().st_size
    if size % _BYTES:
        raise InputError(
            f"{shown(images_path)}: is cut short or of another kind: {size} bytes are not a multiple of "
            f"{_BYTES}, an image of 3×{_SIZE}×{_SIZE} bytes"
        )
    labels_n = np.fromfile(labels_path, np.uint8)
    if len(labels_n) * _BYTES != size:
        raise InputError(
            f"{shown(images_path)}: holds {size // _BYTES} images, "
            f"but {shown(labels_path)} {len(labels_n)} labels"
        )
    outside = np.flatnonzero((labels_n < 1) | (labels_n > len(_CLASSES)))
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"{shown(labels_path)}: label {labels_n[row]} of image {row} is outside 1 to {len(_CLASSES)}"
        )
    labels_n = checked_labels(labels_n.astype(np.int64) - 1, len(_CLASSES), shown(labels_path))
    images_NCWH = np.fromfile(images_path, np.uint8).reshape(-1, 3, _SIZE, _SIZE)
    return in_memory(images_NCWH.transpose(0, 3, 2, 1), labels_n)
