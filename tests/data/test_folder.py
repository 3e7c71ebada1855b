import os
import pickle

import numpy as np
import pytest
import torch
from copies import make_folder, pixels
from PIL import Image

from codistill.config.data import DataConfig
from codistill.data.images import MemoryImages, StreamedImages
from codistill.data.sources import load_source
from codistill.errors import InputError


def by_class(count, num_classes, shape=(32, 32, 3), seed=0):
    """The pixels in the order of the classes, as a folder is read."""
    order = np.argsort(np.arange(count) % num_classes, kind="stable")
    return pixels(count, shape, seed)[order]


def load(root, **settings):
    return load_source(DataConfig(source="folder", root=str(root), **settings))


def save(path, image=None, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels(1, (32, 32, 3), 9)[0]) if image is None else image
    image.save(path, **how)


@pytest.mark.parametrize("extension", ["png", "bmp", "ppm", "tiff", "TIF", "PNG"])
def test_pixels_written_are_the_pixels_read(tmp_path, extension):
    data = load_source(DataConfig(source="folder", **make_folder(tmp_path, per_class=4, extension=extension)))
    np.testing.assert_array_equal(data.train.images.images_NHWC, by_class(12, 3))
    np.testing.assert_array_equal(data.test.images.images_NHWC, by_class(12, 3, seed=1))
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.classes == ("kind0", "kind1", "kind2")


def test_jpeg_is_close_to_what_was_written(tmp_path):
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    for split in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "1.JPEG", Image.fromarray(smooth), quality=95)
    read = load(tmp_path).train.images.images_NHWC[0].numpy()
    assert np.abs(read.astype(int) - smooth).max() <= 8


@pytest.mark.parametrize("name", ["test", "val", "validation", "valid"])
def test_test_set_goes_by_several_names(tmp_path, name):
    make_folder(tmp_path, splits=("train", name))
    np.testing.assert_array_equal(load(tmp_path).test.images.images_NHWC, by_class(6, 3, seed=1))


def test_test_wins_over_val(tmp_path):
    make_folder(tmp_path, splits=("train", "test", "val"))
    np.testing.assert_array_equal(load(tmp_path).test.images.images_NHWC, by_class(6, 3, seed=1))


def test_single_folder_is_split_per_class_and_always_alike(tmp_path):
    make_folder(tmp_path, per_class=10, splits=("",))
    data = load(tmp_path)
    assert data.train.labels.bincount().tolist() == [8, 8, 8]
    assert data.test.labels.bincount().tolist() == [2, 2, 2]
    both = torch.cat([data.train.images.images_NHWC, data.test.images.images_NHWC]).numpy()
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in by_class(30, 3))
    assert torch.equal(load(tmp_path, split_seed=5).test.images.images_NHWC, data.test.images.images_NHWC)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        for row in range(5):
            save(tmp_path / name / f"{row}.png")
    assert load(tmp_path).classes == ("bus", "train")


def test_grey_only_where_all_are_grey(tmp_path):
    make_folder(tmp_path, size=(8, 8), channels=1)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.images.images_NHWC, by_class(6, 3, (8, 8, 1)))
    save(tmp_path / "test" / "kind0" / "999.png", Image.new("RGB", (8, 8), (1, 2, 3)))
    data = load(tmp_path)
    np.testing.assert_array_equal(
        data.train.images.images_NHWC, np.repeat(by_class(6, 3, (8, 8, 1)), 3, axis=3)
    )
    assert data.test.images.images_NHWC[2, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_is_scaled(tmp_path, extension):
    deep = np.array([[0, 128, 129, 257], [32768, 65535, 65407, 65406]], np.uint16)
    for split in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / split / name / f"1.{extension}", Image.fromarray(deep))
    read = load(tmp_path).train.images.images_NHWC[0, :, :, 0]
    assert read.tolist() == [[0, 0, 1, 1], [128, 255, 255, 254]]


def test_other_modes_become_red_green_blue(tmp_path):
    red = (200, 10, 20)
    images = {
        "palette": Image.new("RGB", (4, 4), red).quantize(2),
        "alpha": Image.new("RGBA", (4, 4), (*red, 0)),
        "print": Image.new("CMYK", (4, 4), (55, 245, 235, 0)),
        "white": Image.new("1", (4, 4), 1),
        "grey-alpha": Image.new("LA", (4, 4), (7, 0)),
    }
    for name, image in images.items():
        for split in ("train", "test"):
            save(tmp_path / split / name / f"1.{'tif' if name == 'print' else 'png'}", image)
    data = load(tmp_path)
    read = {name: data.train.images.images_NHWC[row, 0, 0].tolist() for row, name in enumerate(data.classes)}
    assert read["white"] == [255, 255, 255]
    assert read["grey-alpha"] == [7, 7, 7]
    for name in ("palette", "alpha", "print"):
        assert read[name] == pytest.approx(red, abs=1)


def test_cameras_orientation_is_undone(tmp_path):
    image = pixels(1, (4, 6, 3), 0)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned a quarter: the stored rows are the upright picture's columns.
    for split in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "1.png", Image.fromarray(image), exif=exif)
    data = load(tmp_path)
    assert data.train.images.image_shape == (6, 4, 3)
    np.testing.assert_array_equal(data.train.images.images_NHWC[0], np.rot90(image, -1))


def test_resize_scales_the_shorter_side_and_keeps_the_centre(tmp_path):
    wide = Image.fromarray(pixels(1, (4, 12, 3), 0)[0])
    high = Image.fromarray(pixels(1, (30, 5, 3), 1)[0])
    for split in ("train", "test"):
        save(tmp_path / split / "a" / "1.png", wide)
        save(tmp_path / split / "b" / "1.png", high)
    images = load(tmp_path, image_size=2).train.images.images_NHWC
    np.testing.assert_array_equal(
        images[0], wide.resize((6, 2), Image.Resampling.BILINEAR).crop((2, 0, 4, 2))
    )
    np.testing.assert_array_equal(
        images[1], high.resize((2, 12), Image.Resampling.BILINEAR).crop((0, 5, 2, 7))
    )


def test_resize_to_the_same_size_changes_nothing(tmp_path):
    make_folder(tmp_path)
    np.testing.assert_array_equal(load(tmp_path, image_size=32).train.images.images_NHWC, by_class(6, 3))


def test_unlike_sizes_are_both_named(tmp_path):
    make_folder(tmp_path)
    save(tmp_path / "train" / "kind1" / "999.png", Image.new("RGB", (5, 7)))
    with pytest.raises(InputError, match=r"999.png': is 7×5 pixels, but .*000.png' 32×32; data.image_size"):
        load(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_images_equal_those_in_memory(tmp_path, workers):
    make_folder(tmp_path, per_class=4)
    held, streamed = load(tmp_path, image_size=20), load(tmp_path, image_size=20, memory_gib=1e-6)
    assert isinstance(held.train.images, MemoryImages)
    assert isinstance(streamed.train.images, StreamedImages)
    assert streamed.train.images.image_shape == (20, 20, 3)
    pickle.loads(pickle.dumps(streamed.train.images.read))
    positions = [torch.tensor([11, 0, 5]), torch.tensor([3])]
    for one, other in zip(
        held.train.images.batches(positions), streamed.train.images.batches(positions, workers), strict=True
    ):
        assert torch.equal(one, other)
    assert torch.equal(held.train.labels, streamed.train.labels)


def test_streamed_image_that_changed_is_named(tmp_path):
    make_folder(tmp_path)
    images = load(tmp_path, memory_gib=0).train.images
    (tmp_path / "train" / "kind0" / "000.png").unlink()
    save(tmp_path / "train" / "kind0" / "003.png", Image.new("RGB", (5, 7)))
    for position, message in ((0, "000.png': cannot be read"), (1, "003.png': is 7×5 pixels, others 32×32")):
        with pytest.raises(InputError, match=message):
            next(images.batches([torch.tensor([position])], 0))


def test_hidden_and_other_files_are_passed_over(tmp_path):
    make_folder(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._000.png"):
        (tmp_path / "train" / "kind0" / name).write_bytes(b"x")
        (tmp_path / "train" / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        save(tmp_path / "train" / name / "1.png")
    save(tmp_path / "train" / "kind0" / ".ipynb_checkpoints" / "1.png")
    assert len(load(tmp_path).train) == 6


def test_pictures_deeper_in_a_class_and_links_are_followed_once(tmp_path):
    make_folder(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    for split in ("train", "test"):
        os.symlink(tmp_path / "real" / split, tmp_path / "linked" / split)
    save(tmp_path / "real" / "train" / "kind2" / "images" / "deeper.png")
    os.symlink(
        tmp_path / "real" / "train" / "kind2", tmp_path / "real" / "train" / "kind2" / "images" / "loop"
    )
    data = load(tmp_path / "linked")
    assert data.train.labels.bincount().tolist() == [2, 2, 3]


def damage_text(path):
    path.write_text("not a picture")


def damage_short(path):
    path.write_bytes(path.read_bytes()[:1000])


def damage_empty(path):
    path.write_bytes(b"")


def damage_link(path):
    path.unlink()
    os.symlink("/nowhere", path)


def damage_moving(path):
    frames = [Image.new("L", (32, 32), value) for value in (0, 200)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def damage_moving_png(path):
    frames = [Image.new("L", (32, 32), value) for value in (0, 200)]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:])


def damage_program(path):
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n")


def damage_bomb(path):
    # A header that announces 20,000 × 20,000 pixels.
    content = bytearray(path.read_bytes())
    content[16:24] = (20_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_text, "is not a picture of a known kind: PNG, JPEG"),
        (damage_program, "is not a picture of a known kind"),
        (damage_short, "cannot be read as a picture: .*truncated"),
        (damage_empty, "is empty"),
        (damage_link, "cannot be read, or leads nowhere"),
        (damage_moving, "holds several frames"),
        (damage_moving_png, "holds several frames"),
        (damage_bomb, "cannot be read as a picture: Image size .400000000 pixels. exceeds limit"),
    ],
)
def test_files_that_are_no_still_pictures_are_named(tmp_path, damage, message):
    make_folder(tmp_path)
    damage(tmp_path / "train" / "kind1" / "004.png")
    with pytest.raises(InputError, match=f"train/kind1/004.png': {message}") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_name_with_a_line_break_stays_on_one_line(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train" / "kind1" / "a\nb.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"kind1/a\\nb.png': is empty"):
        load(tmp_path)


def test_folders_that_are_no_classes_are_named(tmp_path):
    with pytest.raises(InputError, match="needs a folder for each class, two at least, and has none"):
        load(tmp_path)
    save(tmp_path / "cat" / "1.png")
    with pytest.raises(InputError, match="two at least, and has one, 'cat'"):
        load(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(InputError, match="dog': holds no pictures"):
        load(tmp_path)
    save(tmp_path / "dog" / "1.png")
    with pytest.raises(InputError, match="class 'cat' has 1 images; 3 are needed"):
        load(tmp_path)


def test_train_and_test_need_the_same_classes(tmp_path):
    make_folder(tmp_path)
    save(tmp_path / "test" / "zebra" / "1.png")
    with pytest.raises(InputError, match=r"train': lacks the class 'zebra', which .*test' has"):
        load(tmp_path)


def test_train_without_test_says_what_to_do(tmp_path):
    make_folder(tmp_path, splits=("train",))
    with pytest.raises(
        InputError, match=r"has a folder train but none of test, val.*give .*/train' to hold out"
    ):
        load(tmp_path)
