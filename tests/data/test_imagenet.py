import shutil

import numpy as np
import pytest
import torch
from copies import WORDNET_IDS, make_imagenet
from PIL import Image
from torchvision import datasets

from codistill.config.data import DataConfig
from codistill.data.loaders import load_data
from codistill.data.pack import pack
from codistill.data.sources import load_source
from codistill.errors import InputError


def load(root, **settings):
    return load_source(DataConfig(source="imagenet", root=str(root), **settings))


def everything(part):
    (images,) = part.images.batches([torch.arange(len(part))], 0)
    return images.numpy()


@pytest.mark.parametrize("layout", ["", "ImageNet", "ILSVRC/Data/CLS-LOC"])
def test_folders_are_read_as_torchvision_reads_them_scaled_to_squares(tmp_path, layout):
    make_imagenet(tmp_path, layout=layout)
    data = load(tmp_path)
    for split, part in (("train", data.train), ("val", data.test)):
        theirs = datasets.ImageFolder(str(tmp_path / layout / split))
        expected = [image.resize((224, 224), Image.Resampling.BILINEAR) for image, _ in theirs]
        np.testing.assert_array_equal(everything(part), np.stack([np.asarray(image) for image in expected]))
        assert part.labels.tolist() == theirs.targets
    assert data.classes == WORDNET_IDS


@pytest.mark.parametrize("layout", ["", "ImageNet"])
def test_packs_hold_what_the_folders_hold(tmp_path, layout):
    make_imagenet(tmp_path / "folders")
    (tmp_path / layout).mkdir(exist_ok=True)
    for split in ("train", "val"):
        pack(tmp_path / "folders" / split, tmp_path / layout / f"ILSVRC-{split}.lmdb")
    folders, packs = load(tmp_path / "folders", image_size=16), load(tmp_path, image_size=16)
    assert packs.classes == folders.classes
    for ours, theirs in ((packs.train, folders.train), (packs.test, folders.test)):
        np.testing.assert_array_equal(everything(ours), everything(theirs))
        assert torch.equal(ours.labels, theirs.labels)


def test_it_is_normalised_by_the_usual_statistics(tmp_path):
    make_imagenet(tmp_path)
    config = DataConfig(
        source="imagenet",
        root=str(tmp_path),
        image_size=16,
        crop_padding=2,
        validation_fraction=0.0,
    )
    preprocessing = load_data(config).preprocessing
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.std == (0.229, 0.224, 0.225)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(
        InputError, match=r"does not hold imagenet: looked for ILSVRC-train.lmdb and ILSVRC-val"
    ):
        load(tmp_path)
    make_imagenet(tmp_path)
    pack(tmp_path / "train", tmp_path / "ILSVRC-train.lmdb")
    with pytest.raises(InputError, match=r"ILSVRC-val.lmdb': is missing beside ILSVRC-train.lmdb"):
        load(tmp_path)
    (tmp_path / "ILSVRC-train.lmdb").unlink()
    shutil.rmtree(tmp_path / "val" / WORDNET_IDS[2])
    with pytest.raises(InputError, match=r"val': lacks the class 'n02102040'"):
        load(tmp_path)
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(InputError, match=r"val': is missing beside train"):
        load(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match=r"val': has no folder for each class; its pictures must be sorted"):
        load(tmp_path)


def test_what_is_no_picture_is_refused(tmp_path):
    make_imagenet(tmp_path)
    first, second = sorted((tmp_path / "train" / WORDNET_IDS[1]).iterdir())
    second.write_text("text")
    data = load(tmp_path)  # Only the first of each class is looked at.
    with pytest.raises(InputError, match=rf"{second.name}': is not a picture of a known kind"):
        everything(data.train)
    first.write_text("text")
    with pytest.raises(InputError, match=rf"{first.name}': is not a picture of a known kind"):
        load(tmp_path)
