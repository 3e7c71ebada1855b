import numpy as np
import pytest

from codistill.results.spread import Spread, bootstrap_interval, spread_of


def test_spread_is_the_sample_standard_deviation() -> None:
    # Deviations from 5: -3, -1, 4; squares sum to 26; 26 / (3 - 1) = 13.
    assert spread_of([2.0, 4.0, 9.0]) == Spread(mean=5.0, deviation=pytest.approx(13**0.5), n=3)


def test_one_value_has_no_deviation() -> None:
    assert spread_of([7.25]) == Spread(mean=7.25, deviation=None, n=1)


@pytest.mark.parametrize("constant", [-1, 0, 1])
def test_equal_differences_leave_no_doubt(constant: int) -> None:
    assert bootstrap_interval(np.full(50, constant)) == (constant, constant)


def brute_force(differences: np.ndarray) -> tuple[float, float]:
    images = np.random.default_rng(1).integers(len(differences), size=(10_000, len(differences)))
    low, high = np.quantile(differences[images].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("shares", [{-1: 0.05, 0: 0.85, 1: 0.10}, {-3: 0.1, -1: 0.2, 0: 0.3, 2: 0.4}])
def test_interval_is_that_of_drawing_images(shares: dict[int, float]) -> None:
    n = 400
    differences = np.repeat(list(shares), [round(n * share) for share in shares.values()])
    np.random.default_rng(2).shuffle(differences)
    # A 2.5 % quantile of 10,000 normal draws has standard error sqrt(0.025 · 0.975 / 10,000) / 0.0584 = 0.027
    # standard deviations of the mean, sqrt(2) times that for two such. The margin is four of them, and 1/n
    # because means are multiples of 1/n.
    margin = 4 * 2**0.5 * 0.027 * differences.std() / n**0.5 + 1 / n
    assert bootstrap_interval(differences) == pytest.approx(brute_force(differences), abs=margin)


def test_interval_is_the_normal_one_where_images_are_many() -> None:
    differences = np.repeat([-1, 0, 1], [2_000, 45_000, 3_000])
    half = 1.96 * differences.std() / len(differences) ** 0.5
    # 0.027 standard errors as above, four times, of 1.96 of them: 5.5 % of the half width.
    expected = (0.02 - half, 0.02 + half)
    assert bootstrap_interval(differences) == pytest.approx(expected, abs=0.055 * half)


def test_interval_is_the_same_every_time() -> None:
    differences = np.repeat([-1, 0, 1], [3, 80, 17])
    assert bootstrap_interval(differences) == bootstrap_interval(differences[::-1])
