"""ImageNet (ILSVRC 2012): folders named by WordNet ids, or packed as LMDB."""

from pathlib import Path

from codistill.config.data import DataConfig
from codistill.data.files import root_folder, shown
from codistill.data.images import SourceData
from codistill.data.packed import load_packs
from codistill.data.picture_files import (
    PictureFiles,
    class_folders,
    file_header,
    read_classes,
    refuse_difference,
    streamed,
)
from codistill.errors import InputError

_PLACES = ("", "ImageNet", "imagenet", "ILSVRC/Data/CLS-LOC", "ImageNet/ILSVRC/Data/CLS-LOC")
_PACKS = ("ILSVRC-train.lmdb", "ILSVRC-val.lmdb")
_FOLDERS = ("train", "val")


def load_imagenet(config: DataConfig) -> SourceData:
    """Load ILSVRC-{train,val}.lmdb, or else train/WNID/… and val/WNID/…, below `config.root`.

    Images are colour squares, uint8 [n, H, W, 3], read as they are needed. Classes are the sorted WordNet
    ids. In folders one picture of each class is looked at before training: the headers of all would take
    longer than an epoch of some networks. The pictures that `codistill pack` writes were decoded by it.

    `InputError` names the file or folder that cannot be used.
    """
    root = root_folder(config)
    for place in _PLACES:
        folder = root / place
        if _both(folder, _PACKS):
            return load_packs(config, *(folder / name for name in _PACKS))
        if _both(folder, _FOLDERS):
            return _load_folders(config, *(folder / name for name in _FOLDERS))
    raise InputError(
        f"data.root: {shown(root)} does not hold imagenet: looked for {' and '.join(_PACKS)}, or "
        f"{' and '.join(_FOLDERS)}, in {', '.join(place or 'the folder itself' for place in _PLACES)}"
    )


def _both(folder: Path, names: tuple[str, str]) -> bool:
    there = [name for name in names if (folder / name).exists()]
    if len(there) == 1:
        missing = next(name for name in names if name not in there)
        raise InputError(f"{shown(folder / missing)}: is missing beside {there[0]}")
    return len(there) == 2


def _load_folders(config: DataConfig, train_folder: Path, val_folder: Path) -> SourceData:
    if val_folder.is_dir() and not class_folders(val_folder):
        raise InputError(
            f"{shown(val_folder)}: has no folder for each class; its pictures must be sorted into folders "
            f"named as those of {shown(train_folder)}"
        )
    classes, train = read_classes(train_folder)
    val_classes, val = read_classes(val_folder)
    refuse_difference(shown(train_folder), classes, shown(val_folder), val_classes)
    for files in (train, val):
        _check_one_of_each_class(files)
    assert config.image_size is not None
    shape = (config.image_size, config.image_size, 3)
    return SourceData(
        train=streamed(train, shape, config.resize),
        test=streamed(val, shape, config.resize),
        classes=tuple(classes),
    )


def _check_one_of_each_class(files: PictureFiles) -> None:
    last = None
    for path, label in zip(files.paths, files.labels_n.tolist(), strict=True):
        if label != last:
            file_header(path)
        last = label
