import numpy as np
import pytest
import torch
from copies import make_cub
from PIL import Image

from codistill.config.data import DataConfig
from codistill.data.sources import load_source
from codistill.errors import InputError

NAMES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")


def load(root, **settings):
    return load_source(DataConfig(source="cub2011", root=str(root), **settings))


@pytest.mark.parametrize("memory_gib", [4, 0])
@pytest.mark.parametrize("layout", ["CUB_200_2011", ""])
def test_the_split_that_the_files_name_is_read_as_squares(tmp_path, layout, memory_gib):
    make_cub(tmp_path, layout=layout)
    data = load(tmp_path, memory_gib=memory_gib)
    assert data.classes == NAMES
    for part, rows in ((data.train, (1, 3)), (data.test, (0, 2))):
        paths = [
            sorted((tmp_path / layout / "images" / name).iterdir())[row] for name in NAMES for row in rows
        ]
        expected = [Image.open(path).resize((64, 64), Image.Resampling.BILINEAR) for path in paths]
        (images,) = part.images.batches([torch.arange(len(part))], 0)
        np.testing.assert_array_equal(images, np.stack([np.asarray(image) for image in expected]))
        assert part.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_lines_may_stand_in_any_order_and_names_come_from_folders(tmp_path):
    make_cub(tmp_path)
    before = load(tmp_path)
    place = tmp_path / "CUB_200_2011"
    (place / "classes.txt").unlink()
    for name in ("image_class_labels.txt", "train_test_split.txt"):
        lines = (place / name).read_text().splitlines(keepends=True)
        (place / name).write_text("".join(reversed(lines)))
    after = load(tmp_path)
    assert after.classes == NAMES
    assert torch.equal(after.train.images.images_NHWC, before.train.images.images_NHWC)
    assert torch.equal(after.train.labels, before.train.labels)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("image_class_labels.txt", "12 3\n", "12 4\n", "'4' of entry 12 is not a whole number from 1 to 3"),
        ("image_class_labels.txt", "1 1\n", "1 0\n", "'0' of entry 1 is not a whole number from 1 to 3"),
        ("image_class_labels.txt", "12 3\n", "12 x\n", "'x' of entry 12 is not"),
        ("image_class_labels.txt", "12 3\n", "", "lacks image 12, which images.txt has; .* 11 and 12 lines"),
        ("image_class_labels.txt", "12 3\n", "12\n", "line 12 is not a new number and a text: '12'"),
        ("train_test_split.txt", "12 1\n", "12 2\n", "'2' of entry 12 is not a whole number from 0 to 1"),
        ("train_test_split.txt", "12 1\n", "12 1\n13 1\n", "images.txt': lacks image 13"),
        ("train_test_split.txt", "12 1\n", "11 1\n", "line 12 is not a new number"),
        ("classes.txt", "3 003", "4 003", "classes must be numbered from 1 on, without gaps"),
        ("images.txt", "1 001.Black", "1 ../001.Black", "image 1 lies outside images/"),
        ("images.txt", "1 001.Black", "1 /001.Black", "image 1 lies outside images/"),
        ("images.txt", "Albatross_0003_12", "Albatross_0009_12", "_0009_12.jpg': "),
        ("images.txt", "1 001.Black", "first 001.Black", "line 1 is not a new number and a text"),
    ],
)
def test_wrong_lines_are_refused_by_name(tmp_path, name, old, new, message):
    make_cub(tmp_path)
    path = tmp_path / "CUB_200_2011" / name
    text = path.read_text()
    assert old in text
    at = text.rindex(old) if old.startswith("12") else text.index(old)
    path.write_text(text[:at] + new + text[at + len(old) :])
    with pytest.raises(InputError, match=message) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("kept", "message"), [("1", "to test on"), ("0", "to train on")])
def test_a_missing_split_is_named(tmp_path, kept, message):
    make_cub(tmp_path)
    (tmp_path / "CUB_200_2011" / "train_test_split.txt").write_text(
        "".join(f"{number} {kept}\n" for number in range(1, 13))
    )
    with pytest.raises(InputError, match=rf"train_test_split.txt': has no image {message}"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["images.txt", "image_class_labels.txt", "train_test_split.txt"])
def test_a_missing_file_is_named(tmp_path, name):
    make_cub(tmp_path)
    (tmp_path / "CUB_200_2011" / name).unlink()
    with pytest.raises(InputError, match=rf"does not hold cub2011: looked for .*{name}"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_what_is_no_picture_is_refused(tmp_path, content):
    make_cub(tmp_path)
    path = next((tmp_path / "CUB_200_2011" / "images" / NAMES[1]).iterdir())
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(InputError, match=path.name):
        load(tmp_path)
