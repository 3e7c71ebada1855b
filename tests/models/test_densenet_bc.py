"""DenseNet-BC against a count by hand, its published size, and torchvision's layers."""

import pytest
import torch
from torchvision.models.densenet import _DenseBlock

from codistill.config import ModelConfig
from codistill.models.cost import count_macs, count_parameters
from codistill.models.densenet_bc import DenseLayer
from codistill.models.ensemble import Classifier, Ensemble
from codistill.models.ladder import describe_students


def counted_by_hand(
    growth: int, layers: int, growths: tuple[int, ...], classes: int, size: int
) -> tuple[int, int]:
    """Return parameters and multiply-accumulates from the architecture's text (Huang et al. 2017)."""
    channels = 2 * growth
    parameters, macs = 27 * channels, 27 * channels * size * size
    for block, k in enumerate(growths):
        for _ in range(layers):
            weights = channels * 4 * k + 9 * 4 * k * k
            parameters += weights + 2 * channels + 2 * 4 * k
            macs += weights * size * size
            channels += k
        if block < 2:
            weights = channels * (channels // 2)
            parameters += weights + 2 * channels
            macs += weights * size * size
            channels, size = channels // 2, size // 2
    return parameters + 2 * channels + channels * classes + classes, macs + channels * classes


@pytest.mark.parametrize(
    ("name", "growth", "layers", "students"),
    [("densenet_bc_k12", 12, 16, 5), ("densenet_bc_k12", 12, 16, 3), ("densenet_bc_k24", 24, 41, 1)],
)
def test_parameters_and_macs_are_those_counted_by_hand(
    name: str, growth: int, layers: int, students: int
) -> None:
    config = ModelConfig(name=name, num_students=students)  # type: ignore[arg-type]
    descriptions = describe_students(config, in_channels=3, num_classes=10)

    for student, description in descriptions.items():
        with torch.device("meta"):
            model = Classifier(Ensemble({student: description}))
        expected = counted_by_hand(growth, layers, description.widths, 10, 32)
        assert (count_parameters(model), count_macs(model, (3, 32, 32))) == expected


def test_growth_rates_are_the_papers() -> None:
    descriptions = describe_students(ModelConfig(name="densenet_bc_k12"), in_channels=3, num_classes=10)

    assert [set(student.widths) for student in descriptions.values()] == [{12}, {9}, {7}, {4}, {2}]


@pytest.mark.parametrize(
    ("name", "millions"), [("densenet_bc_k12", 0.8), ("densenet_bc_k24", 15.3), ("densenet_bc_k40", 25.6)]
)
def test_s1_has_its_published_size(name: str, millions: float) -> None:
    """Huang et al. 2017, table 2."""
    config = ModelConfig(name=name, num_students=1)  # type: ignore[arg-type]
    student = describe_students(config, in_channels=3, num_classes=10)["S1"]

    with torch.device("meta"):
        parameters = count_parameters(Ensemble({"S1": student}))

    assert parameters / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_layer_is_torchvisions() -> None:
    torch.manual_seed(0)
    ours = DenseLayer(6, 4).train()
    theirs = _DenseBlock(1, 6, bn_size=4, growth_rate=4, drop_rate=0.0).train()
    weights = {f"denselayer1.{name}": tensor for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(weights)
    images = torch.randn(3, 6, 5, 5)

    torch.testing.assert_close(ours(images), theirs(images))
