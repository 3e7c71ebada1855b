"""The transforms of the paper's authors, expressed as settings, against torchvision's on Pillow's images.

docs/data.md lists the settings. What torchvision would draw is taken from our draws.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from copies import make_cifar10, make_cub, make_idx, make_imagenet
from PIL import Image
from torchvision.transforms import functional as TF

from codistill.config.data import DataConfig
from codistill.data.loaders import Data, load_data
from codistill.randomness import derive_seed

CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def loaded(source: str, made: dict[str, Any], **settings: Any) -> Data:
    config = DataConfig(source=source, **made, validation_fraction=0.0, workers=0, **settings)  # type: ignore[arg-type]
    return load_data(config)


def originals(
    data: Data, images: list[Image.Image], size: int, padding: int, **statistics: Any
) -> torch.Tensor:
    draws = data.augmentation.draw(len(data.train), seed=3, epoch=1)
    results = []
    for position, image in enumerate(images):
        padded = TF.pad(image.resize((size, size), Image.Resampling.BILINEAR), [padding] * 4)
        if draws.angles is not None:
            padded = TF.affine(padded, float(draws.angles[position]), [0, 0], 1.0, [0.0])
        cropped = TF.crop(padded, int(draws.rows[position]), int(draws.columns[position]), size, size)
        flipped = TF.hflip(cropped) if draws.flips[position] else cropped
        results.append(TF.normalize(TF.to_tensor(flipped), **statistics))
    return torch.stack(results)


def ours(data: Data) -> torch.Tensor:
    (batch,) = data.epoch(1, seed=3, batch_size=len(data.train))
    # The batch is in the epoch's order: back to that of the files.
    generator = torch.Generator().manual_seed(derive_seed(3, "order", 1))
    order = torch.randperm(len(data.train), generator=generator)
    return batch.images[order.argsort()]


def difference(one: torch.Tensor, other: torch.Tensor, std: tuple[float, ...]) -> torch.Tensor:
    """Return by how many of 255 levels each value differs."""
    return (one - other).abs() * 255 * torch.tensor(std)[:, None, None]


def cifar_images(data: Data) -> list[Image.Image]:
    return [Image.fromarray(image.numpy()) for image in data.train.images.images_NHWC]  # type: ignore[attr-defined]


def test_cifar10(tmp_path: Path) -> None:
    data = loaded("cifar10", make_cifar10(tmp_path), **CIFAR)

    assert (
        difference(ours(data), originals(data, cifar_images(data), 32, 4, **CIFAR), CIFAR["std"]).max() < 1e-3
    )


def test_cifar10_for_efficientnet(tmp_path: Path) -> None:
    data = loaded("cifar10", make_cifar10(tmp_path), **CIFAR, image_size=224, crop_padding=30)

    levels = difference(ours(data), originals(data, cifar_images(data), 224, 30, **CIFAR), CIFAR["std"])
    assert levels.max() < 1.001  # Pillow rounds after each of its two passes.


def test_cub2011(tmp_path: Path) -> None:
    made = make_cub(tmp_path)
    data = loaded("cub2011", made, normalize=False)

    paths = sorted((tmp_path / "CUB_200_2011" / "images").rglob("*.jpg"))
    images = [Image.open(path) for path in paths if path.stem.split("_")[-2][-1] in "13"]
    assert len(images) == len(data.train) == 6
    assert difference(ours(data), originals(data, images, 64, 4, **PLAIN), PLAIN["std"]).max() < 1e-3


def test_imagenet(tmp_path: Path) -> None:
    data = loaded("imagenet", make_imagenet(tmp_path))

    images = [Image.open(path) for path in sorted((tmp_path / "train").rglob("*.JPEG"))]
    levels = difference(ours(data), originals(data, images, 224, 50, **IMAGENET), IMAGENET["std"])
    # Where a turned pixel lies half-way between two, rounding decides; so one in a thousand may differ.
    assert (levels < 1e-3).double().mean() > 0.999


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
def test_grey_images_three_times(tmp_path: Path, source: str) -> None:
    data = loaded(source, make_idx(tmp_path, source), grey_to_rgb=True, normalize=False)

    images = ours(data)
    assert images.shape == (20, 3, 28, 28)
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    assert np.allclose(images.amax().item(), 1)
