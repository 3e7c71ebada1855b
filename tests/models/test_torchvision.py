"""S1 of a family that torchvision has is torchvision's own network: by parameters, and weight for weight."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from codistill.config import ModelConfig
from codistill.models.catalog import ARCHITECTURES, StudentDescription
from codistill.models.cost import count_parameters
from codistill.models.ensemble import Classifier, Ensemble
from codistill.models.ladder import describe_students

OURS = [name for name in ARCHITECTURES if not name.startswith(("cifar_", "densenet_bc_"))]


def full_width(name: str, num_classes: int = 1000) -> StudentDescription:
    config = ModelConfig(name=name, stem="imagenet", num_students=1)  # type: ignore[arg-type]
    return describe_students(config, in_channels=3, num_classes=num_classes)["S1"]


@pytest.mark.parametrize("name", OURS)
def test_s1_has_torchvisions_parameters(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = Ensemble({"S1": full_width(name)}), models.get_model(name)

    assert count_parameters(ours) == count_parameters(theirs)


def distinct(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give every tensor, running statistics too, values of its own, so that none can stand for another."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            shifted = name.endswith(("mean", "bias"))
            yield name, tensor + 0.1 * noise if shifted else tensor * (0.8 + 0.4 * noise)
        else:
            yield name, tensor


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "densenet121", "efficientnet_b0"])
def test_torchvisions_weights_fit_by_name_and_give_its_logits(name: str) -> None:
    torch.manual_seed(0)
    theirs = models.get_model(name, num_classes=5).eval()
    weights = dict(distinct(theirs))
    theirs.load_state_dict(weights)
    ours = Classifier(Ensemble({"S1": full_width(name, num_classes=5)})).eval()
    stem, branch = ours.ensemble.stem, ours.ensemble.students["S1"]

    of_stem = {key: weights[key] for key in stem.state_dict()}
    of_branch = {key: weights[key] for key in branch.state_dict()}
    stem.load_state_dict(of_stem)
    branch.load_state_dict(of_branch)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, logits = theirs(images), ours(images)

    assert set(of_stem) | set(of_branch) == set(weights)
    assert not set(of_stem) & set(of_branch)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_stochastic_depth_and_dropout_are_torchvisions() -> None:
    theirs = models.get_model("efficientnet_b2")
    ours = Ensemble({"S1": full_width("efficientnet_b2")}).students["S1"]

    def rates(network: nn.Module) -> list[float]:
        return [module.p for module in network.modules() if hasattr(module, "p")]

    assert rates(ours) == pytest.approx(rates(theirs))
    assert len(rates(ours)) > 10
