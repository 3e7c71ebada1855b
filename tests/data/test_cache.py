import logging
from pathlib import Path

import numpy as np
import pytest

from codistill.data.cache import cache_folder, cached

ARRAYS = {"images": np.arange(1000, dtype=np.uint8).reshape(10, 100), "shape": np.array([1, 2])}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path))
    return tmp_path


def made(calls):
    def make():
        calls.append(1)
        return ARRAYS

    return make


def check(identity, expected_calls):
    calls = []
    arrays = cached(identity, made(calls))
    assert len(calls) == expected_calls
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_made_once_for_each_identity(folder):
    check(["a", 1], 1)
    check(["a", 1], 0)
    check(["a", 2], 1)
    check(["a", 2], 0)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("place", [0, 40, 0.1, 0.5, 0.9, 0.999])
def test_entry_with_a_flipped_byte_or_cut_short_never_gives_other_values(folder, place):
    check("a", 1)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    path.write_bytes(bytes(content))
    cached("a", lambda: ARRAYS)
    np.testing.assert_array_equal(cached("a", dict)["images"], ARRAYS["images"])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(place * len(whole)) if isinstance(place, float) else place])
    check("a", 1)
    check("a", 0)


@pytest.mark.parametrize("content", ["pickle", "array", "other entry", "text"])
def test_foreign_file_is_made_anew(folder, content):
    check("a", 1)
    (path,) = folder.iterdir()
    if content == "pickle":
        with path.open("wb") as file:
            np.savez(file, key=np.array([{"a": 1}], dtype=object), images=np.zeros(3))
    elif content == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif content == "other entry":
        check("b", 1)
        other = next(entry for entry in folder.iterdir() if entry != path)
        path.write_bytes(other.read_bytes())
    else:
        path.write_text("text")
    check("a", 1)
    check("a", 0)


def test_nothing_half_written_is_left(folder, monkeypatch):
    def torn(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", torn)
        check("a", 1)
    assert list(folder.iterdir()) == []
    check("a", 1)
    check("a", 0)


def test_folder_that_cannot_be_written_costs_one_line(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        check("a", 1)
    assert len(caplog.records) == 1
    assert "decoded images are not kept" in caplog.text


def test_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CODISTILL_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/common")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("CODISTILL_CACHE")
    assert cache_folder() == Path("/common/codistill")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "codistill"
