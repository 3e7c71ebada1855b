"""Packed pictures (LMDB) as a source."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from codistill.config.data import SOURCES, DataConfig, Resize
from codistill.data.arrays import checked_labels, in_memory
from codistill.data.files import root_folder, shown
from codistill.data.held_out import held_out
from codistill.data.images import LabelledImages, SourceData, StreamedImages
from codistill.data.lmdb_file import Keys, Pack, is_lmdb, open_pack, read_picture
from codistill.data.picture_files import TEST_FOLDERS, refuse_difference
from codistill.data.pictures import decode, decode_all, fits
from codistill.errors import InputError


def load_lmdb(config: DataConfig) -> SourceData:
    """Load train.lmdb and test.lmdb in `config.root`, or the one file that it names, uint8 [n, H, W, C].

    A file val.lmdb, validation.lmdb or valid.lmdb serves as test set where there is no test.lmdb. Of a single
    file 20 % of each class is held out, drawn with seed 0. One channel where all are grey, else three. All
    must have one size, unless `config.image_size` asks for squares (see `config.resize`). Beyond
    `config.memory_gib` they are read as they are needed. `InputError` names the file or entry that cannot be
    used, or the package that is missing.
    """
    root = Path(config.root or "").expanduser()
    if config.root is not None and is_lmdb(root):
        pack = open_pack(root)
        classes = _classes(pack)
        checked_labels(pack.labels_n, len(classes), shown(root))
        train_positions, test_positions = held_out(pack.labels_n, classes, shown(root))
        return _source(config, pack.take(train_positions), pack.take(test_positions), classes)
    folder = root_folder(config)
    train = folder / "train.lmdb"
    tests = [folder / f"{name}.lmdb" for name in TEST_FOLDERS]
    test = next((path for path in tests if is_lmdb(path)), None)
    if not is_lmdb(train) or test is None:
        wanted = "train.lmdb" if not is_lmdb(train) else f"any of {', '.join(path.name for path in tests)}"
        raise InputError(
            f"data.root: {shown(folder)} does not hold {wanted}; one .lmdb file can be given too"
        )
    return load_packs(config, train, test)


def load_packs(config: DataConfig, train_path: Path, test_path: Path) -> SourceData:
    """Load two packs, which must have the same classes."""
    train, test = open_pack(train_path), open_pack(test_path)
    if train.classes is not None and test.classes is not None:
        refuse_difference(shown(train_path), train.classes, shown(test_path), test.classes)
    classes = test.classes if train.classes is None and test.classes is not None else _classes(train)
    for pack in (train, test):
        checked_labels(pack.labels_n, len(classes), shown(pack.path))
    return _source(config, train, test, classes)


def _classes(pack: Pack) -> tuple[str, ...]:
    if pack.classes is not None:
        return pack.classes
    highest = int(pack.labels_n.max(initial=0))
    if highest >= max(len(pack.labels_n), 2):
        raise InputError(f"{shown(pack.path)}: label {highest} is beyond {len(pack.labels_n)} images")
    return tuple(str(label) for label in range(highest + 1))


def _source(config: DataConfig, train: Pack, test: Pack, classes: tuple[str, ...]) -> SourceData:
    shape = _shape(config, train, test)
    resize = config.resize if config.image_size is not None else None
    in_ram = fits(len(train.keys) + len(test.keys), shape, config.memory_gib)
    read = _decoded if in_ram else _streamed
    return SourceData(train=read(train, shape, resize), test=read(test, shape, resize), classes=classes)


def _shape(config: DataConfig, train: Pack, test: Pack) -> tuple[int, int, int]:
    channels = SOURCES[config.source].channels or (1 if train.grey and test.grey else 3)
    if config.image_size is not None:
        return config.image_size, config.image_size, channels
    for pack in (train, test):
        if pack.size is None or pack.size != train.size:
            raise InputError(
                f"{shown(pack.path)}: its pictures differ in size; data.image_size makes them alike"
            )
    assert train.size is not None
    return *train.size, channels


def _decoded(pack: Pack, shape: tuple[int, int, int], resize: Resize | None) -> LabelledImages:
    return in_memory(decode_all(pack.pictures(), len(pack.keys), shape, resize), pack.labels_n)


def _streamed(pack: Pack, shape: tuple[int, int, int], resize: Resize | None) -> LabelledImages:
    read = _ReadEntry(str(pack.path), pack.keys, shape, resize)
    images = StreamedImages(read, len(pack.keys), shape)
    return LabelledImages(images=images, labels=torch.from_numpy(pack.labels_n))


@dataclass(frozen=True, eq=False)
class _ReadEntry:
    path: str
    keys: Keys
    shape: tuple[int, int, int]
    resize: Resize | None

    def __call__(self, position: int) -> np.ndarray:
        # The file is opened by each process that reads, whether it was forked or started afresh.
        return decode(read_picture(Path(self.path), self.keys[position]), self.shape, self.resize)
