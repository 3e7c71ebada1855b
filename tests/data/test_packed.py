"""Reading LMDB files: ours and the older layout of the paper's authors, whole and damaged."""

import builtins
import os
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from copies import make_folder, make_lmdb, packed_entry, pixels, png, write_lmdb
from torch.utils.data import DataLoader

from codistill.config.data import DataConfig
from codistill.data import lmdb_file
from codistill.data.images import StreamedImages
from codistill.data.sources import load_source
from codistill.errors import InputError

COLOURS = [png(image) for image in pixels(12, (8, 8, 3), 0)]


def load(root, **settings):
    return load_source(DataConfig(source="lmdb", root=str(root), **settings))


def everything(part, workers=0):
    positions = list(torch.arange(len(part)).split(2))
    return torch.cat(list(part.images.batches(positions, workers))).numpy()


def entries(count=12, num_classes=3):
    return [(f"{row}".encode(), packed_entry(COLOURS[row], row % num_classes)) for row in range(count)]


@pytest.mark.parametrize("memory_gib", [4, 0])
def test_a_pack_holds_what_its_folder_holds(tmp_path, memory_gib):
    data = load(make_lmdb(tmp_path)["root"], memory_gib=memory_gib)
    folder = load_source(DataConfig(source="folder", root=str(tmp_path / "pictures")))
    assert data.classes == folder.classes
    for ours, theirs in ((data.train, folder.train), (data.test, folder.test)):
        np.testing.assert_array_equal(everything(ours), everything(theirs))
        assert torch.equal(ours.labels, theirs.labels)


@pytest.mark.parametrize("name", ["test", "val", "validation", "valid"])
def test_test_set_goes_by_several_names(tmp_path, name):
    make_lmdb(tmp_path)
    (tmp_path / "test.lmdb").rename(tmp_path / f"{name}.lmdb")
    assert len(load(tmp_path).test) == 6


def test_one_file_is_split_per_class(tmp_path):
    write_lmdb(tmp_path / "all.lmdb", entries(12), folder=True)
    data = load(tmp_path / "all.lmdb")
    assert data.train.labels.bincount().tolist() == [3, 3, 3]
    assert data.test.labels.bincount().tolist() == [1, 1, 1]
    read = sorted(image.tobytes() for part in (data.train, data.test) for image in everything(part))
    assert read == sorted(image.tobytes() for image in pixels(12, (8, 8, 3), 0))


@pytest.mark.parametrize("old_text", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_the_authors_older_layout_is_read(tmp_path, folder, old_text):
    import msgpack

    made = [
        (f"{row}".encode(), msgpack.packb([{"data": COLOURS[row]}, row % 3], use_bin_type=not old_text))
        for row in range(12)
    ]
    keys = msgpack.packb([key.decode() for key, _ in made], use_bin_type=not old_text)
    for split in ("train", "val"):
        write_lmdb(tmp_path / f"{split}.lmdb", made, keys, folder=folder)
    for memory_gib in (4, 0):
        data = load(tmp_path, memory_gib=memory_gib)
        np.testing.assert_array_equal(everything(data.train), pixels(12, (8, 8, 3), 0))
        assert data.train.labels.tolist() == [0, 1, 2] * 4
        assert data.classes == ("0", "1", "2")


def test_entries_of_others_are_read_once_for_their_labels(tmp_path, monkeypatch):
    for split in ("train", "test"):
        write_lmdb(tmp_path / f"{split}.lmdb", entries())
    load(tmp_path, memory_gib=0)
    monkeypatch.setattr(lmdb_file, "_scanned", None)
    data = load(tmp_path, memory_gib=0)
    assert data.train.labels.tolist() == [0, 1, 2] * 4


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_forked_workers_open_the_file_themselves(tmp_path):
    data = load(make_lmdb(tmp_path, per_class=4)["root"], memory_gib=0)
    expected = everything(data.train)  # From here on the file is open in this process.
    assert isinstance(data.train.images, StreamedImages)
    for workers in (1, 4):
        np.testing.assert_array_equal(everything(data.train, workers), expected)
    np.testing.assert_array_equal(everything(data.train), expected)


@pytest.mark.slow
def test_spawned_workers_open_the_file_themselves(tmp_path):
    data = load(make_lmdb(tmp_path, per_class=4)["root"], memory_gib=0)
    expected = everything(data.train)
    reads = [data.train.images.read]
    loader = DataLoader(
        _Read(reads[0], len(data.train)), batch_size=3, num_workers=2, multiprocessing_context="spawn"
    )
    np.testing.assert_array_equal(torch.cat(list(loader)).numpy(), expected)


class _Read(torch.utils.data.Dataset):
    def __init__(self, read, count):
        self.read, self.count = read, count

    def __len__(self):
        return self.count

    def __getitem__(self, position):
        return torch.from_numpy(self.read(position))


def test_a_reader_survives_pickling(tmp_path):
    data = load(make_lmdb(tmp_path)["root"], memory_gib=0)
    read = pickle.loads(pickle.dumps(data.train.images.read))
    np.testing.assert_array_equal(np.stack([read(row) for row in range(6)]), everything(data.train))


def test_a_file_that_was_replaced_is_opened_anew(tmp_path):
    for split in ("train", "test"):
        write_lmdb(tmp_path / f"{split}.lmdb", entries())
    load(tmp_path)
    write_lmdb(tmp_path / "new.lmdb", entries(9))
    os.replace(tmp_path / "new.lmdb", tmp_path / "train.lmdb")
    assert len(load(tmp_path).train) == 9


def test_grey_and_differing_pictures(tmp_path):
    make_folder(tmp_path / "grey", channels=1, size=(8, 8))
    make_folder(tmp_path / "mixed", size=(8, 8))
    from codistill.data.pack import pack

    for split in ("train", "test"):
        pack(tmp_path / "grey" / split, tmp_path / f"{split}.lmdb")
    assert load(tmp_path).train.images.image_shape == (8, 8, 1)
    next((tmp_path / "mixed" / "test" / "kind1").iterdir()).write_bytes(png(pixels(1, (9, 8, 3), 5)[0]))
    (tmp_path / "test.lmdb").unlink()
    pack(tmp_path / "mixed" / "test", tmp_path / "test.lmdb")
    with pytest.raises(InputError, match=r"test.lmdb': its pictures differ in size; data.image_size makes"):
        load(tmp_path)
    assert load(tmp_path, image_size=4).train.images.image_shape == (4, 4, 3)


def test_both_parts_need_the_same_classes(tmp_path):
    make_lmdb(tmp_path)
    make_folder(tmp_path / "other", classes=("kind0", "kind1", "kind9"))
    from codistill.data.pack import pack

    (tmp_path / "test.lmdb").unlink()
    pack(tmp_path / "other" / "test", tmp_path / "test.lmdb")
    with pytest.raises(InputError, match=r"lacks the class 'kind2', which .*train.lmdb' has"):
        load(tmp_path)


# What pyarrow's old serializer writes begins with the counts of what follows, then an Arrow stream.
ARROW = struct.pack("<5i", 0, 0, 0, 0, 0) + b"\xff\xff\xff\xff\x78\x00\x00\x00\x10\x00\x00\x00"


class Trap:
    def __reduce__(self):
        return builtins.exec, ("raise SystemExit('a pickle was executed')",)


@pytest.mark.parametrize(
    "content", [ARROW, pickle.dumps([b"0"]), pickle.dumps(Trap()), b"", b"\x90", b"\xc1"]
)
def test_foreign_keys_are_refused_and_never_executed(tmp_path, content):
    write_lmdb(tmp_path / "train.lmdb", entries(), content or None)
    if content == b"":
        write_lmdb(tmp_path / "train.lmdb", [], b"\x90")
    write_lmdb(tmp_path / "test.lmdb", entries())
    with pytest.raises(
        InputError, match=r"list of keys is not msgpack; what pyarrow's old .*'codistill pack"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARROW, "is not a msgpack list of a picture and a label; what pyarrow's old .*codistill pack"),
        (pickle.dumps((COLOURS[0], 0)), "is not a msgpack list of a picture and a label"),
        (pickle.dumps(Trap()), "is not a msgpack list of a picture and a label"),
        (packed_entry(COLOURS[0], -1), "label -1 is outside 0 to"),
        (packed_entry(COLOURS[0], 2**40), "label 1099511627776 is outside 0 to"),
        (packed_entry(COLOURS[0], 1.5), "is not a msgpack list of a picture and a label"),
        (packed_entry(COLOURS[0], True), "is not a msgpack list of a picture and a label"),
        (packed_entry(b"text", 0), "is not a picture of a known kind"),
        (packed_entry(COLOURS[0], 0)[:-9], "is not a msgpack list of a picture and a label"),
    ],
)
def test_foreign_entries_are_refused_by_their_key(tmp_path, content, message):
    made = entries()
    made[7] = (b"7", content)
    write_lmdb(tmp_path / "train.lmdb", made)
    write_lmdb(tmp_path / "test.lmdb", entries())
    with pytest.raises(InputError, match=rf"entry '7' of .*train.lmdb': {message}") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_test_label_that_training_lacks_is_refused(tmp_path):
    write_lmdb(tmp_path / "train.lmdb", entries())
    write_lmdb(tmp_path / "test.lmdb", entries(12, num_classes=4))
    with pytest.raises(InputError, match=r"test.lmdb': label 3 of image 3 is outside 0 to 2"):
        load(tmp_path)


def test_a_missing_entry_is_named(tmp_path):
    import msgpack

    write_lmdb(tmp_path / "train.lmdb", entries(), msgpack.packb([b"0", b"nothing"]))
    write_lmdb(tmp_path / "test.lmdb", entries())
    with pytest.raises(InputError, match=r"entry 'nothing' of .*train.lmdb': is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("kept", "message"),
    [(0, "cannot be read as LMDB"), (100, "as LMDB"), (8192, "is cut short"), (-1, "is cut")],
)
def test_a_file_cut_short_is_refused(tmp_path, kept, message):
    make_lmdb(tmp_path)
    path = tmp_path / "train.lmdb"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"train.lmdb': .*{message}") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_other_files_and_missing_ones_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"does not hold train.lmdb"):
        load(tmp_path)
    make_lmdb(tmp_path)
    (tmp_path / "test.lmdb").unlink()
    with pytest.raises(InputError, match=r"does not hold any of test.lmdb, val.lmdb"):
        load(tmp_path)
    (tmp_path / "test.lmdb").write_bytes(b"text" * 5000)
    with pytest.raises(InputError, match=r"test.lmdb': cannot be read as LMDB: File is not an LMDB file"):
        load(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "nowhere")


def test_a_file_without_a_list_of_keys_is_refused(tmp_path):
    import lmdb

    for split in ("train", "test"):
        environment = lmdb.open(str(tmp_path / f"{split}.lmdb"), subdir=False)
        with environment, environment.begin(write=True) as transaction:
            transaction.put(b"0", packed_entry(COLOURS[0], 0))
    with pytest.raises(InputError, match="holds no list of keys"):
        load(tmp_path)


def test_a_missing_package_is_named_with_its_installation(tmp_path, monkeypatch):
    make_lmdb(tmp_path)
    for name in ("lmdb", "msgpack"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)
            with pytest.raises(
                InputError, match=rf"lmdb needs the package {name}: pip install 'codistill\[lmdb\]'"
            ):
                load(tmp_path)


def note(**changes):
    import msgpack

    return msgpack.packb({"format": 1, "finished": True, "grey": False, "sizes": [[8, 8]]} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"__codistill__": note(format=2)}, "was packed by another version of codistill: pack it anew"),
        ({b"__codistill__": note(finished=False)}, "is not finished: 'codistill pack' with the same paths"),
        ({b"__codistill__": note(sizes=5)}, "is damaged"),
        ({b"__codistill__": b"\x01"}, "is damaged"),
        ({b"__codistill__": b"\x82"}, "is damaged"),
        ({b"__labels__": None}, "lacks __labels__"),
        ({b"__labels__": b"\x90"}, "__labels__ is damaged"),
        ({b"__labels__": b"\xc4\x03abc"}, "is damaged"),
        ({b"__labels__": b"\xc4\x04\x00\x00\x00\x00"}, "holds 6 entries and 1 labels"),
        ({b"__labels__": b"\xc4\x18" + b"\x03\x00\x00\x00" * 6}, "label 3 of image 0 is outside 0 to 2"),
        ({b"__classes__": b"\x01"}, "the names of its classes are damaged"),
        ({b"__classes__": b"\x91\xc4\x01\xff"}, "the names of its classes are damaged"),
        ({b"00000002": b"text"}, "entry '00000002' of .* is not a msgpack list"),
    ],
)
def test_a_damaged_pack_is_refused_in_one_line(tmp_path, changes, message):
    import lmdb

    make_lmdb(tmp_path)
    environment = lmdb.open(str(tmp_path / "train.lmdb"), subdir=False, lock=False, map_size=2**26)
    with environment, environment.begin(write=True) as transaction:
        for key, content in changes.items():
            transaction.delete(key) if content is None else transaction.put(key, content)
    with pytest.raises(InputError, match=message) as raised:
        load(tmp_path)
    assert str(raised.value).count("train.lmdb") == 1
    assert "\n" not in str(raised.value)
