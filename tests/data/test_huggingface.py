import os
import pickle
import sys

import numpy as np
import pytest
import torch
from copies import labels, make_parquet, pixels, png, write_parquet

from codistill.config.data import DataConfig
from codistill.data.images import MemoryImages, StreamedImages
from codistill.data.sources import load_source
from codistill.errors import InputError

pytest.importorskip("datasets")


def load(root, **settings):
    return load_source(DataConfig(source="huggingface", root=str(root), **settings))


@pytest.mark.parametrize("layout", ["", "data"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 20, 1)])
def test_pixels_written_are_the_pixels_read(tmp_path, layout, shape):
    settings = make_parquet(tmp_path, per_class=4, size=shape[:2], channels=shape[2], layout=layout)
    for _ in ("decoded", "cached"):
        data = load_source(DataConfig(source="huggingface", **settings, num_classes=3))
        for part, seed in ((data.train, 0), (data.test, 1)):
            np.testing.assert_array_equal(part.images.images_NHWC, pixels(12, shape, seed))
            np.testing.assert_array_equal(part.labels, labels(12, 3))
        assert data.classes == ("kind0", "kind1", "kind2")


def write_split(path, count=6, *, first=0, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [png(image) for image in pixels(count, (8, 8, 3), 0)]
    write_parquet(path, images[first:], labels(count, 3).tolist()[first:], **how)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.parquet", "test.parquet"),
        ("train-00000-of-00001-0123abcd.parquet", "test-0.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
    ],
)
def test_layouts_of_the_hub_are_found(tmp_path, train, test):
    write_split(tmp_path / train)
    write_split(tmp_path / test)
    write_split(tmp_path / "train_extra.parquet")
    assert len(load(tmp_path).train) == 6


def test_shards_are_read_in_order_and_all_of_them(tmp_path):
    images, classes = pixels(6, (8, 8, 3), 0), labels(6, 3).tolist()
    shards = [tmp_path / f"train-0000{shard}-of-00003.parquet" for shard in range(3)]
    for shard, path in enumerate(shards):
        rows = slice(2 * shard, 2 * shard + 2)
        write_parquet(path, [png(image) for image in images[rows]], classes[rows])
    write_split(tmp_path / "test.parquet")
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.images.images_NHWC, images)
    assert data.train.labels.tolist() == classes
    shards[1].unlink()
    with pytest.raises(InputError, match="holds 2 of the 3 files of 'train'"):
        load(tmp_path)
    assert len(load(tmp_path / "*.parquet").train) == 4


def test_shards_need_the_same_classes(tmp_path):
    write_both(tmp_path)
    for shard, classes in enumerate([("kind0", "kind1", "kind2"), ("kind0", "kind2", "kind1")]):
        write_split(tmp_path / f"dev-{shard}.parquet", classes=classes)
    with pytest.raises(
        InputError, match=r"dev-1.parquet': has other columns or classes than .*dev-0.parquet"
    ):
        load(tmp_path, test_split="dev")


def test_splits_are_chosen_by_name(tmp_path):
    write_split(tmp_path / "train.parquet")
    write_split(tmp_path / "validation.parquet", first=3)
    with pytest.raises(
        InputError, match=r"no files for the split 'test'.*found train.parquet, validation.parquet"
    ):
        load(tmp_path)
    assert len(load(tmp_path, test_split="validation").test) == 3
    with pytest.raises(InputError, match="found no parquet files"):
        load(tmp_path / "nowhere")


def write_both(folder, **how):
    for split in ("train", "test"):
        write_split(folder / f"{split}.parquet", **how)


def test_several_label_columns_are_listed(tmp_path):
    write_both(tmp_path, label_columns=("coarse_label", "fine_label"))
    with pytest.raises(InputError, match=r"data.label_column: name one.*classes: coarse_label, fine_label"):
        load(tmp_path)
    assert load(tmp_path, label_column="fine_label").classes == ("kind0", "kind1", "kind2")
    with pytest.raises(InputError, match=r"'label' is not a column.*img, coarse_label, fine_label"):
        load(tmp_path, label_column="label")
    with pytest.raises(InputError, match=r"data.label_column: 'img' .* not whole numbers"):
        load(tmp_path, label_column="img")
    with pytest.raises(InputError, match=r"data.image_column: 'fine_label' .* holds int64, not images"):
        load(tmp_path, label_column="fine_label", image_column="fine_label")


def test_plain_numbers_are_classes_where_they_are_named(tmp_path):
    write_both(tmp_path, features=False)
    with pytest.raises(InputError, match=r"data.label_column: name one.*candidates are label"):
        load(tmp_path)
    data = load(tmp_path, label_column="label")
    assert data.classes == ("0", "1", "2")
    np.testing.assert_array_equal(data.train.images.images_NHWC, pixels(6, (8, 8, 3), 0))


@pytest.mark.parametrize(
    ("classes", "features", "message"),
    [
        ([0, 1, 2, -1], True, "split 'test' of .*: label -1 of image 3 is outside 0 to 2"),
        ([0, 1, 2, None], True, "split 'test' of .*: column 'label' has rows without a label"),
        ([0, 1, 2, 3], False, "split 'test' of .*: label 3 of image 3 is outside 0 to 2"),
        ([0, 1, 2, 3], True, "split 'test' of .*: has other columns or classes"),
    ],
)
def test_odd_labels_are_refused(tmp_path, classes, features, message):
    write_split(tmp_path / "train.parquet", features=features)
    names = ("kind0", "kind1", "kind2", "kind3")[: 4 if 3 in classes else 3]
    images = [png(pixels(1, (8, 8, 3), 0)[0])] * 4
    write_parquet(tmp_path / "test.parquet", images, classes, features=features, classes=names)
    with pytest.raises(InputError, match=message):
        load(tmp_path, label_column="label")


def test_number_far_beyond_the_images_is_no_class(tmp_path):
    for split in ("train", "test"):
        path = tmp_path / f"{split}.parquet"
        write_parquet(path, [png(pixels(1, (8, 8, 3), 0)[0])] * 2, [0, 10**15], features=False)
    with pytest.raises(InputError, match="label 1000000000000000 is beyond 2 images"):
        load(tmp_path, label_column="label")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"text", "row 1 of split 'test' of .*: is not a picture of a known kind"),
        (None, "row 1 of split 'test' of .*: holds no image"),
        (
            png(pixels(1, (7, 9, 3), 0)[0]),
            "row 1 of split 'test' of .*: is 7×9 pixels, others 8×8; data.image_size",
        ),
        (png(pixels(1, (8, 8, 3), 0)[0])[:150], "row 1 of split 'test' of .*: cannot be read as a picture"),
    ],
)
def test_odd_images_are_refused(tmp_path, image, message):
    write_split(tmp_path / "train.parquet")
    good = png(pixels(1, (8, 8, 3), 0)[0])
    write_parquet(tmp_path / "test.parquet", [good, image, good], [0, 1, 2])
    with pytest.raises(InputError, match=message) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_one_coloured_image_makes_all_colour(tmp_path):
    grey = pixels(3, (8, 8, 1), 0)
    write_parquet(tmp_path / "train.parquet", [png(image) for image in grey], [0, 1, 2])
    write_split(tmp_path / "test.parquet")
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.images.images_NHWC, np.repeat(grey, 3, axis=3))
    np.testing.assert_array_equal(data.test.images.images_NHWC, pixels(6, (8, 8, 3), 0))


@pytest.mark.parametrize("kept", [0, 100, -5])
def test_parquet_cut_short_is_named(tmp_path, kept):
    make_parquet(tmp_path)
    path = tmp_path / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"test-00000-of-00001.parquet': cannot be read as parquet"):
        load(tmp_path)


def test_damage_within_parquet_is_named(tmp_path):
    make_parquet(tmp_path)
    path = tmp_path / "test-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"test-00000-of-00001.parquet': is damaged|row 0 of split 'test'"):
        load(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_images_equal_those_in_memory(tmp_path, monkeypatch, capfd, workers):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    make_parquet(tmp_path / "set", per_class=4)
    held, streamed = (
        load(tmp_path / "set", image_size=20),
        load(tmp_path / "set", image_size=20, memory_gib=0),
    )
    assert isinstance(held.train.images, MemoryImages)
    assert isinstance(streamed.train.images, StreamedImages)
    pickle.loads(pickle.dumps(streamed.train.images.read))
    positions = [torch.tensor([11, 0, 5]), torch.tensor([3])]
    for one, other in zip(
        held.test.images.batches(positions), streamed.test.images.batches(positions, workers), strict=True
    ):
        assert torch.equal(one, other)
    assert capfd.readouterr() == ("", "")


def test_cache_is_used_and_rebuilt_when_files_change(tmp_path, monkeypatch):
    from codistill.data import huggingface

    decoded = []
    decode_all = huggingface.decode_all

    def counted(*arguments):
        decoded.append(1)
        return decode_all(*arguments)

    monkeypatch.setattr(huggingface, "decode_all", counted)
    write_both(tmp_path)
    load(tmp_path)
    load(tmp_path)
    assert len(decoded) == 2
    load(tmp_path, image_size=4)
    assert len(decoded) == 4
    os.utime(tmp_path / "train.parquet", ns=(1, 1))
    np.testing.assert_array_equal(load(tmp_path).train.images.images_NHWC, pixels(6, (8, 8, 3), 0))
    assert len(decoded) == 6


def test_set_from_the_hub_is_read_like_files(monkeypatch, tmp_path):
    import datasets

    def hub(name, split):
        assert name == "someone/pictures"
        if split not in ("train", "test"):
            raise ValueError(f"Unknown split\n{split}")
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
        )
        images = pixels(4, (8, 8, 3), 0 if split == "train" else 1)
        rows = {"image": [{"bytes": png(image), "path": None} for image in images], "label": [0, 1, 0, 1]}
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", hub)
    settings = {"source": "huggingface", "hub_name": "someone/pictures"}
    for memory in (4.0, 0.0):
        data = load_source(DataConfig(**settings, memory_gib=memory))
        for part, seed in ((data.train, 0), (data.test, 1)):
            read = next(part.images.batches([torch.arange(4)], 0))
            np.testing.assert_array_equal(read, pixels(4, (8, 8, 3), seed))
        assert data.classes == ("cat", "dog")
        assert data.test.labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(
        InputError, match="'someone/pictures', split 'dev': cannot be loaded: Unknown split dev"
    ):
        load_source(DataConfig(**settings, test_split="dev"))


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs the package pyarrow: pip install 'codistill\[hub\]'"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"needs the package datasets: pip install 'codistill\[hub\]'"):
        load_source(DataConfig(source="huggingface", hub_name="a/b"))
