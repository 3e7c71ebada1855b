"""Our schedules against tables made by hand, torch's against torch's own loop."""

import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from codistill.config import Config, DataConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from codistill.errors import InputError
from codistill.training.optimizer import make_optimizer
from codistill.training.schedule import TorchSchedule, make_schedule, rate_factor

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


EPOCHS, STEPS = 12, 5
ACCURACIES = (0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.6, 0.6, 0.6, 0.8, 0.8, 0.8)
SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 3}),
    ("MultiStepLR", {"milestones": [2, 5], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("ConstantLR", {"factor": 0.5, "total_iters": 4}),
    ("LinearLR", {"start_factor": 0.25}),
    ("PolynomialLR", {"total_iters": 9, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 12}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2}),
    ("ReduceLROnPlateau", {"mode": "max", "patience": 1, "factor": 0.5}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 7, "mode": "triangular2"}),
    ("OneCycleLR", {"max_lr": 0.3}),
]


def config_of(
    name: str, arguments: dict[str, Any] | None = None, optimizer: OptimizerConfig | None = None
) -> Config:
    return Config(
        data=DataConfig(validation_fraction=0.1),
        optimizer=optimizer or OptimizerConfig(lr=0.1, momentum=0.7),
        schedule=ScheduleConfig(name=name, arguments=arguments),
        training=TrainingConfig(epochs=EPOCHS),
    )


def walk(
    set_rate: Callable[[], None],
    optimizer: Optimizer,
    end_step: Callable[[], None],
    end_epoch: Callable[[float], None],
    *,
    first: int = 0,
    last: int = EPOCHS * STEPS,
) -> list[tuple[float, ...]]:
    """Return what every step is taken with: each group's rate and momentum."""
    seen = []
    for step in range(first, last):
        set_rate()
        seen.append(tuple(group[name] for group in optimizer.param_groups for name in ("lr", "momentum")))
        optimizer.step()
        end_step()
        if (step + 1) % STEPS == 0:
            end_epoch(ACCURACIES[step // STEPS])
    return seen


def ours(schedule: TorchSchedule, optimizer: Optimizer, **span: int) -> list[tuple[float, ...]]:
    return walk(
        lambda: schedule.set_rate(optimizer), optimizer, schedule.end_step, schedule.end_epoch, **span
    )


def fresh_optimizer(config: Config) -> Optimizer:
    network, adapters = ([nn.Parameter(torch.zeros(2))] for _ in range(2))
    return make_optimizer(config.optimizer, network, adapters, 0.5)


def torchs(name: str, arguments: dict[str, Any]) -> list[tuple[float, ...]]:
    """Return what torch's own scheduler does to one group."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.7, nesterov=True)
    if name == "OneCycleLR":
        arguments = {**arguments, "total_steps": EPOCHS * STEPS}
    scheduler = getattr(lr_scheduler, name)(optimizer, **arguments)
    per_step = name in ("CyclicLR", "OneCycleLR")

    def end_epoch(accuracy: float) -> None:
        if name == "ReduceLROnPlateau":
            scheduler.step(accuracy)
        elif not per_step:
            scheduler.step()

    def end_step() -> None:
        if per_step:
            scheduler.step()

    with warnings.catch_warnings():  # OneCycleLR steps once more than it has rates for us to see.
        warnings.simplefilter("ignore")
        return walk(lambda: None, optimizer, end_step, end_epoch, last=EPOCHS * STEPS)


@pytest.mark.parametrize(("name", "arguments"), SCHEDULERS)
def test_every_schedule_of_torch_gives_the_rates_of_torch(name: str, arguments: dict[str, Any]) -> None:
    config = config_of(name, arguments)
    schedule = make_schedule(config, STEPS)
    assert schedule is not None

    seen = ours(schedule, fresh_optimizer(config))

    expected = torchs(name, arguments)
    assert [row[:2] for row in seen] == expected
    assert len({row[0] for row in expected}) > 1
    assert [row[2] for row in seen] == [0.5 * rate for rate, _ in expected]  # The adapters' share.
    assert [row[3] for row in seen] == [momentum for _, momentum in expected]


@pytest.mark.parametrize(("name", "arguments"), SCHEDULERS)
@pytest.mark.parametrize("stop", [13, 30])
def test_a_schedule_of_torch_goes_on_from_its_state(name: str, arguments: dict[str, Any], stop: int) -> None:
    config = config_of(name, arguments)
    whole = ours(TorchSchedule(config, STEPS), fresh_optimizer(config))

    before = TorchSchedule(config, STEPS)
    first = ours(before, fresh_optimizer(config), last=stop)
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after = TorchSchedule(config, STEPS)
    after.load_state_dict(torch.load(file, weights_only=True))
    second = ours(after, fresh_optimizer(config), first=stop)

    assert first + second == whole


def test_plateau_leaves_the_rate_to_the_accuracy() -> None:
    config = Config(
        optimizer=OptimizerConfig(lr=0.1), schedule=ScheduleConfig(name="plateau", factor=0.1, patience=1)
    )
    schedule, optimizer = make_schedule(config, STEPS), fresh_optimizer(config)
    assert schedule is not None

    rates = []
    for value in (0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.6, 0.6, 0.6):
        schedule.end_epoch(value)
        schedule.set_rate(optimizer)
        rates.append([group["lr"] for group in optimizer.param_groups])

    # One epoch without a better value is borne; the second brings a fall.
    expected = [0.1] * 3 + [0.01] * 3 + [0.001] + [0.001] + [0.0001]
    assert [rate for rate, _ in rates] == pytest.approx(expected)
    assert [rate for _, rate in rates] == pytest.approx([0.5 * rate for rate in expected])


def test_our_other_schedules_have_no_object_of_torch() -> None:
    assert make_schedule(Config(schedule=PAPER), STEPS) is None


def test_betas_are_cycled_where_there_is_no_momentum() -> None:
    adam = OptimizerConfig(name="Adam", lr=0.1)
    config = config_of("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2}, adam)
    schedule, optimizer = TorchSchedule(config, STEPS), fresh_optimizer(config)
    schedule.end_step()
    schedule.set_rate(optimizer)
    assert [group["betas"] for group in optimizer.param_groups] == [pytest.approx((0.85, 0.999))] * 2


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("StepLr", None, "schedule.name: torch.optim.lr_scheduler has no 'StepLr'; did you mean StepLR?"),
        ("StepLR", None, "schedule.arguments.step_size is needed for StepLR: a whole number"),
        (
            "StepLR",
            {"step_size": 2.5},
            "arguments.step_size must be a whole number for StepLR, not 2.5",
        ),
        ("StepLR", {"step_size": 2, "verbose": True}, "schedule.arguments.verbose is no argument of StepLR"),
        ("StepLR", {"step_size": 2, "last_epoch": 3}, "schedule.arguments.last_epoch must be -1, not 3"),
        ("StepLR", {"step_size": 2, "optimizer": 3}, "schedule.arguments.optimizer is no argument of StepLR"),
        (
            "MultiStepLR",
            {"milestones": 3},
            "arguments.milestones must be a list, each a whole number",
        ),
        ("LambdaLR", None, "schedule.name: LambdaLR needs a function, which no config can hold; use StepLR"),
        ("SequentialLR", None, "schedule.name: SequentialLR needs other schedulers"),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1, "scale_fn": "f"}, "schedule.arguments.scale_fn must be"),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1, "mode": "up"}, "schedule.arguments.mode must be one of"),
        ("ReduceLROnPlateau", {"patience": 1}, "schedule.arguments.mode must be max: the schedule follows"),
        ("ReduceLROnPlateau", {"mode": "max", "milestones": [1]}, "milestones is no argument of ReduceLROnP"),
        ("ReduceLROnPlateau", {"mode": "max", "factor": 2}, "torch's ReduceLROnPlateau refuses them: Factor"),
        (
            "OneCycleLR",
            {"max_lr": 1, "total_steps": 59},
            "arguments.total_steps must be at least 60",
        ),
    ],
)
def test_what_torch_does_not_take_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make_schedule(config_of(name, arguments), STEPS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
