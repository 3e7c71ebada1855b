"""Pickles read as data: arrays of whole numbers and basic types, never code.

A pickle is a program. This reader runs only the instructions that build containers, numbers, text and
bytes, and puts stand-ins of our own in the place of NumPy's functions, so that a hostile file finds
nothing to call and no NumPy internals to feed.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from codistill.data.files import shown
from codistill.errors import InputError, one_line

# Instructions that name classes to instantiate, extension codes, persistent ids or outside buffers.
_REFUSED = {
    "INST",
    "OBJ",
    "NEWOBJ",
    "NEWOBJ_EX",
    "EXT1",
    "EXT2",
    "EXT4",
    "PERSID",
    "BINPERSID",
    "NEXT_BUFFER",
}
_MEMO_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_INTEGERS = {f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)}


class _DataType:
    """What `numpy.dtype` leaves in a pickle."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if code not in _INTEGERS:
            raise pickle.UnpicklingError(f"an array of type {code!r}; allowed are whole numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """What `numpy.ndarray` leaves in a pickle: an empty array whose state follows."""

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, data_type, column_major, content = state
        self.array = _array(content, data_type, shape, "F" if column_major else "C")


class _Call:
    """A function that a pickle may call but not change."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function with a state")


def _array(content: Any, data_type: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(data_type, _DataType) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array whose content is not plain numbers")
    if math.prod(shape) * data_type.dtype.itemsize != len(content):
        raise pickle.UnpicklingError(f"an array of shape {shape} with {len(content)} bytes")
    array = np.frombuffer(content, data_type.dtype).reshape(shape, order="F" if order == "F" else "C")
    return array.astype(array.dtype.newbyteorder("="))


def _scalar(data_type: Any, content: Any) -> int:
    return int(_array(content, data_type, (), "C"))


def _encoded(text: Any, encoding: Any) -> bytes:
    # How Python 3 writes bytes for Python 2.
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


_NUMPY = {
    "_reconstruct": _Call(_Array),
    "scalar": _Call(_scalar),
    # Protocol 5, the default from Python 3.14 on.
    "_frombuffer": _Call(_array),
}
_ADMITTED: dict[tuple[str, str], _Call] = {
    ("numpy", "ndarray"): _Call(_Array),
    ("numpy", "dtype"): _Call(_DataType),
    ("_codecs", "encode"): _Call(_encoded),
    **{(f"numpy.{core}.multiarray", name): _NUMPY[name] for core in ("core", "_core") for name in _NUMPY},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _NUMPY["_frombuffer"] for core in ("core", "_core")},
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}") from None


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of containers, numbers, text, bytes and arrays of whole numbers; nothing is executed.

    Text from Python 2 becomes bytes. `InputError` names the file and what else it holds, or that it is
    damaged.
    """
    try:
        content = path.read_bytes()
        _check_instructions(content)
        return _plain(_PlainUnpickler(io.BytesIO(content), encoding="bytes").load())
    except Exception as error:  # A damaged or hostile pickle can make any instruction fail, in any way.
        raise InputError(
            f"{shown(path)}: is not a pickle of arrays and basic types alone: {one_line(error)}"
        ) from error


def _check_instructions(content: bytes) -> None:
    for instruction, argument, _ in pickletools.genops(content):
        if instruction.name in _REFUSED:
            raise pickle.UnpicklingError(f"refused the instruction {instruction.name}")
        # The unpickler's memo is an array as long as the highest index: a forged one fills the memory.
        if instruction.name in _MEMO_PUTS and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"memo index {argument} in {len(content)} bytes")


def _plain(value: Any) -> Any:
    # One level is as deep as data sets nest arrays; a stand-in left deeper is no array and fails the checks.
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _plain(item) if isinstance(item, _Array) else item for key, item in value.items()}
    return value
