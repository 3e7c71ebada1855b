"""Small copies of every data source, each in the layout its files have in the wild.

Each function writes below a folder and returns the settings of `DataConfig`, apart from `source`, that
read it. Training images
are `pixels(n, shape, seed=0)`, test images `pixels(n, shape, seed=1)`; image i has the label i % classes.
"""

import gzip
import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

SPLITS = {"train": 0, "test": 1}
CLASSES = ("kind0", "kind1", "kind2")


def pixels(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def labels(count: int, num_classes: int) -> np.ndarray:
    return np.arange(count) % num_classes


def make_idx(
    folder: Path, name: str = "fashion_mnist", per_class: int = 2, *, packed: bool = True, layout: str = ""
) -> dict[str, Any]:
    place = folder / layout
    place.mkdir(parents=True, exist_ok=True)
    for prefix, seed in (("train", 0), ("t10k", 1)):
        write_idx(place / f"{prefix}-images-idx3-ubyte", pixels(10 * per_class, (28, 28), seed), packed)
        write_idx(place / f"{prefix}-labels-idx1-ubyte", labels(10 * per_class, 10), packed)
    return {"root": str(folder)}


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    if packed:
        path = path.with_name(f"{path.name}.gz")
        content = gzip.compress(content)
    path.write_bytes(content)


def make_cifar10(folder: Path, per_class: int = 2, *, layout: str = "cifar-10-batches-py") -> dict[str, Any]:
    place = folder / layout
    place.mkdir(parents=True, exist_ok=True)
    count = 10 * per_class
    images = pixels(count, (32, 32, 3), 0)
    for number, rows in enumerate(np.array_split(np.arange(count), 5), start=1):
        batch = _cifar_batch(images[rows], labels(count, 10)[rows], b"labels")
        write_python2_pickle(place / f"data_batch_{number}", batch)
    batch = _cifar_batch(pixels(count, (32, 32, 3), 1), labels(count, 10), b"labels")
    write_python2_pickle(place / "test_batch", batch)
    names = [f"kind{label}".encode() for label in range(10)]
    write_python2_pickle(place / "batches.meta", {b"label_names": names, b"num_vis": 3072})
    return {"root": str(folder)}


def make_cifar100(folder: Path, per_class: int = 1, *, layout: str = "cifar-100-python") -> dict[str, Any]:
    place = folder / layout
    place.mkdir(parents=True, exist_ok=True)
    count = 100 * per_class
    for split, seed in SPLITS.items():
        batch = _cifar_batch(pixels(count, (32, 32, 3), seed), labels(count, 100), b"fine_labels")
        batch[b"coarse_labels"] = [0] * count
        write_python2_pickle(place / split, batch)
    names = [f"kind{label}".encode() for label in range(100)]
    write_python2_pickle(place / "meta", {b"fine_label_names": names, b"coarse_label_names": [b"all"]})
    return {"root": str(folder)}


def _cifar_batch(images_NHWC: np.ndarray, labels_n: np.ndarray, key: bytes) -> dict[bytes, Any]:
    return {
        b"batch_label": b"a batch",
        key: labels_n.tolist(),
        b"data": np.ascontiguousarray(images_NHWC.transpose(0, 3, 1, 2)).reshape(-1, 3072),
        b"filenames": [f"{row}.png".encode() for row in range(len(labels_n))],
    }


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes bytes as Python 2 wrote its text and NumPy by its name of then, as CIFAR's own files have it."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, text: bytes) -> None:
        short = len(text) < 256
        self.write((b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text))) + text)
        self.memoize(text)

    dispatch[bytes] = save_text

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__name__}\n".encode())
        self.memoize(value)


def write_python2_pickle(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)


def make_svhn(folder: Path, per_class: int = 2, *, layout: str = "") -> dict[str, Any]:
    from scipy import io as matlab

    place = folder / layout
    place.mkdir(parents=True, exist_ok=True)
    count = 10 * per_class
    for split, seed in SPLITS.items():
        digits = labels(count, 10)
        content = {
            "X": pixels(count, (32, 32, 3), seed).transpose(1, 2, 3, 0),
            "y": np.where(digits == 0, 10, digits).astype(np.uint8)[:, None],
        }
        matlab.savemat(place / f"{split}_32x32.mat", content, do_compression=True)
    return {"root": str(folder)}


def make_parquet(
    folder: Path,
    per_class: int = 2,
    *,
    classes: tuple[str, ...] = CLASSES,
    size: tuple[int, int] = (32, 32),
    channels: int = 3,
    layout: str = "",
    label_columns: tuple[str, ...] = ("label",),
) -> dict[str, Any]:
    """Write a Hugging Face data set: columns img (an image, PNG) and label (named classes)."""
    place = folder / layout
    place.mkdir(parents=True, exist_ok=True)
    count = len(classes) * per_class
    for split, seed in SPLITS.items():
        images = [png(image) for image in pixels(count, (*size, channels), seed)]
        path = place / f"{split}-00000-of-00001.parquet"
        write_parquet(
            path, images, labels(count, len(classes)).tolist(), classes=classes, label_columns=label_columns
        )
    return {"root": str(folder)}


def write_parquet(
    path: Path,
    images: list[bytes | None],
    labels_n: list[int | None],
    *,
    classes: tuple[str, ...] = CLASSES,
    label_columns: tuple[str, ...] = ("label",),
    features: bool = True,
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"bytes": image, "path": None} for image in images]
    image_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table(
        {
            "img": pa.array(rows, image_type),
            **{name: pa.array(labels_n, pa.int64()) for name in label_columns},
        }
    )
    if features:
        label = {"names": list(classes), "_type": "ClassLabel"}
        noted = {"img": {"_type": "Image"}, **dict.fromkeys(label_columns, label)}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": noted}})})
    parquet.write_table(table, path)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def make_folder(
    folder: Path,
    per_class: int = 2,
    *,
    classes: tuple[str, ...] = CLASSES,
    size: tuple[int, int] = (32, 32),
    channels: int = 3,
    splits: tuple[str, ...] = ("train", "test"),
    extension: str = "png",
) -> dict[str, Any]:
    """Write SPLIT/CLASS/NNN.png; with `splits=("",)` only training images, CLASS/NNN.png.

    Within a class the pictures are in the order of `pixels`.
    """
    count = len(classes) * per_class
    for seed, split in enumerate(splits):
        for row, image in enumerate(pixels(count, (*size, channels), seed)):
            place = folder / split / classes[row % len(classes)]
            place.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
            picture.save(place / f"{row:03d}.{extension}")
    return {"root": str(folder)}


def make_stl10(folder: Path, per_class: int = 2, *, layout: str = "stl10_binary") -> dict[str, Any]:
    place = folder / layout
    place.mkdir(parents=True, exist_ok=True)
    count = 10 * per_class
    for split, seed in SPLITS.items():
        # Colour after colour, and each of them column by column.
        images_NCWH = pixels(count, (96, 96, 3), seed).transpose(0, 3, 2, 1)
        (place / f"{split}_X.bin").write_bytes(images_NCWH.tobytes())
        (place / f"{split}_y.bin").write_bytes((labels(count, 10) + 1).astype(np.uint8).tobytes())
    (place / "class_names.txt").write_text("".join(f"kind{label}\n" for label in range(10)))
    return {"root": str(folder)}


def jpeg(path: Path, number: int, size: tuple[int, int] = (20, 30), *, grey: bool = False) -> None:
    """Write a smooth picture of height × width pixels, different for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    colour = pixels(1, (2, 3), number)[0].astype(np.float64)
    share = ((rows / height + columns / width) / 2)[..., None]
    image = (colour[0] * share + colour[1] * (1 - share)).astype(np.uint8)
    Image.fromarray(image[..., 0] if grey else image).save(path, "JPEG", quality=95)


def make_caltech(
    folder: Path, per_class: int = 5, *, layout: str = "256_ObjectCategories", split: bool = False
) -> dict[str, Any]:
    """Write three classes, the last the clutter; with `split` in the folders Train and Test."""
    parts = (f"Train/{layout}", f"Test/{layout}") if split else (layout,)
    for seed, part in enumerate(parts):
        for label, name in enumerate(("001.ak47", "002.american-flag", "003.clutter")):
            for row in range(1, per_class + 1):
                path = folder / part / name / f"{label + 1:03d}_{row:04d}.jpg"
                # Some of its pictures are grey.
                jpeg(path, 100 * seed + 10 * label + row, (20 + row, 40 - label), grey=row == 2)
    return {"root": str(folder)}


def make_cub(folder: Path, per_class: int = 4, *, layout: str = "CUB_200_2011") -> dict[str, Any]:
    """Write three classes, of whose pictures every other one is for training."""
    place = folder / layout
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
    images, classes, parts = [], [], []
    for label, name in enumerate(names, start=1):
        for row in range(per_class):
            number = len(images) + 1
            file = f"{name}/{name[4:]}_{row:04d}_{number}.jpg"
            jpeg(place / "images" / file, number, (30, 20 + row))
            images.append(f"{number} {file}\n")
            classes.append(f"{number} {label}\n")
            parts.append(f"{number} {row % 2}\n")
    listed = [f"{label} {name}\n" for label, name in enumerate(names, start=1)]
    for name, lines in (
        ("images.txt", images),
        ("image_class_labels.txt", classes),
        ("train_test_split.txt", parts),
        ("classes.txt", listed),
    ):
        (place / name).write_text("".join(lines))
    return {"root": str(folder)}


WORDNET_IDS = ("n01440764", "n01443537", "n02102040")


def make_imagenet(folder: Path, per_class: int = 2, *, layout: str = "") -> dict[str, Any]:
    for split, seed in (("train", 0), ("val", 1)):
        for label, name in enumerate(WORDNET_IDS):
            for row in range(per_class):
                path = folder / layout / split / name / f"{split}_{label}_{row:05d}.JPEG"
                jpeg(path, 100 * seed + 10 * label + row, (24 + row, 32))
    return {"root": str(folder)}


def write_lmdb(
    path: Path, entries: list[tuple[bytes, Any]], keys: bytes | None = None, *, folder: bool = False
) -> None:
    """Write the older layout of the paper's authors: keys by msgpack, and entries such as `packed_entry`."""
    import lmdb
    import msgpack

    listed = msgpack.packb([key for key, _ in entries]) if keys is None else keys
    environment = lmdb.open(str(path), subdir=folder, map_size=2**26)
    with environment, environment.begin(write=True) as transaction:
        for key, content in entries:
            transaction.put(key, content)
        transaction.put(b"__keys__", listed)
        transaction.put(b"__len__", msgpack.packb(len(entries)))


def packed_entry(image: bytes, label: Any) -> bytes:
    import msgpack

    return msgpack.packb([{b"data": image}, label])


def make_lmdb(folder: Path, per_class: int = 2, *, size: tuple[int, int] = (32, 32)) -> dict[str, Any]:
    """Write train.lmdb and test.lmdb as `codistill pack` does."""
    from codistill.data.pack import pack

    make_folder(folder / "pictures", per_class, size=size)
    for split in SPLITS:
        pack(folder / "pictures" / split, folder / f"{split}.lmdb")
    return {"root": str(folder)}
