"""Parameters, multiply-accumulates and latency."""

import pytest
import torch
from torch import nn

from codistill.models.cost import (
    activation_bytes,
    count_macs,
    count_parameters,
    measure_latency,
    saved_bytes,
    student_costs,
)
from codistill.models.ensemble import Classifier, Ensemble
from tiny import described, tiny_batch, tiny_ensemble


def macs_by_hand(widths: tuple[int, ...], in_channels: int, size: int, classes: int) -> int:
    """Count those of a 20-layer network: outputs of a layer times the inputs each of them sums."""
    total = 16 * size * size * 9 * in_channels
    before = 16
    for block, width in enumerate(widths):
        size = size if block == 0 else -(-size // 2)
        for unit in range(3):
            total += width * size * size * 9 * before + width * size * size * 9 * width
            if unit == 0 and (before != width or block > 0):
                total += width * size * size * before
            before = width
    return total + before * classes


@pytest.mark.parametrize("size", [8, 7, 32])
@pytest.mark.parametrize("widths", [(16, 32, 64), (3, 6, 12)])
def test_macs_are_those_counted_by_hand(widths: tuple[int, ...], size: int) -> None:
    with torch.device("meta"):
        model = Classifier(Ensemble({"S1": described(*widths, in_channels=3)}))

    assert count_macs(model, (3, size, size)) == macs_by_hand(widths, 3, size, 4)


def test_counting_leaves_the_mode_and_the_statistics_alone() -> None:
    model = Classifier(tiny_ensemble())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    for mode in (True, False):
        count_macs(model.train(mode), (1, 8, 8))
        assert model.training is mode
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_running_statistics_are_no_parameters() -> None:
    assert count_parameters(nn.BatchNorm2d(7)) == 14
    assert count_parameters(nn.Linear(3, 2)) == 8


def test_costs_of_students_and_teacher() -> None:
    ensemble = tiny_ensemble()
    descriptions = ensemble.descriptions

    costs = student_costs(descriptions, descriptions["S1"], (1, 8, 8))

    assert list(costs) == ["S1", "S2", "S3", "teacher"]
    stem = count_parameters(ensemble.stem)
    for name in descriptions:
        alone = stem + count_parameters(ensemble.students[name])
        assert costs[name].parameters == alone
        assert costs[name].relative_size_percent == pytest.approx(100 * alone / costs["S1"].parameters)
        assert costs[name].macs == macs_by_hand(descriptions[name].widths, 1, 8, 4)
    assert costs["S1"].relative_size_percent == 100
    assert costs["teacher"].parameters == count_parameters(ensemble)
    stem_macs = 16 * 8 * 8 * 9
    assert costs["teacher"].macs == sum(costs[name].macs for name in descriptions) - 2 * stem_macs


def test_a_student_alone_is_measured_against_s1_and_has_no_teacher() -> None:
    costs = student_costs({"S3": described(2, 3, 3)}, described(6, 8, 10), (1, 8, 8))

    assert list(costs) == ["S3"]
    assert 0 < costs["S3"].relative_size_percent < 100


def test_latency_is_positive_and_its_median_is_not_above_its_90th_percentile() -> None:
    images, _ = tiny_batch(1)

    median, slow = measure_latency(Classifier(tiny_ensemble()), images, rounds=5)

    assert 0 < median <= slow


def test_latency_stops_when_its_time_is_over() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return images

    model = Counting()
    measure_latency(model, torch.zeros(1), rounds=1000, seconds=0.0)

    assert model.calls == 6  # Three to warm up, three measured.


def test_what_is_saved_for_the_backward_pass_is_counted_by_hand() -> None:
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    images = torch.zeros(2, 5)

    # The first layer keeps its input, the ReLU its output, which is also the second layer's input.
    assert saved_bytes(lambda: network(images), network.parameters()) == 4 * 2 * (5 + 7)


def test_activations_of_an_image_are_counted_without_memory_as_with_it() -> None:
    ensemble = tiny_ensemble()
    images, _ = tiny_batch(2)

    expected = saved_bytes(lambda: ensemble(images), ensemble.parameters())

    assert activation_bytes(ensemble.descriptions, (1, 8, 8)) == expected // 2
    alone = activation_bytes({"S3": ensemble.descriptions["S3"]}, (1, 8, 8))
    assert 0 < alone < expected // 4
