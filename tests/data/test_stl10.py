import numpy as np
import pytest
from copies import labels, make_stl10, pixels
from torchvision import datasets

from codistill.config.data import DataConfig
from codistill.data.sources import load_source
from codistill.errors import InputError

IMAGE = 3 * 96 * 96


def load(root):
    return load_source(DataConfig(source="stl10", root=str(root)))


@pytest.mark.parametrize("layout", ["stl10_binary", "", "STL10/stl10_binary"])
def test_pixels_written_are_the_pixels_read(tmp_path, layout):
    make_stl10(tmp_path, layout=layout)
    data = load(tmp_path)
    for part, seed in ((data.train, 0), (data.test, 1)):
        np.testing.assert_array_equal(part.images.images_NHWC, pixels(20, (96, 96, 3), seed))
        np.testing.assert_array_equal(part.labels, labels(20, 10))
    assert data.classes == tuple(f"kind{label}" for label in range(10))


def test_it_is_read_as_torchvision_reads_it(tmp_path, monkeypatch):
    make_stl10(tmp_path)
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    data = load(tmp_path)
    for split, part in (("train", data.train), ("test", data.test)):
        theirs = datasets.STL10(str(tmp_path), split=split)
        assert len(theirs) == len(part)
        for row, (image, label) in enumerate(theirs):
            np.testing.assert_array_equal(part.images.images_NHWC[row], np.asarray(image))
            assert part.labels[row] == label
    assert list(data.classes) == theirs.classes


def test_names_are_known_where_they_are_not_told(tmp_path):
    make_stl10(tmp_path)
    (tmp_path / "stl10_binary" / "class_names.txt").unlink()
    assert load(tmp_path).classes[:3] == ("airplane", "bird", "car")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_X.bin", bytes(20 * IMAGE - 1), "is cut short or of another kind: 552959 bytes"),
        ("test_X.bin", bytes(19 * IMAGE), "holds 19 images, but .*test_y.bin' 20 labels"),
        ("test_y.bin", bytes([1] * 19), "holds 20 images, but .*test_y.bin' 19 labels"),
        ("train_y.bin", bytes([1] * 19 + [11]), "label 11 of image 19 is outside 1 to 10"),
        ("train_y.bin", bytes([1] * 19 + [0]), "label 0 of image 19 is outside 1 to 10"),
        ("class_names.txt", b"a\nb\n", "must hold 10 different names, not 2"),
        ("class_names.txt", b"\xff\xfe\x00", "is not text"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, name, content, message):
    make_stl10(tmp_path)
    (tmp_path / "stl10_binary" / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        load(tmp_path)
    assert name in str(raised.value)


def test_a_set_without_images_is_refused(tmp_path):
    make_stl10(tmp_path)
    for name in ("test_X.bin", "test_y.bin"):
        (tmp_path / "stl10_binary" / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"test_y.bin': holds no images"):
        load(tmp_path)


def test_a_missing_split_is_named(tmp_path):
    make_stl10(tmp_path)
    (tmp_path / "stl10_binary" / "test_X.bin").unlink()
    with pytest.raises(InputError, match=r"does not hold stl10: looked for train_X.bin.*in stl10_binary"):
        load(tmp_path)
