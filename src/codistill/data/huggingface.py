"""Any Hugging Face data set of images: by its name on the hub, or as local parquet files."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codistill.config.data import DataConfig, Resize
from codistill.data.arrays import checked_labels, in_memory
from codistill.data.cache import cached
from codistill.data.columns import chosen_columns
from codistill.data.files import shown
from codistill.data.hub import hub_table
from codistill.data.images import LabelledImages, SourceData, StreamedImages
from codistill.data.parquet import Table, parquet_table
from codistill.data.pictures import Picture, decode, decode_all, fits, header
from codistill.errors import InputError


def load_huggingface(config: DataConfig) -> SourceData:
    """Load the data set `config.hub_name`, or the parquet files that `config.root` names, uint8 [n, H, W, C].

    One channel where all images are grey, else three. All must have one size, unless `config.image_size`
    asks for squares (see `config.resize`). Images are decoded once and then cached (see
    `cache`); beyond `config.memory_gib` they are decoded as they are needed. `InputError` names the file,
    column or row that cannot be used, or the package that is missing.
    """
    if config.hub_name is not None:
        open_split = partial(hub_table, config.hub_name)
    else:
        assert config.root is not None
        open_split = partial(parquet_table, config.root)
    train, test = open_split(config.train_split), open_split(config.test_split)
    columns = chosen_columns(train, config)
    if chosen_columns(test, config) != columns:
        raise InputError(f"{test.where}: has other columns or classes than {train.where}")
    train_labels_n, test_labels_n = _labels(train, columns.label), _labels(test, columns.label)
    classes = columns.classes or _counted_classes(train_labels_n, train)
    checked_labels(train_labels_n, len(classes), train.where)
    checked_labels(test_labels_n, len(classes), test.where)

    resize = config.resize if config.image_size is not None else None
    identity = [train.identity, test.identity, columns.image, config.image_size, resize]
    shape = _shape(train, test, columns.image, config.image_size, identity)
    if not fits(train.count + test.count, shape, config.memory_gib):
        return SourceData(
            train=_streamed(train, columns.image, train_labels_n, shape, resize),
            test=_streamed(test, columns.image, test_labels_n, shape, resize),
            classes=classes,
        )
    images = cached(
        [identity, "images"],
        lambda: {
            name: decode_all(_pictures(table, columns.image), table.count, shape, resize)
            for name, table in (("train", train), ("test", test))
        },
    )
    return SourceData(
        train=in_memory(images["train"], train_labels_n),
        test=in_memory(images["test"], test_labels_n),
        classes=classes,
    )


def _labels(table: Table, column: str) -> np.ndarray:
    parts = [np.zeros(0, np.int64)]
    for batch in table.batches([column]):
        if batch.column(0).null_count:
            raise InputError(f"{table.where}: column {column!r} has rows without a label")
        parts.append(batch.column(0).to_numpy(zero_copy_only=False).astype(np.int64))
    return np.concatenate(parts)


def _counted_classes(labels_n: np.ndarray, table: Table) -> tuple[str, ...]:
    highest = int(labels_n.max(initial=0))
    if highest >= max(len(labels_n), 2):
        raise InputError(
            f"{table.where}: label {highest} is beyond {len(labels_n)} images; labels count from 0"
        )
    return tuple(str(label) for label in range(highest + 1))


def _shape(
    train: Table, test: Table, column: str, image_size: int | None, identity: Any
) -> tuple[int, int, int]:
    def measure() -> dict[str, np.ndarray]:
        first = header(next(_pictures(train, column)))
        both = itertools.chain(_pictures(train, column), _pictures(test, column))
        # The first coloured image settles it, which is nearly always the very first.
        channels = 1 if all(header(picture).grey for picture in both) else 3
        height, width = (first.height, first.width) if image_size is None else (image_size, image_size)
        return {"shape": np.array([height, width, channels])}

    height, width, channels = cached([identity, "shape"], measure)["shape"].tolist()
    return height, width, channels


def _pictures(table: Table, column: str) -> Iterator[Picture]:
    rows = (value for batch in table.batches([column]) for value in batch.column(0).to_pylist())
    for row, value in enumerate(rows):
        yield _picture(value, f"row {row} of {table.where}")


def _picture(value: Any, where: str) -> Picture:
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if content is not None:
        return Picture(content, where)
    if path is not None and Path(path).is_file():
        return Picture(Path(path), f"{where}, {shown(path)}")
    raise InputError(f"{where}: holds no image")


def _streamed(
    table: Table, column: str, labels_n: np.ndarray, shape: tuple[int, int, int], resize: Resize | None
) -> LabelledImages:
    rows = table.rows().select_columns([column]).with_format("arrow")
    images = StreamedImages(_ReadRow(rows, table.where, shape, resize), table.count, shape)
    return LabelledImages(images=images, labels=torch.from_numpy(labels_n))


@dataclass(frozen=True)
class _ReadRow:
    rows: Any
    where: str
    shape: tuple[int, int, int]
    resize: Resize | None

    def __call__(self, position: int) -> np.ndarray:
        value = self.rows[position].column(0)[0].as_py()
        return decode(_picture(value, f"row {position} of {self.where}"), self.shape, self.resize)
