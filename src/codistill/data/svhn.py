"""SVHN, cropped digits: MATLAB files."""

from pathlib import Path

import numpy as np

from codistill.config.data import DataConfig
from codistill.data.arrays import checked_labels, in_memory
from codistill.data.files import folder_with, shown
from codistill.data.images import LabelledImages, SourceData
from codistill.errors import InputError, one_line

_FILES = ("train_32x32.mat", "test_32x32.mat")
_PLACES = ("", "SVHN")


def load_svhn(config: DataConfig) -> SourceData:
    """Load train_32x32.mat and test_32x32.mat in `config.root` or its folder SVHN, uint8 [n, 32, 32, 3].

    The files write the digit 0 as class 10. Missing files are downloaded if `config.download` says so.
    `InputError` names a file that is missing, unreadable or of another shape.
    """
    folder = folder_with(config, _PLACES, _FILES)
    train, test = (_labelled(folder / name) for name in _FILES)
    return SourceData(train=train, test=test, classes=tuple(str(digit) for digit in range(10)))


def _labelled(path: Path) -> LabelledImages:
    from scipy import io

    try:
        content = io.loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # SciPy lets a damaged file fail in any way: struct, zlib, index, memory …
        raise InputError(f"{shown(path)}: cannot be read as a MATLAB file: {one_line(error)}") from error
    images_HWCN, labels = content.get("X"), content.get("y")
    if not isinstance(images_HWCN, np.ndarray) or not isinstance(labels, np.ndarray):
        raise InputError(f"{shown(path)}: lacks X (images) or y (labels)")
    if images_HWCN.dtype != np.uint8 or images_HWCN.ndim != 4 or images_HWCN.shape[:3] != (32, 32, 3):
        raise InputError(
            f"{shown(path)}: X is {images_HWCN.dtype} {list(images_HWCN.shape)}, not uint8 [32, 32, 3, n]"
        )
    count = images_HWCN.shape[3]
    if labels.dtype.kind not in "ui" or labels.size != count:
        raise InputError(
            f"{shown(path)}: y is {labels.dtype} with {labels.size} labels, not {count} whole numbers"
        )
    labels_n = labels.reshape(-1).astype(np.int64)
    if np.any(labels_n == 0):
        raise InputError(
            f"{shown(path)}: y has the label 0; SVHN's labels are 1 to 10, of which 10 is the digit 0"
        )
    labels_n = checked_labels(np.where(labels_n == 10, 0, labels_n), 10, shown(path))
    return in_memory(images_HWCN.transpose(3, 0, 1, 2), labels_n)
