"""Normalisation against numpy."""

import numpy as np
import pytest
import torch

from codistill.data.images import MemoryImages
from codistill.data.preprocessing import STATISTICS_SAMPLE, Preprocessing, fit_preprocessing
from codistill.errors import InputError

COLOUR = Preprocessing(height=4, width=6, channels=3, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 1.5))


def pictures(count: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    scale = np.array([255, 90, 30])[:channels]
    return (random.random((count, 4, 6, channels)) * scale).astype(np.uint8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_pixels_are_shifted_and_scaled_per_channel(dtype: torch.dtype, tolerance: float) -> None:
    images_BHWC = pictures(5)

    given = COLOUR(torch.from_numpy(images_BHWC), dtype)

    expected = (images_BHWC / 255 - np.array(COLOUR.mean)) / np.array(COLOUR.std)
    assert given.dtype == dtype
    assert np.abs(given.numpy() - expected.transpose(0, 3, 1, 2)).max() < tolerance
    assert given.is_contiguous(memory_format=torch.channels_last)


def test_statistics_are_those_of_the_chosen_images() -> None:
    images = pictures(40)
    images[20:] = 255  # Not among those that are trained on.
    positions = torch.arange(20)

    fitted = fit_preprocessing(MemoryImages(torch.from_numpy(images)), positions, normalize=True)

    chosen = images[:20].reshape(-1, 3) / 255
    assert fitted.mean == pytest.approx(chosen.mean(0).round(4), abs=1e-9)
    assert fitted.std == pytest.approx(chosen.std(0).round(4), abs=1e-9)
    assert (fitted.height, fitted.width, fitted.channels) == (4, 6, 3)


def test_what_was_measured_normalises_to_mean_0_and_deviation_1() -> None:
    images = torch.from_numpy(pictures(2500, channels=1))

    normalised = fit_preprocessing(MemoryImages(images), torch.arange(2500), normalize=True)(images)

    # Mean and deviation are kept to four decimals, of a deviation of 0.29.
    assert normalised.mean().item() == pytest.approx(0, abs=1e-3)
    assert normalised.std().item() == pytest.approx(1, abs=1e-3)


def test_without_normalisation_pixels_are_from_0_to_1() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 3, 1)

    fitted = fit_preprocessing(MemoryImages(images), torch.arange(1), normalize=False)

    assert fitted(images).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert (fitted.mean, fitted.std) == ((0.0,), (1.0,))


def test_a_channel_of_one_value_is_shifted_only() -> None:
    images = torch.full((3, 2, 2, 1), 51, dtype=torch.uint8)

    fitted = fit_preprocessing(MemoryImages(images), torch.arange(3), normalize=True)

    assert (fitted.mean, fitted.std) == ((0.2,), (1.0,))
    assert fitted(images).abs().max() < 1e-6


def test_of_many_images_an_even_sample_is_measured() -> None:
    """Of 25,000 images every second: 12,500, all black; the others are white."""
    images = torch.zeros(STATISTICS_SAMPLE + 5000, 1, 1, 1, dtype=torch.uint8)
    images[1::2] = 255

    fitted = fit_preprocessing(MemoryImages(images), torch.arange(len(images)), normalize=True)

    assert fitted.mean == (0.0,)
    few = fit_preprocessing(MemoryImages(images), torch.arange(STATISTICS_SAMPLE), normalize=True)
    assert few.mean == (0.5,)


def test_it_survives_json_types() -> None:
    assert Preprocessing.from_dict(COLOUR.as_dict()) == COLOUR


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 0}, "height must be a whole number above 0, not 0"),
        ({"width": 1.0}, "width must be"),
        ({"channels": True}, "channels must be"),
        ({"channels": 1}, "mean must be 1 numbers, one a channel"),
        ({"mean": None}, "mean must be 3 numbers"),
        ({"mean": [0.1, 0.2, "x"]}, "mean must be 3 numbers"),
        ({"mean": [0.1, 0.2, float("nan")]}, "mean must be 3 numbers"),
        ({"mean": [0.1, 0.2, 10**400]}, "mean must be 3 numbers"),
        ({"std": [0.1, 0.2, 0.0]}, "std must be 3 numbers"),
        ({"std": [0.1, 0.2, float("inf")]}, "std must be 3 numbers"),
        ({"std": [0.1, 0.2, float("nan")]}, "std must be 3 numbers"),
    ],
)
def test_what_is_no_preprocessing_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Preprocessing.from_dict(COLOUR.as_dict() | change)


def test_given_statistics_are_taken_and_nothing_is_read() -> None:
    class Unread:
        image_shape = (4, 6, 3)

    fitted = fit_preprocessing(
        Unread(),  # type: ignore[arg-type]
        torch.arange(3),
        normalize=True,
        mean=(0.1, 0.5, 0.9),
        std=(0.2, 0.3, 1.5),
    )

    assert fitted == COLOUR


def test_grey_images_as_colour_ones_have_one_statistic_three_times() -> None:
    images = torch.from_numpy(pictures(20, channels=1))
    positions = torch.arange(20)

    grey = fit_preprocessing(MemoryImages(images), positions, normalize=True)
    colour = fit_preprocessing(MemoryImages(images), positions, normalize=True, channels=3)

    assert (colour.mean, colour.std) == (grey.mean * 3, grey.std * 3)
    assert torch.equal(colour(images), grey(images).expand(-1, 3, -1, -1))
    plain = fit_preprocessing(MemoryImages(images), positions, normalize=False, channels=3)
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)
