"""Packing a folder of pictures into one LMDB file, which can be stopped at any moment and continued."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from codistill.atomic import sync_folder
from codistill.data.extras import needed
from codistill.data.files import shown
from codistill.data.lmdb_file import CLASSES, FORMAT, KEYS, LABELS, LENGTH, NOTE, unpacked
from codistill.data.picture_files import PictureFiles, class_folders, read_classes
from codistill.data.pictures import Header, Picture, verified
from codistill.errors import InputError, one_line

_MOST_AT_ONCE, _BYTES_AT_ONCE = 256, 2**26
_PAGE = 4096


class Unfinished(Exception):  # noqa: N818 - a request, not an error
    """Packing was asked to stop; what was packed is kept."""


def pack(folder: Path, out: Path, stop: Callable[[], bool] = lambda: False) -> int:
    """Write the pictures of `folder`, one folder a class, into the LMDB file `out`; return their count.

    Pictures are stored as they are, after each was decoded once to see that it is one. Until all are in, the
    file is called `out`.partial; the same call goes on where it was stopped, or killed. Stored are, as
    msgpack, [{"data": bytes}, class] under keys 00000000, 00000001, … in the order of sorted classes and
    files, and the keys, labels and names of the classes.

    Args:
        folder: A folder for each class.
        out: The file to make.
        stop: Asked between groups of pictures; true saves and raises `Unfinished`.

    Raises:
        InputError: Something is no picture, `out` or its partial file was made from anything else, or
            nothing can be written. What was packed before is kept.
        Unfinished: `stop` answered true.
    """
    if (folder / "train").is_dir() and class_folders(folder / "train"):
        raise InputError(
            f"{shown(folder)}: holds splits, not classes: pack {shown(folder / 'train')} by itself"
        )
    if not out.parent.is_dir():
        raise InputError(f"{shown(out.parent)}: is not a folder to write {out.name} into")
    classes, files = read_classes(folder)
    work = _Work(folder, classes, files)
    if out.exists():
        with _opened(out, readonly=True) as environment:
            if not work.matches(_note(environment), finished=True):
                raise InputError(f"{shown(out)}: exists, but is no pack of {shown(folder)} as it is now")
        return len(files.paths)
    partial = out.with_name(f"{out.name}.partial")
    with _alone(partial) as is_new:
        try:
            with _opened(partial, map_size=work.most_bytes(partial)) as environment:
                work.go_on(environment, partial, stop)
        except BaseException:
            if is_new and not work.done:  # Nothing is worth keeping.
                partial.unlink(missing_ok=True)
            raise
        os.replace(partial, out)
        sync_folder(out.parent)
    return len(files.paths)


class _Work:
    """Which pictures go into a pack, and how far it is."""

    def __init__(self, folder: Path, classes: list[str], files: PictureFiles) -> None:
        self.folder, self.classes, self.files = folder, classes, files
        self.stats = [_stat(path) for path in files.paths]
        self.done = 0
        self._digested, self._digest = 0, hashlib.sha256(json.dumps(classes).encode())
        self.grey = True
        self.sizes: list[list[int]] = []  # Two different ones at most: then the pictures differ.

    def most_bytes(self, partial: Path) -> int:
        """Return what the file cannot outgrow; it takes no room before it is written."""
        pictures = sum(stat.st_size + 4 * _PAGE for stat in self.stats)
        return pictures + partial.stat().st_size + 2**28

    def digest(self, count: int) -> bytes:
        """Return what changes whenever the classes, or one of the first `count` files, do.

        It is never asked for fewer files than before.
        """
        for position in range(self._digested, count):
            name = self.files.paths[position].relative_to(self.folder).as_posix()
            stat = self.stats[position]
            self._digest.update(json.dumps([name, stat.st_size, stat.st_mtime_ns]).encode())
        self._digested = max(self._digested, count)
        return self._digest.copy().digest()

    def matches(self, note: dict[bytes, Any] | None, *, finished: bool) -> bool:
        """Say whether a pack with this note was made from these files, or from the first of them."""
        if note is None or note.get(b"format") != FORMAT or note.get(b"finished") is not finished:
            return False
        done = note.get(b"done")
        if (
            type(done) is not int
            or not 0 <= done <= len(self.stats)
            or (finished and done != len(self.stats))
        ):
            return False
        return note.get(b"digest") == self.digest(done)

    def go_on(self, environment: Any, partial: Path, stop: Callable[[], bool]) -> None:
        """Write what is missing."""
        note = _note(environment)
        if self.matches(note, finished=True):  # It was killed before the file got its name.
            self.done = len(self.stats)
            return
        if note is not None and self.matches(note, finished=False):
            self.done, self.grey = note[b"done"], note[b"grey"]
            self.sizes = note[b"sizes"]
        elif environment.stat()["entries"]:
            raise InputError(
                f"{shown(partial)}: was not begun from {shown(self.folder)} as it is now; "
                f"without that file packing begins anew"
            )
        workers = os.cpu_count() or 1
        count = len(self.files.paths)
        with (
            ThreadPoolExecutor(workers) as pool,
            tqdm(total=count, initial=self.done, desc="packing", unit="image", disable=None) as bar,
        ):
            while self.done < count:
                if stop():
                    raise Unfinished
                group = range(self.done, self._end_of_group())
                read = list(pool.map(_verified, [self.files.paths[position] for position in group]))
                self._write(environment, group, read)
                bar.update(len(group))
        self._finish(environment)

    def _end_of_group(self) -> int:
        end, size = self.done, 0
        while end < len(self.stats) and end - self.done < _MOST_AT_ONCE and size < _BYTES_AT_ONCE:
            size += self.stats[end].st_size
            end += 1
        return end

    def _write(self, environment: Any, group: range, read: list[tuple[bytes, Header]]) -> None:
        msgpack = needed("msgpack", source="lmdb", extra="lmdb")
        grey, sizes = self.grey, list(self.sizes)
        with environment.begin(write=True) as transaction:
            for position, (content, found) in zip(group, read, strict=True):
                label = int(self.files.labels_n[position])
                transaction.put(_key(position), msgpack.packb([{"data": content}, label]))
                grey = grey and found.grey
                size = [found.height, found.width]
                if len(sizes) < 2 and size not in sizes:
                    sizes.append(size)
            transaction.put(NOTE, self._noted(group.stop, grey, sizes, finished=False))
        self.done, self.grey, self.sizes = group.stop, grey, sizes

    def _finish(self, environment: Any) -> None:
        msgpack = needed("msgpack", source="lmdb", extra="lmdb")
        keys = [_key(position) for position in range(self.done)]
        with environment.begin(write=True) as transaction:
            transaction.put(KEYS, msgpack.packb(keys))
            transaction.put(LENGTH, msgpack.packb(self.done))
            transaction.put(LABELS, msgpack.packb(self.files.labels_n.astype("<i4").tobytes()))
            transaction.put(CLASSES, msgpack.packb(self.classes))
            transaction.put(NOTE, self._noted(self.done, self.grey, self.sizes, finished=True))
        environment.sync(True)

    def _noted(self, done: int, grey: bool, sizes: list[list[int]], *, finished: bool) -> bytes:
        msgpack = needed("msgpack", source="lmdb", extra="lmdb")
        note = {"format": FORMAT, "finished": finished, "done": done, "digest": self.digest(done)}
        packed: bytes = msgpack.packb(note | {"grey": grey, "sizes": sizes})
        return packed


def _key(position: int) -> bytes:
    return f"{position:08d}".encode()


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read: {error.strerror}") from error


def _verified(path: Path) -> tuple[bytes, Header]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read: {error.strerror}") from error
    if not content:
        raise InputError(f"{shown(path)}: is empty")
    return content, verified(Picture(content, shown(path)))


def _note(environment: Any) -> dict[bytes, Any] | None:
    with environment.begin() as transaction:
        content = transaction.get(NOTE)
    if content is None:
        return None
    try:
        note = unpacked(content)
    except ValueError:
        return None
    return note if isinstance(note, dict) else None


@contextlib.contextmanager
def _opened(path: Path, *, readonly: bool = False, map_size: int = 0) -> Iterator[Any]:
    lmdb = needed("lmdb", source="lmdb", extra="lmdb")
    try:
        if readonly:
            environment = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False)
        else:
            environment = lmdb.open(str(path), subdir=False, lock=False, map_size=map_size)
        with environment:
            yield environment
    except lmdb.Error as error:
        raise InputError(f"{shown(path)}: is no LMDB file that can be used: {one_line(error)}") from error


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[bool]:
    """Keep other processes from packing into the same file; say whether it is a new one."""
    try:
        file = partial.open("ab")
    except OSError as error:
        raise InputError(f"{shown(partial)}: cannot be written: {error.strerror}") from error
    with file:
        try:
            # Of the open file, not of the process: it survives that LMDB opens and closes the same file.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{shown(partial)}: another process is packing into it") from None
        yield partial.stat().st_size == 0
