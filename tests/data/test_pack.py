"""`codistill pack`: what it writes, refuses and does after it was stopped or killed at any moment."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import pytest
from copies import make_folder

from codistill.cli import main
from codistill.data import pack as module
from codistill.data.pack import Unfinished, pack
from codistill.errors import InputError


def content(path: Path) -> dict[bytes, bytes]:
    import lmdb

    environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
    with environment, environment.begin() as transaction:
        return dict(transaction.cursor())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    make_folder(tmp_path / "pictures", per_class=6, splits=("",))
    return tmp_path / "pictures"


@pytest.fixture
def groups_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_AT_ONCE", 4)


def after(groups: int):  # type: ignore[no-untyped-def]
    """Answer that packing should stop once so many groups were written."""
    asked = iter([False] * groups)
    return lambda: next(asked, True)


def test_bytes_labels_and_names_are_stored_as_they_are(pictures: Path, tmp_path: Path) -> None:
    assert pack(pictures, tmp_path / "out.lmdb") == 18

    entries = content(tmp_path / "out.lmdb")
    paths = sorted(pictures.rglob("*.png"))
    keys = msgpack.unpackb(entries[b"__keys__"])
    assert keys == [f"{row:08d}".encode() for row in range(18)]
    for row, path in enumerate(paths):
        assert msgpack.unpackb(entries[keys[row]]) == [{"data": path.read_bytes()}, row // 6]
    assert msgpack.unpackb(entries[b"__classes__"]) == ["kind0", "kind1", "kind2"]
    assert msgpack.unpackb(entries[b"__len__"]) == 18
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.lmdb"]


@pytest.mark.usefixtures("groups_of_four")
@pytest.mark.parametrize("stops", [(0,), (1,), (2, 1), (1, 1, 1, 1), (5,)])
def test_stopped_and_continued_equals_never_stopped(
    pictures: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    pack(pictures, tmp_path / "whole.lmdb")
    for groups in stops:
        if groups < 5:
            with pytest.raises(Unfinished):
                pack(pictures, tmp_path / "out.lmdb", after(groups))
            assert not (tmp_path / "out.lmdb").exists()
    assert pack(pictures, tmp_path / "out.lmdb") == 18
    assert content(tmp_path / "out.lmdb") == content(tmp_path / "whole.lmdb")


@pytest.mark.usefixtures("groups_of_four")
def test_continuing_packs_nothing_twice(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unfinished):
        pack(pictures, tmp_path / "out.lmdb", after(3))
    read = []
    original = module._verified
    monkeypatch.setattr(module, "_verified", lambda path: read.append(path) or original(path))
    pack(pictures, tmp_path / "out.lmdb")
    assert sorted(read) == sorted(pictures.rglob("*.png"))[12:]


def test_a_finished_pack_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    pack(pictures, tmp_path / "out.lmdb")
    before = (tmp_path / "out.lmdb").stat()
    assert pack(pictures, tmp_path / "out.lmdb") == 18
    after_ = (tmp_path / "out.lmdb").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after_.st_mtime_ns, after_.st_ino)


@pytest.mark.parametrize("kind", ["text", "empty", "other pack", "folder"])
def test_a_foreign_file_is_never_overwritten(pictures: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out.lmdb"
    if kind == "folder":
        out.mkdir()
    elif kind == "other pack":
        make_folder(tmp_path / "other", splits=("",))
        pack(tmp_path / "other", out)
    else:
        out.write_bytes(b"text" * 5000 if kind == "text" else b"")
    before = None if out.is_dir() else out.read_bytes()
    with pytest.raises(InputError, match=r"out.lmdb': "):
        pack(pictures, out)
    assert before is None or out.read_bytes() == before
    assert not (tmp_path / "out.lmdb.partial").exists()


def test_a_foreign_partial_file_is_never_touched(pictures: Path, tmp_path: Path) -> None:
    import lmdb

    partial = tmp_path / "out.lmdb.partial"
    partial.write_bytes(b"text" * 5000)
    with pytest.raises(InputError, match=r"out.lmdb.partial': is no LMDB file"):
        pack(pictures, tmp_path / "out.lmdb")
    assert partial.read_bytes() == b"text" * 5000
    partial.unlink()
    environment = lmdb.open(str(partial), subdir=False, lock=False)
    with environment, environment.begin(write=True) as transaction:
        transaction.put(b"mine", b"yes")
    with pytest.raises(InputError, match=r"was not begun from .*pictures' as it is now"):
        pack(pictures, tmp_path / "out.lmdb")
    assert content(partial) == {b"mine": b"yes"}


@pytest.mark.usefixtures("groups_of_four")
@pytest.mark.parametrize("change", ["touch", "new class", "removed"])
def test_a_folder_that_changed_behind_is_refused(pictures: Path, tmp_path: Path, change: str) -> None:
    with pytest.raises(Unfinished):
        pack(pictures, tmp_path / "out.lmdb", after(2))
    first = min(pictures.rglob("*.png"))
    if change == "touch":
        os.utime(first, ns=(1, 1))
    elif change == "removed":
        first.unlink()
    else:
        (pictures / "kind3").mkdir()
        shutil.copy(first, pictures / "kind3")
    with pytest.raises(InputError, match=r"out.lmdb.partial': was not begun from"):
        pack(pictures, tmp_path / "out.lmdb")
    assert (tmp_path / "out.lmdb.partial").exists()


@pytest.mark.usefixtures("groups_of_four")
@pytest.mark.parametrize("kind", ["text", "empty", "cut", "cut jpeg"])
def test_what_is_no_picture_is_named_and_mended_packing_goes_on(
    pictures: Path, tmp_path: Path, kind: str
) -> None:
    from PIL import Image

    bad = sorted((pictures / "kind2").iterdir())[1]
    good = bad.read_bytes()
    if kind == "cut jpeg":
        bad = bad.with_suffix(".jpg")
        Image.effect_noise((64, 64), 50).save(bad, "JPEG", quality=95)
        good = bad.read_bytes()
    bad.write_bytes({"text": b"text", "empty": b"", "cut": good[:-600], "cut jpeg": good[:-600]}[kind])
    with pytest.raises(InputError, match=rf"{bad.name}': "):
        pack(pictures, tmp_path / "out.lmdb")
    assert not (tmp_path / "out.lmdb").exists()
    bad.write_bytes(good)
    pack(pictures, tmp_path / "out.lmdb")
    pack(pictures, tmp_path / "whole.lmdb")
    assert content(tmp_path / "out.lmdb") == content(tmp_path / "whole.lmdb")


def test_nothing_is_left_where_the_first_picture_is_bad(pictures: Path, tmp_path: Path) -> None:
    min(pictures.rglob("*.png")).write_text("text")
    with pytest.raises(InputError, match="is not a picture"):
        pack(pictures, tmp_path / "out.lmdb")
    assert list(tmp_path.glob("out*")) == []


def test_two_at_once_are_refused(pictures: Path, tmp_path: Path) -> None:
    with (tmp_path / "out.lmdb.partial").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is packing into it"):
            pack(pictures, tmp_path / "out.lmdb")


def test_splits_and_places_that_cannot_be_meant_are_refused(pictures: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "splits")
    with pytest.raises(InputError, match="holds splits, not classes"):
        pack(tmp_path / "splits", tmp_path / "out.lmdb")
    with pytest.raises(InputError, match="is not a folder to write"):
        pack(pictures, tmp_path / "nowhere" / "out.lmdb")


def test_the_command_packs_and_reports(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["pack", str(pictures), str(tmp_path / "out.lmdb")])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out.lmdb'}: 18 pictures\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "pack takes at least one path"),
        (["a"], "pack takes a folder and a file, not 1 paths"),
        (["nowhere", "out.lmdb"], "nowhere: does not exist"),
        (["--fast", "a", "b"], "--fast is no option of pack"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["pack", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("groups_of_four")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    original = module._Work._write

    def write_and_signal(self, *arguments):  # type: ignore[no-untyped-def]
        original(self, *arguments)
        os.kill(os.getpid(), number)

    words = ["pack", str(pictures), str(tmp_path / "out.lmdb")]
    with monkeypatch.context() as patched:
        patched.setattr(module._Work, "_write", write_and_signal)
        with pytest.raises(SystemExit) as stop:
            main(words)
    assert stop.value.code == 128 + number
    assert capsys.readouterr().err == f"stopped; continue with: codistill {' '.join(words)}\n"
    assert (tmp_path / "out.lmdb.partial").exists()
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from codistill.data import pack as module
module._MOST_AT_ONCE = 4
groups = int(sys.argv[3])
original = module.pack.__globals__["_verified"]
seen = []
def verified(path):
    seen.append(path)
    # In the middle of a group: some of its pictures were read, none is written.
    if len(seen) > 4 * groups + 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(path)
module._verified = verified
module.pack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("groups", [0, 3])
def test_killed_and_continued_equals_never_killed(pictures: Path, tmp_path: Path, groups: int) -> None:
    pack(pictures, tmp_path / "whole.lmdb")
    words = [str(pictures), str(tmp_path / "out.lmdb"), str(groups)]
    answer = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True)
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    assert (tmp_path / "out.lmdb.partial").exists()
    pack(pictures, tmp_path / "out.lmdb")
    assert content(tmp_path / "out.lmdb") == content(tmp_path / "whole.lmdb")


def test_killed_before_the_file_got_its_name(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(pictures, tmp_path / "out.lmdb")
    assert not (tmp_path / "out.lmdb").exists()
    pack(pictures, tmp_path / "out.lmdb")
    pack(pictures, tmp_path / "whole.lmdb")
    assert content(tmp_path / "out.lmdb") == content(tmp_path / "whole.lmdb")


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(tmp_path: Path) -> None:
    """The true command, killed after 0.9 s, 1.1 s and so on until it ends by itself."""
    make_folder(tmp_path / "pictures", per_class=1500, size=(64, 64), splits=("",))
    pack(tmp_path / "pictures", tmp_path / "whole.lmdb")
    words = [
        sys.executable,
        "-m",
        "codistill",
        "pack",
        str(tmp_path / "pictures"),
        str(tmp_path / "out.lmdb"),
    ]
    kills = 0
    while True:
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            started = time.monotonic()
            partial = tmp_path / "out.lmdb.partial"
            while process.poll() is None and (
                not partial.exists() or time.monotonic() - started < 0.9 + 0.2 * kills
            ):
                time.sleep(0.01)
            if process.poll() is None:
                process.kill()
            status = process.wait()
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert kills > 0
    assert content(tmp_path / "out.lmdb") == content(tmp_path / "whole.lmdb")
