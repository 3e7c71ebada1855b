"""Crops and flips of a batch in one gather, against a slow one image at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
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
        if draws.angles is not None:
            padded = TF.affine(padded, float(draws.angles[position]), [0, 0], 1.0, [0.0])
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


def turned(images: torch.Tensor, angles: list[float], padding: int) -> torch.Tensor:
    count = len(images)
    middle = torch.full((count,), padding)
    draws = EpochDraws(
        padding, middle, middle, torch.zeros(count, dtype=torch.bool), torch.tensor(angles).double()
    )
    return draws.apply(images, torch.arange(count))


def test_quarter_turns_are_exact() -> None:
    images = pictures(1, 6, 6).expand(5, -1, -1, -1)

    results = turned(images, [0, 90, 180, -90, 360], padding=2)

    for result, quarters in zip(results, (0, 1, 2, 3, 0), strict=True):
        assert torch.equal(result, images[0].rot90(-quarters, (0, 1)))  # Clockwise.


@pytest.mark.parametrize("padding", [0, 3, 10])
def test_turned_images_are_those_of_torchvision(padding: int) -> None:
    """All but the pixels whose source lies half-way between two, where rounding decides."""
    images = pictures(30, 16, 20, seed=2)
    draws = Augmentation(crop_padding=padding, horizontal_flip=True, rotation=45.0).draw(30, seed=1, epoch=1)
    positions = torch.arange(30)

    given_ = draws.apply(images, positions)

    same = (given_ == one_by_one(images, draws, positions)).all(-1)
    assert same.double().mean() > 0.999


def test_a_turn_is_that_of_a_pillow_image() -> None:
    """The authors of the paper turn Pillow's images, by RandomAffine."""
    image = pictures(1, 24, 24)[0]
    for angle in (-10.0, 3.3, 10.0):
        padded = TF.pad(Image.fromarray(image.numpy()), [6] * 4)
        expected = np.asarray(TF.crop(TF.affine(padded, angle, [0, 0], 1.0, [0.0]), 6, 6, 24, 24))
        same = (turned(image[None], [angle], padding=6)[0].numpy() == expected).all(-1)
        assert same.mean() > 0.99


def test_what_a_turn_brings_in_from_outside_is_zero() -> None:
    result = turned(pictures(1, 20, 20), [45.0], padding=0)[0]

    # The four corners, each a right triangle: of the 20×20 pixels √8 - 2 of them are cut off, about 17 %.
    corners = (result == 0).all(-1).double().mean()
    assert corners == pytest.approx(3 - 8**0.5, abs=0.03)
    assert not result[0, 0].any()


def test_turns_leave_crops_and_flips_as_they_were_and_are_even() -> None:
    still = Augmentation(crop_padding=4, horizontal_flip=True).draw(90_000, seed=0, epoch=0)
    draws = Augmentation(crop_padding=4, horizontal_flip=True, rotation=10.0).draw(90_000, seed=0, epoch=0)

    for name in ("rows", "columns", "flips"):
        assert torch.equal(getattr(still, name), getattr(draws, name))
    assert still.angles is None
    assert draws.angles is not None
    assert float(draws.angles.abs().max()) <= 10
    # Ten equal parts of 9,000 with standard deviation 90; six of them.
    assert torch.histc(draws.angles, 10, -10, 10).tolist() == pytest.approx([9000] * 10, abs=540)
