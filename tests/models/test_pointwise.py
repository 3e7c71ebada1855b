"""1×1 convolutions with a stride: the same by definition, and without oneDNN's fault."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from codistill.models.catalog import build_branch
from codistill.models.pointwise import PointwiseConv2d, thin_out_first
from tiny import described


@pytest.mark.parametrize(("stride", "size"), [(2, (8, 7)), ((3, 1), (9, 5)), (2, (1, 1))])
@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_the_convolution(stride: int | tuple[int, int], size: tuple[int, int], groups: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 1, stride=stride, groups=groups).double()
    images = torch.randn(3, 4, *size, dtype=torch.float64)
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    output = plain(inputs[0])
    output.square().sum().backward()
    gradients = [plain.weight.grad, plain.bias.grad]  # type: ignore[union-attr]
    plain.zero_grad()

    thin_out_first(plain)
    assert type(plain) is PointwiseConv2d
    thinned = plain(inputs[1])
    thinned.square().sum().backward()

    assert torch.allclose(thinned, output, rtol=1e-12)
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    assert torch.allclose(inputs[1].grad, inputs[0].grad, rtol=1e-12)
    for ours, theirs in zip([plain.weight.grad, plain.bias.grad], gradients, strict=True):  # type: ignore[union-attr]
        assert ours is not None
        assert theirs is not None
        assert torch.allclose(ours, theirs, rtol=1e-12)


def test_others_stay_as_they_are() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(3, 4, 1, stride=2, padding=1)
    )
    thin_out_first(layers)
    assert [type(layer) for layer in layers] == [nn.Conv2d] * 3


def test_a_students_shortcuts_are_thinned_out() -> None:
    branch = build_branch(described(4, 5, 6))
    strided = [part for part in branch.modules() if isinstance(part, nn.Conv2d) and part.stride == (2, 2)]
    shortcuts = [part for part in strided if part.kernel_size == (1, 1)]
    assert len(shortcuts) == 2
    assert all(type(part) is PointwiseConv2d for part in shortcuts)


STEPS = """
import torch
from codistill.models.catalog import StudentDescription, build_branch
torch.set_num_threads(2)
facts = {"architecture": "cifar_resnet20", "in_channels": 3, "num_classes": 4}
branch = build_branch(StudentDescription(**facts, widths=(8, 16, 32))).to(memory_format=torch.channels_last)
for step in range(12):
    images = torch.randn(3, 16, 32, 32).to(memory_format=torch.channels_last)
    logits, maps = branch(images)
    logits.square().sum().backward()
    kept = [torch.randn(17) for _ in range(50)]
"""


@pytest.mark.slow
def test_a_narrow_student_does_not_damage_the_heap() -> None:
    """With torch's own convolution this ends in a segmentation fault where oneDNN has the fault."""
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", STEPS], capture_output=True, timeout=120).returncode == 0
