"""Update rules against torch's own."""

from typing import Any

import pytest
import torch
from torch import nn

from codistill.config import OptimizerConfig
from codistill.errors import InputError
from codistill.training.optimizer import (
    count_moments,
    make_optimizer,
    refuse_unusable_optimizer,
    set_learning_rate,
)


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


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("NAdam", {"betas": [0.8, 0.99]}),
        ("Adagrad", None),
        ("Adafactor", {}),
        ("Rprop", {"etas": [0.4, 1.3]}),
    ],
)
def test_any_optimiser_of_torch_is_called_as_it_is(name: str, arguments: dict[str, Any] | None) -> None:
    ours, theirs = parameters(0.0, 1.0), parameters(0.0, 1.0)
    config = OptimizerConfig(name=name, lr=0.1, arguments=arguments)

    refuse_unusable_optimizer(config)
    optimizer = make_optimizer(config, ours, [], 0.5)

    cls = getattr(torch.optim, name)
    assert type(optimizer) is cls
    assert descend(optimizer, ours) == descend(cls(theirs, lr=0.1, **(arguments or {})), theirs)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Sgd", None, "optimizer.name: torch.optim has no 'Sgd'; did you mean SGD?"),
        ("Optimizer", None, "optimizer.name: torch.optim has no 'Optimizer'"),
        ("LBFGS", None, "LBFGS"),
        ("SparseAdam", None, "optimizer.name: torch's SparseAdam cannot train such networks"),
        ("Muon", None, "Muon refuses them or such networks"),
        ("SGD", {"lr": 0.1}, "optimizer.arguments.lr: the rate is optimizer.lr"),
        ("SGD", {"params": 1}, "optimizer.arguments.params is no argument of SGD"),
        (
            "SGD",
            {"momentun": 0.9},
            "optimizer.arguments.momentun is no argument of SGD; did you mean momentum?",
        ),
        ("SGD", {"momentum": "0.9"}, "optimizer.arguments.momentum must be a number for SGD, not '0.9'"),
        ("SGD", {"momentum": True}, "optimizer.arguments.momentum must be a number for SGD, not True"),
        (
            "SGD",
            {"nesterov": 1, "momentum": 0.9},
            "arguments.nesterov must be true or false for SGD",
        ),
        ("SGD", {"nesterov": True}, "torch's SGD refuses them or such networks: Nesterov momentum requires"),
        ("SGD", {"weight_decay": -1}, "torch's SGD refuses them or such networks: Invalid weight_decay"),
        ("Adam", {"betas": [0.9]}, "optimizer.arguments.betas must be a list of 2 values, each a number"),
        ("Adam", {"betas": 0.9}, "optimizer.arguments.betas must be a list of 2 values, each a number"),
    ],
)
def test_what_torch_does_not_take_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_unusable_optimizer(OptimizerConfig(name=name, arguments=arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_moments_are_counted() -> None:
    names = {"sgd": 1, "adam": 2, "rmsprop": 2, "SGD": 0, "AdamW": 3, "Adagrad": 1}
    arguments: dict[str, Any] = {"AdamW": {"amsgrad": True}}
    for name, count in names.items():
        assert count_moments(OptimizerConfig(name=name, arguments=arguments.get(name))) - count in (0, 1), (
            name
        )
