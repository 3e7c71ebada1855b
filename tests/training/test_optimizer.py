"""Update rules against torch's own, and schedules against tables made by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from codistill.config import OptimizerConfig, ScheduleConfig
from codistill.training.optimizer import make_optimizer, make_plateau, rate_factor, set_learning_rate


def parameters(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in values]


def descend(optimizer: torch.optim.Optimizer, values: list[nn.Parameter], steps: int = 5) -> list[float]:
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack([(value - 2) ** 2 * (1 + index) for index, value in enumerate(values)]).sum().backward()
        optimizer.step()
    return [value.item() for value in values]


KINDS: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
    (
        {"name": "sgd", "lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    ),
    (
        {"name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
        torch.optim.SGD,
        {"lr": 0.1},
    ),
    (
        {"name": "adam", "lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05},
        torch.optim.Adam,
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05},
    ),
    (
        {"name": "adamw", "lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05},
        torch.optim.AdamW,
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05},
    ),
    (
        {"name": "rmsprop", "lr": 0.02, "alpha": 0.7, "momentum": 0.6, "eps": 1e-2, "weight_decay": 0.05},
        torch.optim.RMSprop,
        {"lr": 0.02, "alpha": 0.7, "momentum": 0.6, "eps": 1e-2, "weight_decay": 0.05},
    ),
]


@pytest.mark.parametrize(("config", "torchs", "options"), KINDS)
def test_every_rule_is_torchs_own(config: dict[str, Any], torchs: Any, options: dict[str, Any]) -> None:
    ours, theirs = parameters(0.0, 1.0), parameters(0.0, 1.0)

    optimizer = make_optimizer(OptimizerConfig(**config), ours, [], 0.5)

    assert type(optimizer) is torchs
    assert len(optimizer.param_groups) == 1
    assert descend(optimizer, ours) == descend(torchs(theirs, **options), theirs)


def test_adapters_learn_at_a_rate_of_their_own() -> None:
    network, adapters = parameters(0.0), parameters(0.0)
    config = OptimizerConfig(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)
    optimizer = make_optimizer(config, network, adapters, 0.25)

    set_learning_rate(optimizer, 0.04)
    for value in (*network, *adapters):
        value.grad = torch.ones_like(value)
    optimizer.step()

    assert [group["lr"] for group in optimizer.param_groups] == [0.04, 0.01]
    assert (network[0].item(), adapters[0].item()) == (-0.04, -0.01)


PAPER = ScheduleConfig(name="multistep", milestones=(0.5, 0.75), factor=0.1)


def factors(config: ScheduleConfig, epochs: int, steps: int = 4) -> list[list[float | None]]:
    return [
        [rate_factor(config, epochs=epochs, epoch=epoch, step=step, steps=steps) for step in range(steps)]
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize(
    ("epochs", "first_drop", "second_drop"),
    [(350, 175, 263), (450, 225, 338), (50, 25, 38), (100, 50, 75), (4, 2, 3), (1, 1, 1), (3, 2, 3)],
)
def test_the_papers_rate_falls_at_a_half_and_three_quarters(
    epochs: int, first_drop: int, second_drop: int
) -> None:
    """75 % of 350 epochs are 262.5: epochs 0 … 262 begin before that."""
    expected = [1.0] * first_drop + [0.1] * (second_drop - first_drop) + [0.01] * (epochs - second_drop)

    for row, factor in zip(factors(PAPER, epochs), expected, strict=True):
        assert row == pytest.approx([factor] * 4, rel=1e-12)


@pytest.mark.parametrize("epochs", [100, 200, 300, 1000])
def test_a_share_that_is_a_whole_epoch_falls_there_whatever_its_rounding(epochs: int) -> None:
    """0.55 of 100 is 55.00000000000001 in floating point."""
    for percent in range(1, 100):
        config = replace(PAPER, milestones=(percent / 100,))
        drop = percent * epochs // 100
        at = [rate_factor(config, epochs=epochs, epoch=epoch, step=0, steps=4) for epoch in (drop - 1, drop)]
        assert at == [1.0, 0.1], percent


def test_without_milestones_the_rate_stays() -> None:
    assert factors(replace(PAPER, milestones=()), 3) == [[1.0] * 4] * 3


def test_exponential_falls_every_third_epoch() -> None:
    rows = factors(ScheduleConfig(name="exponential", decay=0.97, decay_epochs=3), 8)

    assert [row[0] for row in rows] == pytest.approx([1, 1, 1, 0.97, 0.97, 0.97, 0.9409, 0.9409])
    assert all(len(set(row)) == 1 for row in rows)


def test_constant_stays() -> None:
    assert factors(ScheduleConfig(name="constant"), 2) == [[1.0] * 4] * 2


def test_cosine_falls_with_every_step_from_one_to_almost_zero() -> None:
    flat = [factor for row in factors(ScheduleConfig(name="cosine"), 3) for factor in row]

    # Half way, after 6 of 12 steps, it is a half; a third of the way three quarters.
    assert flat[0] == 1.0
    assert flat[4] == pytest.approx(0.75)
    assert flat[6] == pytest.approx(0.5)
    assert flat[11] == pytest.approx(0.5 * (1 - 0.9659258262890683))
    assert flat == sorted(flat, reverse=True)


def test_cosine_after_a_warm_up_spans_the_rest() -> None:
    flat = [factor for row in factors(ScheduleConfig(name="cosine", warmup_epochs=1.0), 3) for factor in row]

    assert flat[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert flat[8] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["constant", "multistep", "exponential", "cosine", "plateau"])
def test_every_schedule_warms_up_by_equal_steps(name: Any) -> None:
    rows = factors(ScheduleConfig(name=name, warmup_epochs=1.5), 4)

    assert rows[0] + rows[1][:2] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    assert rows[1][2] == (None if name == "plateau" else 1.0)


def test_a_warm_up_that_ends_within_a_step_does_not_overshoot() -> None:
    rows = factors(ScheduleConfig(name="constant", warmup_epochs=0.6), 1)

    assert rows == [pytest.approx([1 / 2.4, 2 / 2.4, 1.0, 1.0])]


def test_plateau_leaves_the_rate_to_the_accuracy() -> None:
    network, adapters = parameters(0.0), parameters(0.0)
    optimizer = make_optimizer(OptimizerConfig(lr=0.1), network, adapters, 0.5)
    set_learning_rate(optimizer, 0.1)
    config = ScheduleConfig(name="plateau", factor=0.1, patience=1)
    plateau = make_plateau(config, optimizer)
    assert plateau is not None

    rates = []
    for value in (0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.6, 0.6, 0.6):
        plateau.step(value)
        rates.append([group["lr"] for group in optimizer.param_groups])

    # One epoch without a better value is borne; the second brings a fall.
    expected = [0.1] * 3 + [0.01] * 3 + [0.001] + [0.001] + [0.0001]
    assert [rate for rate, _ in rates] == pytest.approx(expected)
    assert [rate for _, rate in rates] == pytest.approx([0.5 * rate for rate in expected])


def test_other_schedules_have_no_plateau() -> None:
    assert make_plateau(PAPER, make_optimizer(OptimizerConfig(), parameters(0.0), [], 1.0)) is None
