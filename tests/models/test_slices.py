"""Slices of S1's weights: what narrowing keeps is the network that is left when the rest is zero."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from codistill.config import ModelConfig
from codistill.models.catalog import StudentDescription, build_branch, build_stem
from codistill.models.ladder import describe_students
from codistill.models.slices import firsts


def students(name: str, **model: object) -> dict[str, StudentDescription]:
    config = ModelConfig(name=name, num_students=3, **model)  # type: ignore[arg-type]
    config = replace(config, stem="small" if config.is_in_catalog else "own")
    return describe_students(config, in_channels=3, num_classes=4, image_size=(32, 32))


def numbered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return every tensor with its numbers counted from 1 in place of their values."""
    assert max(tensor.numel() for tensor in state.values()) < 2**24  # Whole numbers are exact so far.
    return {
        name: 1 + torch.arange(tensor.numel(), dtype=torch.float32).view(tensor.shape)
        for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("cifar_resnet20", {}),
        pytest.param("cifar_resnet20", {"narrow_blocks": 2}, marks=pytest.mark.slow),
        pytest.param("densenet_bc_k12", {}, marks=pytest.mark.slow),
        ("densenet_bc_k12", {"narrow_blocks": 1}),
        pytest.param("resnet18", {}, marks=pytest.mark.slow),
        ("resnext50_32x4d", {}),
        ("densenet121", {}),
        pytest.param("efficientnet_b0", {}, marks=pytest.mark.slow),
        pytest.param("timm:regnety_002", {}, marks=pytest.mark.slow),
        pytest.param("torchvision:mobilenet_v3_small", {}, marks=pytest.mark.slow),
    ],
)
def test_a_student_is_s1_with_all_other_weights_zero(name: str, model: dict[str, object]) -> None:
    described = students(name, **model)
    torch.manual_seed(0)
    stem, wide, narrow = (
        module.eval()
        for module in (
            build_stem(described["S1"]),
            build_branch(described["S1"]),
            build_branch(described["S2"]),
        )
    )
    for module in wide.modules():  # No two channels are alike.
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    student, widths = described["S2"].network, described["S2"].widths
    state = wide.state_dict()
    where = student.branch_state(widths, numbered(state), narrow.state_dict())

    narrow.load_state_dict(student.branch_state(widths, state, narrow.state_dict()))
    for name, tensor in state.items():
        if name in where:
            kept = torch.zeros(tensor.numel() + 1, dtype=torch.bool)
            kept[where[name].flatten().long()] = True
            tensor.view(-1)[~kept[1:]] = 0

    with torch.inference_mode():
        stem_output = stem(torch.randn(2, 3, 32, 32))
        stem_output = stem_output.relu()  # Statistics of the stem do not matter here.
        expected, found = narrow(stem_output)[0], wide(stem_output)[0]
    assert not torch.equal(expected[0], expected[1])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_firsts_of_parts() -> None:
    assert firsts([4, 2, 3], [2, 1, 3]) == [0, 1, 4, 6, 7, 8]
