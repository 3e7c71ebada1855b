"""Gradient checkpointing gives the same numbers from less memory."""

import copy
from typing import Literal

import pytest
import torch

from codistill.config import ModelConfig, ObjectiveConfig
from codistill.models.catalog import feature_channels
from codistill.models.cost import saved_bytes
from codistill.models.ensemble import Ensemble
from codistill.models.ladder import describe_students
from codistill.models.recompute import recompute_units
from codistill.objectives.paper import PaperObjective
from codistill.training.step import make_engine


def trained(ensemble: Ensemble, engine: Literal["eager", "parallel"]) -> dict[str, torch.Tensor]:
    """Return everything that a step has changed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    channels = {name: feature_channels(each) for name, each in ensemble.descriptions.items()}
    objective = PaperObjective(ObjectiveConfig(), channels)
    names = list(channels)
    step = make_engine(engine, ensemble, threads=2)
    terms = step.gradients(
        images, torch.tensor([0, 1, 2, 3]), objective=objective, names=names, senders=names, draw_seed=3
    )
    step.close()
    found = {f"gradient of {name}": parameter.grad for name, parameter in ensemble.named_parameters()}
    return found | dict(ensemble.state_dict()) | terms  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "engine", "units"),
    [
        ("cifar_resnet20", "parallel", 2 * 9),
        pytest.param("densenet_bc_k12", "eager", 2 * 48, marks=pytest.mark.slow),
        pytest.param("resnet18", "eager", 2 * 6, marks=pytest.mark.slow),
        pytest.param("densenet121", "eager", 2 * 52, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", "eager", 2 * 16, marks=pytest.mark.slow),
        pytest.param("timm:convnext_atto", "eager", 2 * 12, marks=pytest.mark.slow),
    ],
)
def test_the_same_numbers_from_less_memory(
    name: str, engine: Literal["eager", "parallel"], units: int
) -> None:
    config = ModelConfig(name=name, num_students=2, stem="small" if ":" not in name else "own")
    ensemble = Ensemble(describe_students(config, in_channels=3, num_classes=4, image_size=(32, 32)))
    recomputing = copy.deepcopy(ensemble)
    assert recompute_units(recomputing.students) == units
    recomputing = copy.deepcopy(recomputing)

    images = torch.randn(2, 3, 32, 32)
    with torch.random.fork_rng():
        kept, less = (
            saved_bytes(lambda each=each: copy.deepcopy(each)(images), ())  # type: ignore[misc]
            for each in (ensemble, recomputing)
        )
    assert less < 0.7 * kept
    before, after = trained(ensemble, engine), trained(recomputing, engine)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert (value is None and after[key] is None) or value.equal(after[key]), key


def test_nothing_is_kept_without_gradients() -> None:
    ensemble = Ensemble(describe_students(ModelConfig(num_students=2), in_channels=3, num_classes=4))
    recomputing = copy.deepcopy(ensemble)
    recompute_units(recomputing.students)
    images = torch.randn(2, 3, 32, 32)

    for training in (True, False):
        with torch.no_grad():
            expected = ensemble.train(training)(images)["S2"].logits
            assert recomputing.train(training)(images)["S2"].logits.equal(expected)
    for name, tensor in ensemble.state_dict().items():
        assert tensor.equal(recomputing.state_dict()[name])
