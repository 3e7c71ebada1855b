"""The forecast of memory and time: of the right size, and without a trace in what is trained."""

from typing import Literal

import pytest
import torch
from torch import nn

from codistill.config import ObjectiveConfig
from codistill.data.loaders import Batch
from codistill.models.cost import count_parameters
from codistill.models.ensemble import Ensemble
from codistill.objectives.paper import PaperObjective
from codistill.training.forecast import forecast_memory, forecast_step_seconds
from tiny import WIDTHS, tiny_batch, tiny_ensemble


def setting(count: int = 4) -> tuple[Ensemble, PaperObjective, Batch]:
    return tiny_ensemble(), PaperObjective(ObjectiveConfig(), WIDTHS), Batch(*tiny_batch(count))


def state_of(*modules: nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{index} {name}": tensor.clone()
        for index, module in enumerate(modules)
        for name, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize("engine", ["eager", "parallel"])
def test_nothing_that_is_trained_changes(engine: Literal["eager", "parallel"]) -> None:
    ensemble, objective, batch = setting()
    before, generator = state_of(ensemble, objective), torch.get_rng_state()
    threads = torch.get_num_threads()

    seconds = forecast_step_seconds(engine, ensemble, objective, batch, threads=2)
    forecast_memory(ensemble, objective, batch, moments=1)

    assert seconds > 0
    after = state_of(ensemble, objective)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in [*ensemble.parameters(), *objective.parameters()])
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads


def test_memory_counts_weights_gradients_and_moments() -> None:
    ensemble, objective, batch = setting()
    weights = 4 * (count_parameters(ensemble) + count_parameters(objective))

    by_moments = [forecast_memory(ensemble, objective, batch, moments=moments) for moments in (0, 1, 2)]

    assert by_moments[1] - by_moments[0] == by_moments[2] - by_moments[1] == weights
    assert by_moments[0] > 2 * weights


def test_memory_of_activations_grows_with_the_batch_and_covers_what_is_kept() -> None:
    ensemble, objective, _ = setting()
    fixed = 8 * (count_parameters(ensemble) + count_parameters(objective))

    few, many = (
        forecast_memory(ensemble, objective, Batch(*tiny_batch(count)), moments=0) - fixed
        for count in (8, 16)
    )

    # Every convolution keeps its input, every norm its own: of S1's first block alone 12 maps of 6 × 8 × 8.
    assert few > 8 * 12 * 6 * 8 * 8 * 4
    assert many == pytest.approx(2 * few, rel=0.05)
