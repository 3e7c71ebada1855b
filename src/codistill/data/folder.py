"""Any folder of pictures, one folder a class."""

from collections.abc import Sequence
from pathlib import Path

from codistill.config.data import DataConfig
from codistill.data.files import root_folder, shown
from codistill.data.held_out import held_out
from codistill.data.images import SourceData
from codistill.data.picture_files import (
    TEST_FOLDERS,
    class_folders,
    file_header,
    labelled,
    read_classes,
    refuse_difference,
    streamed,
)
from codistill.data.pictures import fits
from codistill.errors import InputError


def load_folder(config: DataConfig) -> SourceData:
    """Load `config.root`/train/CLASS/… and `config.root`/test/CLASS/…, or `config.root`/CLASS/….

    A folder val, validation or valid serves as test set where there is no folder test. Where there is
    neither a train nor a test folder, 20 % of each class is held out, drawn with seed 0. Classes are the
    sorted names; pictures may lie in folders within a class; hidden files and folders are passed over.

    Images are uint8 [n, H, W, C] with one channel where all are grey, else three. All must have one size,
    unless `config.image_size` asks for squares (see `config.resize`). Beyond `config.memory_gib` they stay
    on disk. `InputError` names the file or folder that cannot be used.
    """
    root = root_folder(config)
    train_folder = root / "train"
    # A class may be called train: then the pictures lie directly in it.
    if train_folder.is_dir() and class_folders(train_folder):
        classes, train = read_classes(train_folder)
        test_folder = _test_folder(root)
        test_classes, test = read_classes(test_folder)
        refuse_difference(shown(train_folder), classes, shown(test_folder), test_classes)
    else:
        classes, files = read_classes(root)
        train, test = (files.take(positions) for positions in held_out(files.labels_n, classes, shown(root)))
    shape = _common_shape([*train.paths, *test.paths], config.image_size)
    resize = config.resize if config.image_size is not None else None
    in_ram = fits(len(train.paths) + len(test.paths), shape, config.memory_gib)
    read = labelled if in_ram else streamed
    return SourceData(
        train=read(train, shape, resize), test=read(test, shape, resize), classes=tuple(classes)
    )


def _test_folder(root: Path) -> Path:
    for name in TEST_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise InputError(
        f"data.root: {shown(root)} has a folder train but none of {', '.join(TEST_FOLDERS)}; "
        f"give {shown(root / 'train')} to hold out 20 % of it"
    )


def _common_shape(paths: Sequence[Path], image_size: int | None) -> tuple[int, int, int]:
    all_grey = True
    first: tuple[int, int] | None = None
    for path in paths:
        found = file_header(path)
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
