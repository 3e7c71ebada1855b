"""Images in memory, scaled batch by batch."""

import numpy as np
import pytest
import torch
from copies import make_cifar10, make_folder, pixels
from PIL import Image

from codistill.config.data import DataConfig
from codistill.data.images import scaled
from codistill.data.sources import load_source


@pytest.mark.parametrize(("old", "new"), [(32, 224), (96, 32), (8, 13), (28, 28)])
@pytest.mark.parametrize("channels", [1, 3])
def test_scaling_is_that_of_pillow(old: int, new: int, channels: int) -> None:
    images = pixels(3, (old, old, channels), 0)

    results = scaled(torch.from_numpy(images), new).numpy()

    for image, result in zip(images, results, strict=True):
        for channel in range(channels):
            plane = Image.fromarray(image[..., channel]).resize((new, new), Image.Resampling.BILINEAR)
            # Pillow rounds after each of its two passes.
            assert np.abs(result[..., channel].astype(int) - np.asarray(plane)).max() <= 1


def test_a_source_of_arrays_is_scaled_when_another_size_is_asked_for(tmp_path) -> None:
    settings = make_cifar10(tmp_path, per_class=1)
    plain = load_source(DataConfig(source="cifar10", **settings))
    large = load_source(DataConfig(source="cifar10", image_size=48, **settings))

    assert large.train.images.image_shape == (48, 48, 3)
    positions = [torch.tensor([3, 1]), torch.tensor([7])]
    for batch, chosen in zip(large.train.images.batches(positions, 0), positions, strict=True):
        assert torch.equal(batch, scaled(plain.train.images.images_NHWC[chosen], 48))
    same = load_source(DataConfig(source="cifar10", image_size=32, **settings))
    assert torch.equal(same.train.images.images_NHWC, plain.train.images.images_NHWC)
    assert same.train.images.size is None


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_pictures_become_squares_as_asked_for(tmp_path, resize) -> None:
    settings = make_folder(tmp_path, size=(20, 40))
    data = load_source(DataConfig(source="folder", image_size=10, resize=resize, **settings))

    path = min((tmp_path / "train" / "kind0").iterdir())
    image = Image.open(path)
    box = (10, 0, 30, 20) if resize == "crop" else None
    expected = image.resize((10, 10), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_array_equal(data.train.images.images_NHWC[0], np.asarray(expected))
