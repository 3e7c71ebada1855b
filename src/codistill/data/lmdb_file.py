"""An LMDB file of pictures: what it holds, and its entries one by one.

Each entry is a msgpack list of {"data": the picture's bytes} and its class, counted from 0. `__keys__` lists
the keys of all entries. This is also an older layout of the paper's authors. `codistill pack` adds what
saves reading every entry before training: `__labels__`, `__classes__` and `__codistill__`.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codistill.data.cache import cached
from codistill.data.extras import needed
from codistill.data.files import shown
from codistill.data.pictures import Picture, header
from codistill.errors import InputError, one_line

FORMAT = 1
KEYS, LENGTH, LABELS, CLASSES, NOTE = b"__keys__", b"__len__", b"__labels__", b"__classes__", b"__codistill__"

_environments: dict[str, tuple[list[int], Any]] = {}
"""By path, what is open in this process, with what must be the same for it to be used."""


class Keys:
    """The keys of entries, in two arrays: millions of separate objects would be slow to hand to workers."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._joined = b"".join(keys)
        self._ends = np.cumsum([len(key) for key in keys], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, position: int) -> bytes:
        start = int(self._ends[position - 1]) if position else 0
        return self._joined[start : int(self._ends[position])]

    def take(self, positions: np.ndarray) -> "Keys":
        """Return the keys at these positions."""
        return Keys([self[position] for position in positions.tolist()])


@dataclass(frozen=True, eq=False)
class Pack:
    """The entries of a file, or some of them.

    Args:
        path: The file, or the folder that holds it as data.mdb.
        keys: Where the entries are.
        labels_n: Their classes, int64 [n], counted from 0.
        classes: Names of the classes, where the file knows them.
        grey: Whether all of the file's pictures are grey.
        size: Height and width, where all have the same.
    """

    path: Path
    keys: Keys
    labels_n: np.ndarray
    classes: tuple[str, ...] | None
    grey: bool
    size: tuple[int, int] | None

    def take(self, positions: np.ndarray) -> "Pack":
        """Return the entries at these positions."""
        return Pack(
            self.path,
            self.keys.take(positions),
            self.labels_n[positions],
            self.classes,
            self.grey,
            self.size,
        )

    def pictures(self) -> Iterator[Picture]:
        """Yield the entries' pictures in order."""
        for position in range(len(self.keys)):
            yield read_picture(self.path, self.keys[position])


def is_lmdb(path: Path) -> bool:
    """Say whether a path can be an LMDB file: a file, or a folder with data.mdb in it."""
    return path.is_file() or (path / "data.mdb").is_file()


def open_pack(path: Path) -> Pack:
    """Read what a file holds, apart from the pictures.

    Where `codistill pack` did not write it, all entries are read once for their labels, sizes and colours,
    which are then cached. `InputError` says what cannot be read.
    """
    keys = _keys(path)
    noted = _value(path, NOTE)
    if noted is not None:
        return _own(path, keys, noted)
    data = _data_file(path)
    stat = data.stat()
    found = cached(
        ["lmdb", str(data.resolve()), stat.st_size, stat.st_mtime_ns], lambda: _scanned(path, keys)
    )
    height, width = found["size"].tolist()
    size = (height, width) if height else None
    return Pack(path, keys, found["labels"], _names(path), bool(found["grey"]), size)


def read_picture(path: Path, key: bytes) -> Picture:
    """Read one entry's picture; `InputError` names the entry."""
    return _entry(path, key)[0]


def unpacked(content: Any) -> Any:
    """Return what msgpack bytes hold, text as bytes; raises `ValueError` or what the library has for it."""
    msgpack = needed("msgpack", source="lmdb", extra="lmdb")
    # Both layouts of text, the old and the new one, are read as bytes; nothing else is built from them.
    return msgpack.unpackb(content, raw=True, strict_map_key=False)


def _own(path: Path, keys: Keys, noted: bytes) -> Pack:
    try:
        note = unpacked(noted)
        if note[b"format"] != FORMAT:
            raise InputError(f"{shown(path)}: was packed by another version of codistill: pack it anew")
        if note[b"finished"] is not True:
            raise InputError(f"{shown(path)}: is not finished: 'codistill pack' with the same paths goes on")
        labels = np.frombuffer(_present(path, LABELS), "<i4").astype(np.int64)
        sizes = [(int(height), int(width)) for height, width in note[b"sizes"]]
        grey = note[b"grey"] is True
    except InputError:
        raise
    except Exception as error:  # A damaged note can lack anything, or hold it as anything.
        raise InputError(f"{shown(path)}: is damaged: {one_line(error)}") from error
    if len(labels) != len(keys):
        raise InputError(f"{shown(path)}: holds {len(keys)} entries and {len(labels)} labels")
    return Pack(path, keys, labels, _names(path), grey, sizes[0] if len(sizes) == 1 else None)


def _scanned(path: Path, keys: Keys) -> dict[str, np.ndarray]:
    labels, sizes, grey = [], set(), True
    for position in range(len(keys)):
        picture, label = _entry(path, keys[position])
        found = header(picture)
        labels.append(label)
        sizes.add((found.height, found.width))
        grey = grey and found.grey
    size = sizes.pop() if len(sizes) == 1 else (0, 0)
    return {
        "labels": np.array(labels, np.int64),
        "size": np.array(size, np.int64),
        "grey": np.array(grey),
    }


def _names(path: Path) -> tuple[str, ...] | None:
    content = _value(path, CLASSES)
    if content is None:
        return None
    try:
        return tuple(name.decode("utf-8") for name in unpacked(content))
    except Exception as error:
        raise InputError(f"{shown(path)}: the names of its classes are damaged: {one_line(error)}") from error


def _keys(path: Path) -> Keys:
    content = _value(path, KEYS)
    if content is None:
        raise InputError(f"{shown(path)}: holds no list of keys: 'codistill pack FOLDER OUT.lmdb' writes one")
    try:
        keys = unpacked(content)
    except InputError:
        raise
    except Exception:
        keys = None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, bytes) for key in keys):
        raise InputError(f"{shown(path)}: its list of keys is not msgpack{_FOREIGN}")
    return Keys(keys)


_FOREIGN = (
    "; what pyarrow's old serializer or pickle wrote cannot be read without executing it:"
    " pack the pictures anew with 'codistill pack FOLDER OUT.lmdb'"
)


def _entry(path: Path, key: bytes) -> tuple[Picture, int]:
    where = f"entry {key.decode('ascii', 'backslashreplace')!r} of {shown(path)}"
    content = _value(path, key)
    if content is None:
        raise InputError(f"{where}: is missing")
    try:
        image, label = unpacked(content)
        image = image[b"data"] if isinstance(image, dict) else image
    except InputError:
        raise
    except Exception:
        image = label = None
    if not isinstance(image, bytes) or type(label) is not int:
        raise InputError(f"{where}: is not a msgpack list of a picture and a label{_FOREIGN}")
    if not 0 <= label < 2**31:
        raise InputError(f"{where}: label {label} is outside 0 to {2**31 - 1}")
    return Picture(image, where), label


def _present(path: Path, key: bytes) -> bytes:
    content = _value(path, key)
    if content is None:
        raise InputError(f"{shown(path)}: lacks {key.decode()}")
    held = unpacked(content)
    if not isinstance(held, bytes):
        raise InputError(f"{shown(path)}: {key.decode()} is damaged")
    return held


def _value(path: Path, key: bytes) -> bytes | None:
    lmdb = needed("lmdb", source="lmdb", extra="lmdb")
    try:
        with _environment(path).begin() as transaction:
            value: bytes | None = transaction.get(key)
            return value
    except lmdb.Error as error:
        raise InputError(f"{shown(path)}: is damaged: {one_line(error)}") from error


def _data_file(path: Path) -> Path:
    return path / "data.mdb" if path.is_dir() else path


def _environment(path: Path) -> Any:
    """Return the file, opened in this process: what a parent process opened must not be used after a fork."""
    lmdb = needed("lmdb", source="lmdb", extra="lmdb")
    data = _data_file(path)
    try:
        name, stat = os.path.realpath(data), data.stat()
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read: {error.strerror}") from error
    state = [os.getpid(), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns]
    known, environment = _environments.get(name, (None, None))
    if known == state:
        return environment
    if environment is not None:
        # LMDB refuses to open a file twice; without a lock file, closing here does not touch the parent's.
        environment.close()
        del _environments[name]
    try:
        # Random access gains nothing from reading ahead. Readers need no lock file: nobody writes.
        environment = lmdb.open(name, subdir=False, readonly=True, lock=False, readahead=False)
        pages = environment.info()["last_pgno"] + 1
        page = environment.stat()["psize"]
    except lmdb.Error as error:
        reason = one_line(error).rpartition(": ")[2]
        raise InputError(f"{shown(path)}: cannot be read as LMDB: {reason}") from error
    # LMDB maps the file: touching a page beyond its end would end the process.
    if stat.st_size < pages * page:
        environment.close()
        raise InputError(
            f"{shown(path)}: is cut short: {stat.st_size} bytes, of which it needs {pages * page}"
        )
    _environments[name] = (state, environment)
    return environment
