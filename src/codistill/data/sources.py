"""From the section `data` to the images it names."""

from collections.abc import Callable
from importlib import import_module
from typing import cast

from codistill.config.data import SOURCES, DataConfig, Source
from codistill.data.images import LabelledImages, MemoryImages, SourceData
from codistill.errors import InputError

# Where each source's loader is: a module is imported, with the libraries it needs, only when asked for.
_LOADERS: dict[Source, tuple[str, str]] = {
    "digits": ("digits", "load_digits"),
    "mnist": ("idx", "load_idx"),
    "fashion_mnist": ("idx", "load_idx"),
    "cifar10": ("cifar", "load_cifar"),
    "cifar100": ("cifar", "load_cifar"),
    "svhn": ("svhn", "load_svhn"),
    "stl10": ("stl10", "load_stl10"),
    "caltech256": ("caltech", "load_caltech"),
    "cub2011": ("cub", "load_cub"),
    "imagenet": ("imagenet", "load_imagenet"),
    "huggingface": ("huggingface", "load_huggingface"),
    "folder": ("folder", "load_folder"),
    "lmdb": ("packed", "load_lmdb"),
}


def load_source(config: DataConfig) -> SourceData:
    """Load the images, labels and class names that `config` names, in the size that it asks for.

    `InputError` names the file, row, label or setting that cannot be used, or says that the number of
    classes is not the one expected.
    """
    config = config.completed()
    module, name = _LOADERS[config.source]
    load = cast(Callable[[DataConfig], SourceData], getattr(import_module(f"codistill.data.{module}"), name))
    data = load(config)
    if config.num_classes is not None and config.num_classes != len(data.classes):
        raise InputError(
            f"data.num_classes: is {config.num_classes}, but {config.source} has {len(data.classes)} classes"
        )
    facts = SOURCES[config.source]
    if facts.pictures or config.image_size == facts.image_size:
        return data
    train, test = (_scaled(part, config.image_size) for part in (data.train, data.test))
    return SourceData(train=train, test=test, classes=data.classes)


def _scaled(part: LabelledImages, size: int | None) -> LabelledImages:
    assert isinstance(part.images, MemoryImages)
    return LabelledImages(images=MemoryImages(part.images.images_NHWC, size), labels=part.labels)
