import gzip
import struct

import numpy as np
import pytest
from copies import labels, make_idx, pixels, write_idx

from codistill.config.data import DataConfig
from codistill.data.sources import load_source
from codistill.errors import InputError


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("mnist", ""),
        ("mnist", "raw"),
        ("mnist", "MNIST/raw"),
        ("mnist", "MNIST"),
        ("mnist", "MNIST/MNIST/raw"),
        ("fashion_mnist", ""),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("fashion_mnist", "Fashion-MNIST"),
        ("fashion_mnist", "FashionMNIST"),
        ("fashion_mnist", "Fashion-MNIST/FashionMNIST/raw"),
    ],
)
def test_pixels_written_are_the_pixels_read(tmp_path, name, layout, packed):
    data = load_source(DataConfig(source=name, **make_idx(tmp_path, name, packed=packed, layout=layout)))
    for part, seed in ((data.train, 0), (data.test, 1)):
        np.testing.assert_array_equal(part.images.images_NHWC[..., 0], pixels(20, (28, 28), seed))
        np.testing.assert_array_equal(part.labels, labels(20, 10))
    assert data.classes[0] == ("0" if name == "mnist" else "T-shirt/top")
    assert data.classes[9] == ("9" if name == "mnist" else "Ankle boot")


def test_each_source_passes_over_the_others_folder(tmp_path):
    make_idx(tmp_path, "mnist", layout="MNIST/raw")
    with pytest.raises(InputError, match="does not hold fashion_mnist: looked for train-images-idx3-ubyte"):
        load_source(DataConfig(source="fashion_mnist", root=str(tmp_path)))


def test_missing_root_is_named(tmp_path):
    with pytest.raises(InputError, match=r"data.root: .*nowhere' does not exist"):
        load_source(DataConfig(source="mnist", root=str(tmp_path / "nowhere")))


def header(*shape, kind=8):
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file.*starts with nothing"),
        (b"\x89PNG", "is not an IDX file.*starts with 89 50 4e 47"),
        (header(20, 28, 28, kind=13), "is not an IDX file"),
        (header(20, 28), "is not an IDX file of unsigned bytes in 3 dimensions"),
        (header(20, 28, 28)[:9], "cut short within its header"),
        (header(20, 28, 28) + bytes(20 * 784 - 1), "announces 15680 bytes, but 15679 follow"),
        (header(20, 28, 28) + bytes(20 * 784 + 1), "announces 15680 bytes, but more follow"),
        (header(2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(99), "but fewer follow"),
        (header(20, 27, 28) + bytes(20 * 27 * 28), "images are 27×28 pixels, not 28×28"),
        (header(19, 28, 28) + bytes(19 * 784), "holds 19 images, but .*labels-idx1-ubyte' 20 labels"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_images_are_refused_in_one_line(tmp_path, content, message, packed):
    settings = make_idx(tmp_path, packed=packed)
    name = "train-images-idx3-ubyte" + (".gz" if packed else "")
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    message = message.replace("ubyte'", "ubyte.gz'") if packed else message
    with pytest.raises(InputError, match=message) as raised:
        load_source(DataConfig(source="fashion_mnist", **settings))
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [5, 200])
def test_packed_file_cut_short_is_refused(tmp_path, kept):
    settings = make_idx(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        InputError, match=r"t10k-images-idx3-ubyte.gz': cannot be read: Compressed file ended"
    ):
        load_source(DataConfig(source="fashion_mnist", **settings))


def test_label_out_of_range_is_refused(tmp_path):
    settings = make_idx(tmp_path, packed=False)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([0] * 19 + [10]))
    with pytest.raises(InputError, match="train-labels-idx1-ubyte': label 10 of image 19 is outside 0 to 9"):
        load_source(DataConfig(source="fashion_mnist", **settings))


def test_no_images_at_all_are_refused(tmp_path):
    settings = make_idx(tmp_path, per_class=0)
    with pytest.raises(InputError, match="holds no images"):
        load_source(DataConfig(source="fashion_mnist", **settings))


def test_download_failure_is_one_line(tmp_path, monkeypatch):
    from torchvision import datasets

    def fail(root, download):
        raise RuntimeError("no\nnetwork")

    monkeypatch.setattr(datasets, "MNIST", fail)
    with pytest.raises(InputError, match=r"data.download: mnist cannot be downloaded into .*: no network"):
        load_source(DataConfig(source="mnist", root=str(tmp_path / "new"), download=True))


def test_download_fills_only_what_is_missing(tmp_path, monkeypatch):
    from torchvision import datasets

    calls = []

    def fetch(root, download):
        calls.append(root)
        make_idx(tmp_path, "mnist", packed=False, layout="MNIST/raw")

    monkeypatch.setattr(datasets, "MNIST", fetch)
    config = DataConfig(source="mnist", root=str(tmp_path), download=True)
    assert len(load_source(config).train) == 20
    assert len(load_source(config).train) == 20
    assert calls == [str(tmp_path)]
