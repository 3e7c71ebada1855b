import numpy as np
import pytest
import torch
from copies import labels, make_folder, make_svhn, pixels

from codistill.config.data import SOURCES, DataConfig
from codistill.data.sources import _LOADERS, load_source
from codistill.errors import InputError


def test_every_source_has_a_loader():
    assert _LOADERS.keys() == SOURCES.keys()


def test_digits_are_whole_scaled_and_split_per_class():
    data = load_source(DataConfig(source="digits", num_classes=10))
    train, test = data.train.images.images_NHWC, data.test.images.images_NHWC
    assert train.shape[1:] == (8, 8, 1)
    assert train.dtype == torch.uint8
    assert len(train) + len(test) == 1797
    # 178, 182, 177, 183, 181, 182, 181, 179, 174 and 180 images of 0 to 9; a fifth of each, rounded.
    assert data.test.labels.bincount().tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert data.train.labels.bincount().tolist() == [142, 146, 142, 146, 145, 146, 145, 143, 139, 144]
    assert sorted(set(train.unique().tolist())) == [round(step * 255 / 16) for step in range(17)]
    assert data.classes == tuple("0123456789")


def test_digits_are_split_alike_whatever_the_config():
    one = load_source(DataConfig(split_seed=0)).test.images.images_NHWC
    other = load_source(DataConfig(split_seed=7)).test.images.images_NHWC
    assert torch.equal(one, other)


def test_class_count_is_checked_against_the_config(tmp_path):
    settings = make_folder(tmp_path)
    assert len(load_source(DataConfig(source="folder", **settings, num_classes=3)).classes) == 3
    with pytest.raises(InputError, match=r"data.num_classes: is 10, but folder has 3 classes"):
        load_source(DataConfig(source="folder", **settings, num_classes=10))


@pytest.mark.parametrize("layout", ["", "SVHN"])
def test_svhn_reads_its_tens_as_zeros(tmp_path, layout):
    data = load_source(DataConfig(source="svhn", **make_svhn(tmp_path, layout=layout)))
    for part, seed in ((data.train, 0), (data.test, 1)):
        np.testing.assert_array_equal(part.images.images_NHWC, pixels(20, (32, 32, 3), seed))
        np.testing.assert_array_equal(part.labels, labels(20, 10))
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "lacks X .images. or y .labels."),
        ({"X": np.zeros((32, 32, 3, 2)), "y": [[1], [2]]}, r"X is float64 \[32, 32, 3, 2\], not uint8"),
        ({"X": np.zeros((2, 32, 32, 3), np.uint8), "y": [[1], [2]]}, r"X is uint8 \[2, 32, 32, 3\]"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1]]}, "with 1 labels, not 2"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1], [0]]}, "y has the label 0"),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1], [11]]},
            "label 11 of image 1 is outside 0 to 9",
        ),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1.5], [2]]}, "y is float64"),
    ],
)
def test_odd_matlab_files_are_refused(tmp_path, content, message):
    from scipy import io

    settings = make_svhn(tmp_path)
    io.savemat(tmp_path / "train_32x32.mat", content)
    with pytest.raises(InputError, match=f"train_32x32.mat': .*{message}"):
        load_source(DataConfig(source="svhn", **settings))


def test_matlab_file_cut_short_is_refused(tmp_path):
    settings = make_svhn(tmp_path)
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"test_32x32.mat': cannot be read as a MATLAB file"):
        load_source(DataConfig(source="svhn", **settings))
