"""CIFAR-10 and CIFAR-100: the pickled batches of the authors' Python version."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from codistill.config.data import DataConfig
from codistill.data.arrays import checked_labels, in_memory
from codistill.data.files import folder_with, shown
from codistill.data.images import LabelledImages, SourceData
from codistill.data.pickles import read_plain_pickle
from codistill.errors import InputError


class _Layout(NamedTuple):
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    labels_key: str
    names_key: str


_LAYOUTS = {
    "cifar10": _Layout(
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test=("test_batch",),
        names="batches.meta",
        labels_key="labels",
        names_key="label_names",
    ),
    "cifar100": _Layout(
        folder="cifar-100-python",
        train=("train",),
        test=("test",),
        names="meta",
        labels_key="fine_labels",
        names_key="fine_label_names",
    ),
}


def load_cifar(config: DataConfig) -> SourceData:
    """Load CIFAR-10 or CIFAR-100 from `config.root` or its usual folders, uint8 [n, 32, 32, 3].

    Missing files are downloaded if `config.download` says so. `InputError` names a file that is missing,
    damaged, or holds anything but arrays and basic types.
    """
    layout = _LAYOUTS[config.source]
    places = (layout.folder, "", f"{config.source}/{layout.folder}", config.source)
    folder = folder_with(config, places, (*layout.train, *layout.test, layout.names))
    classes = _class_names(folder / layout.names, layout.names_key)
    train, test = (
        _labelled([folder / name for name in names], layout.labels_key, len(classes))
        for names in (layout.train, layout.test)
    )
    return SourceData(train=train, test=test, classes=classes)


def _class_names(path: Path, key: str) -> tuple[str, ...]:
    names = _entry(path, _batch(path), key)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise InputError(f"{shown(path)}: {key!r} is not a list of names")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)


def _labelled(paths: list[Path], labels_key: str, num_classes: int) -> LabelledImages:
    images, labels = [], []
    for path in paths:
        batch = _batch(path)
        images.append(_images(path, _entry(path, batch, "data")))
        labels.append(_labels(path, _entry(path, batch, labels_key), num_classes))
        if len(images[-1]) != len(labels[-1]):
            raise InputError(f"{shown(path)}: holds {len(images[-1])} images and {len(labels[-1])} labels")
    return in_memory(np.concatenate(images), np.concatenate(labels))


def _batch(path: Path) -> dict[Any, Any]:
    batch = read_plain_pickle(path)
    if not isinstance(batch, dict):
        raise InputError(
            f"{shown(path)}: is not a batch: it holds a {type(batch).__name__}, not a dictionary"
        )
    return batch


def _entry(path: Path, batch: dict[Any, Any], key: str) -> Any:
    # The authors' files come from Python 2, whose text is read as bytes.
    for form in (key.encode(), key):
        if form in batch:
            return batch[form]
    raise InputError(f"{shown(path)}: lacks the entry {key!r}")


def _images(path: Path, data: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        raise InputError(f"{shown(path)}: 'data' is not an array of bytes [n, 3072]")
    # One plane per colour, row by row.
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _labels(path: Path, labels: Any, num_classes: int) -> np.ndarray:
    whole = isinstance(labels, np.ndarray) and labels.ndim == 1
    if not whole and not (isinstance(labels, list) and all(type(label) is int for label in labels)):
        raise InputError(f"{shown(path)}: the labels are not a list of whole numbers")
    try:
        return checked_labels(labels, num_classes, shown(path))
    except OverflowError:
        raise InputError(f"{shown(path)}: a label is outside 0 to {num_classes - 1}") from None
