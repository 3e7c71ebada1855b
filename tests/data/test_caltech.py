import numpy as np
import pytest
import torch
from copies import jpeg, make_caltech
from PIL import Image, ImageOps
from torchvision import datasets

from codistill.config.data import DataConfig
from codistill.data.images import MemoryImages, StreamedImages
from codistill.data.sources import load_source
from codistill.errors import InputError


def load(root, **settings):
    return load_source(DataConfig(source="caltech256", root=str(root), image_size=16, **settings))


def both_parts(root, **settings):
    data = load(root, **settings)
    return data.train, data.test


def everything(part):
    (images,) = part.images.batches([torch.arange(len(part))], 0)
    return images.numpy()


def square(image):
    return np.asarray(ImageOps.fit(image.convert("RGB"), (16, 16), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    "layout", ["256_ObjectCategories", "", "caltech256/256_ObjectCategories", "Caltech/256_ObjectCategories"]
)
def test_a_fifth_of_each_class_is_held_out_and_nothing_is_lost(tmp_path, layout):
    make_caltech(tmp_path, per_class=5, layout=layout)
    data = load(tmp_path)
    assert data.classes == ("001.ak47", "002.american-flag", "003.clutter")
    assert data.train.labels.bincount().tolist() == [4, 4, 4]
    assert data.test.labels.bincount().tolist() == [1, 1, 1]
    read = sorted(image.tobytes() for part in (data.train, data.test) for image in everything(part))
    paths = sorted((tmp_path / layout).rglob("*.jpg"))
    assert read == sorted(square(Image.open(path)).tobytes() for path in paths)
    again = load(tmp_path, split_seed=3)
    assert np.array_equal(everything(again.test), everything(data.test))


def test_it_is_read_as_torchvision_reads_it(tmp_path):
    make_caltech(tmp_path, per_class=5, layout="caltech256/256_ObjectCategories")
    theirs = datasets.Caltech256(str(tmp_path))
    expected = sorted((label, square(image).tobytes()) for image, label in theirs)
    data = load(tmp_path)
    found = [
        (label, image.tobytes())
        for part in (data.train, data.test)
        for label, image in zip(part.labels.tolist(), everything(part), strict=True)
    ]
    assert sorted(found) == expected
    assert list(data.classes) == theirs.categories


@pytest.mark.parametrize("place", ["Caltech", ""])
def test_the_authors_split_is_kept(tmp_path, place):
    make_caltech(tmp_path / place, per_class=3, split=True)
    data = load(tmp_path)
    for part, name in ((data.train, "Train"), (data.test, "Test")):
        paths = sorted((tmp_path / place / name).rglob("*.jpg"))
        expected = np.stack([square(Image.open(path)) for path in paths])
        np.testing.assert_array_equal(everything(part), expected)
        assert part.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_images_on_disk_equal_those_in_memory(tmp_path):
    make_caltech(tmp_path)
    kept, streamed = load(tmp_path), load(tmp_path, memory_gib=0)
    assert isinstance(kept.train.images, MemoryImages)
    assert isinstance(streamed.train.images, StreamedImages)
    np.testing.assert_array_equal(everything(streamed.train), everything(kept.train))


def test_stray_files_of_the_archive_are_passed_over(tmp_path):
    make_caltech(tmp_path)
    place = tmp_path / "256_ObjectCategories"
    jpeg(place / "001.ak47" / "greg" / "vision309" / "1.jpg", 1)
    (place / "002.american-flag" / "RENAME2").write_text("not a picture")
    (place / "notes").mkdir()
    data = load(tmp_path)
    assert len(data.train) + len(data.test) == 15
    assert len(data.classes) == 3


def test_a_changed_picture_is_read_anew(tmp_path):
    make_caltech(tmp_path)
    before = everything(load(tmp_path).train)
    for path in tmp_path.rglob("*.jpg"):
        jpeg(path, 77)
    assert not np.array_equal(everything(load(tmp_path).train), before)


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize("memory_gib", [4, 0])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda place: (place / "001.ak47" / "001_0001.jpg").write_text("text"),
            "001_0001.jpg': is not a pic",
        ),
        (lambda place: (place / "001.ak47" / "001_0001.jpg").write_bytes(b""), "001_0001.jpg': "),
        (
            lambda place: [path.unlink() for path in (place / "001.ak47").iterdir()],
            "ak47': holds no pictures",
        ),
        (
            lambda place: cut(place / "001.ak47" / "001_0001.jpg"),
            "001_0001.jpg': cannot be read as a picture",
        ),
        (lambda place: [path.unlink() for path in (place / "001.ak47").glob("*[345].jpg")], "has 2 images"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, harm, message, memory_gib):
    make_caltech(tmp_path)
    harm(tmp_path / "256_ObjectCategories")
    with pytest.raises(InputError, match=message) as raised:
        [everything(part) for part in both_parts(tmp_path, memory_gib=memory_gib)]
    assert "\n" not in str(raised.value)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"does not hold caltech256: looked for folders such as 001.ak47 in"):
        load(tmp_path)
    make_caltech(tmp_path, split=True)
    for path in sorted((tmp_path / "Test").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=r"Test/256_ObjectCategories': is missing beside .*Train"):
        load(tmp_path)


def test_both_parts_need_the_same_classes(tmp_path):
    make_caltech(tmp_path, split=True)
    (tmp_path / "Test" / "256_ObjectCategories" / "003.clutter").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"Test/256_Obj.*': lacks the class '003.clutter'"):
        load(tmp_path)
