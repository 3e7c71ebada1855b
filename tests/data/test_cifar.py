import os
import pickle
import struct

import numpy as np
import pytest
from copies import labels, make_cifar10, make_cifar100, pixels, write_python2_pickle

from codistill.config.data import DataConfig
from codistill.data.pickles import read_plain_pickle
from codistill.data.sources import load_source
from codistill.errors import InputError


@pytest.mark.parametrize("layout", ["", "cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar10"])
def test_cifar10_pixels_written_are_the_pixels_read(tmp_path, layout):
    data = load_source(DataConfig(source="cifar10", **make_cifar10(tmp_path, per_class=3, layout=layout)))
    for part, seed in ((data.train, 0), (data.test, 1)):
        np.testing.assert_array_equal(part.images.images_NHWC, pixels(30, (32, 32, 3), seed))
        np.testing.assert_array_equal(part.labels, labels(30, 10))
    assert data.classes == tuple(f"kind{label}" for label in range(10))


@pytest.mark.parametrize("layout", ["", "cifar-100-python", "cifar100/cifar-100-python"])
def test_cifar100_pixels_written_are_the_pixels_read(tmp_path, layout):
    data = load_source(
        DataConfig(source="cifar100", **make_cifar100(tmp_path, layout=layout), num_classes=100)
    )
    for part, seed in ((data.train, 0), (data.test, 1)):
        np.testing.assert_array_equal(part.images.images_NHWC, pixels(100, (32, 32, 3), seed))
        np.testing.assert_array_equal(part.labels, labels(100, 100))
    assert data.classes[99] == "kind99"


def test_torchvision_reads_the_copies_alike(tmp_path):
    from torchvision import datasets

    make_cifar10(tmp_path)

    class Unchecked(datasets.CIFAR10):
        def _check_integrity(self):
            return True

        def _load_meta(self):
            """Pass over the checksum of the class names."""

    np.testing.assert_array_equal(Unchecked(tmp_path).data, pixels(20, (32, 32, 3), 0))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickles_of_today_are_read(tmp_path, protocol):
    arrays = {
        "data": pixels(4, (3072,), 0),
        "transposed": pixels(4, (5,), 1).T,
        "labels": np.array([3, -1, 2**40]),
        "big-endian": np.array([1, 2], ">i4"),
    }
    basic = [1, -(2**70), 2.5, "ä", b"\xff", None, True, (1, {"two": [3]}), np.int64(7), np.uint8(255)]
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(arrays | {"basic": basic}, protocol=protocol))
    read = read_plain_pickle(path)
    assert read.pop("basic") == basic
    assert read.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key], array)
        assert read[key].dtype == array.dtype.newbyteorder("=")


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_code_in_a_pickle_is_named_and_never_run(tmp_path, protocol):
    settings = make_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    trace = tmp_path / "trace"
    path.write_bytes(pickle.dumps(Calls(os.system, f"touch {trace}"), protocol=protocol))
    with pytest.raises(InputError, match=r"data_batch_3': .*refused to load posix.system") as raised:
        load_source(DataConfig(source="cifar10", **settings))
    assert "\n" not in str(raised.value)
    assert not trace.exists()


HOSTILE = {
    "builtins": (pickle.dumps(Calls(eval, "1")), "refused to load builtins.eval"),
    "numpy.load": (pickle.dumps(Calls(np.load, "x")), "refused to load numpy"),
    "object array": (pickle.dumps(np.array([None, [1]], dtype=object)), "an array of type 'O8'"),
    "float array": (pickle.dumps(np.zeros(3)), "an array of type 'f8'"),
    "text array": (pickle.dumps(np.array(["a"])), "an array of type 'U1'"),
    "record array": (pickle.dumps(np.zeros(2, "u1,u1")), "an array of type 'V2'"),
    "class": (pickle.dumps(np.dtype), "it holds a _Call, not a dictionary"),
    "instance": (b"\x80\x02cnumpy\nndarray\n)\x81.", "refused the instruction NEWOBJ"),
    "old instance": (b"(inumpy\nndarray\n.", "refused the instruction INST"),
    "persistent": (b"Px\n.", "refused the instruction PERSID"),
    "memo index": (b"\x80\x02]r\xff\xff\xff\xff.", "memo index 4294967295"),
    "announced bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "1099511627776"),
    "announced array": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "1099511627776"),
    "state of a function": (
        b"\x80\x02cnumpy\ndtype\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
        "a function with a state",
    ),
    "huge array": (
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86tR.",
        "it holds a ndarray, not a dictionary",
    ),
    "array of too few bytes": (
        pickle.dumps(np.zeros((2, 16), np.uint8), protocol=2).replace(b"K\x02K\x10\x86", b"K\x10K\x10\x86"),
        r"an array of shape \(16, 16\) with 32 bytes",
    ),
    "nothing": (b"", "exhausted"),
    "text": (b"hello", "is not a pickle"),
    "list": (pickle.dumps([1]), "it holds a list, not a dictionary"),
    "deep": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "it holds a list"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_and_damaged_pickles_are_refused(tmp_path, kind):
    content, message = HOSTILE[kind]
    settings = make_cifar100(tmp_path)
    (tmp_path / "cifar-100-python" / "test").write_bytes(content)
    with pytest.raises(InputError, match=rf"cifar-100-python/test': .*({message})") as raised:
        load_source(DataConfig(source="cifar100", **settings))
    assert "\n" not in str(raised.value)


def test_pickle_cut_short_anywhere_is_refused(tmp_path):
    settings = make_cifar10(tmp_path, per_class=1)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    whole = path.read_bytes()
    for kept in (1, 20, 60, 100, 2000, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError, match="data_batch_1': "):
            load_source(DataConfig(source="cifar10", **settings))


GOOD = {b"data": pixels(2, (3072,), 0), b"fine_labels": [0, 99]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": None}, "'data' is not an array of bytes"),
        ({b"data": pixels(2, (3071,), 0)}, "'data' is not an array of bytes"),
        ({b"data": np.zeros((2, 3072), np.int32)}, "'data' is not an array of bytes"),
        ({b"fine_labels": [0]}, "holds 2 images and 1 labels"),
        ({b"fine_labels": [0, 100]}, "label 100 of image 1 is outside 0 to 99"),
        ({b"fine_labels": [0, -1]}, "label -1 of image 1 is outside 0 to 99"),
        ({b"fine_labels": [0, 2**80]}, "a label is outside 0 to 99"),
        ({b"fine_labels": [0, 1.5]}, "the labels are not a list of whole numbers"),
        ({b"fine_labels": {}}, "the labels are not a list of whole numbers"),
    ],
)
def test_batches_at_odds_with_the_layout_are_refused(tmp_path, change, message):
    settings = make_cifar100(tmp_path)
    write_python2_pickle(tmp_path / "cifar-100-python" / "train", GOOD | change)
    with pytest.raises(InputError, match=f"cifar-100-python/train': {message}"):
        load_source(DataConfig(source="cifar100", **settings))


def test_missing_entry_and_file_are_named(tmp_path):
    settings = make_cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    write_python2_pickle(folder / "batches.meta", {b"label_names": [1, 2]})
    with pytest.raises(InputError, match=r"batches.meta': 'label_names' is not a list of names"):
        load_source(DataConfig(source="cifar10", **settings))
    write_python2_pickle(folder / "batches.meta", {})
    with pytest.raises(InputError, match=r"batches.meta': lacks the entry 'label_names'"):
        load_source(DataConfig(source="cifar10", **settings))
    (folder / "data_batch_4").unlink()
    with pytest.raises(
        InputError, match=r"does not hold cifar10: looked for data_batch_1, .*cifar-10-batches-py"
    ):
        load_source(DataConfig(source="cifar10", **settings))
