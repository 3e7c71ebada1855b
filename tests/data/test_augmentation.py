"""Crops and flips of a batch in one gather, against a slow one image at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as TF

from codistill.data.augmentation import Augmentation, EpochDraws


def pictures(count: int, height: int = 5, width: int = 7, channels: int = 3, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    # From 1 on: zeros are padding.
    return torch.from_numpy(random.integers(1, 256, (count, height, width, channels), dtype=np.uint8))


def one_by_one(images_BHWC: torch.Tensor, draws: EpochDraws, positions: torch.Tensor) -> torch.Tensor:
    results = []
    for image_HWC, position in zip(images_BHWC, positions.tolist(), strict=True):
        height, width, _ = image_HWC.shape
        padded = TF.pad(image_HWC.permute(2, 0, 1), [draws.crop_padding] * 4)
        cropped = TF.crop(padded, int(draws.rows[position]), int(draws.columns[position]), height, width)
        results.append((TF.hflip(cropped) if draws.flips[position] else cropped).permute(1, 2, 0))
    return torch.stack(results)


@settings(max_examples=40, deadline=None)
@given(
    padding=st.integers(0, 6),
    flip=st.booleans(),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_a_batch_equals_its_images_one_by_one(
    padding: int, flip: bool, height: int, width: int, channels: int, seed: int
) -> None:
    images = pictures(20, height, width, channels, seed)
    draws = Augmentation(crop_padding=padding, horizontal_flip=flip).draw(20, seed=seed, epoch=1)
    positions = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[:9]

    given_ = draws.apply(images[positions], positions)

    assert given_.dtype == torch.uint8
    assert torch.equal(given_, one_by_one(images[positions], draws, positions))


def test_the_crop_at_every_offset_is_a_slice_of_zero_padding() -> None:
    image = pictures(1)[0]
    padded = np.pad(image.numpy(), ((2, 2), (2, 2), (0, 0)))
    for row in range(5):
        for column in range(5):
            draws = EpochDraws(2, torch.tensor([row]), torch.tensor([column]), torch.tensor([False]))
            expected = padded[row : row + 5, column : column + 7]
            assert np.array_equal(draws.apply(image[None], torch.tensor([0]))[0].numpy(), expected)


def test_without_padding_and_flip_nothing_changes() -> None:
    images = pictures(10)
    draws = Augmentation(crop_padding=0, horizontal_flip=False).draw(10, seed=3, epoch=0)

    assert torch.equal(draws.apply(images, torch.arange(10)), images)


def test_each_image_has_draws_of_its_own() -> None:
    """All images are one and the same: what differs are the draws."""
    images = pictures(1).expand(200, -1, -1, -1)
    draws = Augmentation(crop_padding=1, horizontal_flip=True).draw(200, seed=0, epoch=0)

    results = draws.apply(images, torch.arange(200))

    # 3 rows × 3 columns × 2 flips; the rarest of 18 is missing from 200 with probability 2e-4 (seed fixed).
    assert len({result.numpy().tobytes() for result in results}) == 18


def test_draws_are_even() -> None:
    draws = Augmentation(crop_padding=4, horizontal_flip=True).draw(90_000, seed=0, epoch=0)

    # 9 offsets: 10,000 each, standard deviation 94; flips: 45,000, standard deviation 150. Six of them.
    for offsets in (draws.rows, draws.columns):
        assert torch.bincount(offsets).tolist() == pytest.approx([10_000] * 9, abs=570)
    assert int(draws.flips.sum()) == pytest.approx(45_000, abs=900)
    together = torch.bincount(draws.rows * 9 + draws.columns)
    assert together.tolist() == pytest.approx([90_000 / 81] * 81, abs=6 * 34)


def test_flips_only_when_they_are_on() -> None:
    on = Augmentation(crop_padding=2, horizontal_flip=True).draw(100, seed=0, epoch=0)
    off = Augmentation(crop_padding=2, horizontal_flip=False).draw(100, seed=0, epoch=0)

    assert not off.flips.any()
    assert on.flips.any()
    # The crops are the same: flipping is apart from them.
    assert torch.equal(on.rows, off.rows)
    assert torch.equal(on.columns, off.columns)


def test_draws_are_a_function_of_seed_and_epoch() -> None:
    augmentation = Augmentation(crop_padding=4, horizontal_flip=True)
    torch.manual_seed(0)
    one = augmentation.draw(500, seed=1, epoch=2)
    torch.rand(3)
    again = augmentation.draw(500, seed=1, epoch=2)

    for name in ("rows", "columns", "flips"):
        assert torch.equal(getattr(one, name), getattr(again, name))
        for other in (augmentation.draw(500, seed=2, epoch=2), augmentation.draw(500, seed=1, epoch=3)):
            assert not torch.equal(getattr(one, name), getattr(other, name))
