"""What every network of the catalog promises: sizes, shapes, seeds, two steps, students that stand alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from codistill.config import ModelConfig, ObjectiveConfig
from codistill.data.preprocessing import Preprocessing
from codistill.errors import InputError
from codistill.models.architecture import Stem
from codistill.models.catalog import (
    ARCHITECTURES,
    StudentDescription,
    architecture_of,
    build_branch,
    build_stem,
    feature_channels,
)
from codistill.models.cost import count_parameters
from codistill.models.ensemble import Ensemble
from codistill.models.ladder import describe_students
from codistill.models.student_file import DeliveredModel, load_model, save_model
from codistill.objectives.paper import PaperObjective
from codistill.training.step import EagerEngine

# Walawalkar et al. 2020, table 1: parameters as a share of S1's, in percent, with heads of 10 classes. The
# CIFAR ResNets are in test_catalog.py.
TABLE_1: dict[str, list[float]] = {
    "densenet_bc_k12": [100.0, 58.01, 36.34, 13.31, 4.29],
    "resnext50_32x4d": [100.0, 62.10, 35.60, 16.09, 4.76],
    "efficientnet_b0": [100.0, 64.11, 35.94, 18.88, 5.43],
    "efficientnet_b2": [100.0, 65.16, 37.87, 18.13, 4.69],
    "efficientnet_b4": [100.0, 64.43, 36.27, 16.40, 4.91],
}
# Two steps of five students of each of these take a second or two.
QUICK = ("resnet18", "efficientnet_b0")
# One of each kind that takes seconds; the others take up to two minutes.
MODERATE = (
    "cifar_resnet56",
    "densenet_bc_k12",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "efficientnet_b2",
)


def described(
    name: str, *, num_students: int = 5, stem: Stem = "small", num_classes: int = 10, narrow_blocks: int = 3
) -> dict[str, StudentDescription]:
    config = ModelConfig(
        name=name,
        stem=stem,
        num_students=num_students,
        narrow_blocks=narrow_blocks,  # type: ignore[arg-type]
    )
    return describe_students(config, in_channels=3, num_classes=num_classes)


def largest_stem(name: str) -> Stem:
    return architecture_of(name).stems[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_name_of_the_config_is_in_the_catalog(name: str) -> None:
    assert architecture_of(name).widths


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_knows_which_stems_there_are(name: str) -> None:
    config = ModelConfig(name=name, stem="imagenet")

    assert ("imagenet" in architecture_of(name).stems) is config.has_imagenet_stem
    assert [blamed for blamed, _ in config.problems()] == ([] if config.has_imagenet_stem else ["stem"])


@pytest.mark.parametrize("name", TABLE_1)
def test_relative_sizes_are_the_papers_to_a_hundredth(name: str) -> None:
    students = described(name, stem=largest_stem(name))

    with torch.device("meta"):
        counts = [count_parameters(Ensemble({"S1": student})) for student in students.values()]

    sizes = [100 * count / counts[0] for count in counts]
    # The paper prints two decimals: half a hundredth is rounding.
    assert sizes == pytest.approx(TABLE_1[name], abs=0.0051)


@pytest.mark.parametrize("narrow_blocks", [1, 2, 3])
@pytest.mark.parametrize("name", ["densenet_bc_k12", "resnet18", "densenet121", "efficientnet_b0"])
def test_only_the_last_blocks_are_narrowed_and_maps_have_the_channels_promised(
    name: str, narrow_blocks: int
) -> None:
    students = described(name, num_students=3, narrow_blocks=narrow_blocks)
    full = feature_channels(replace(students["S1"], compared_blocks=3))

    with torch.device("meta"), torch.no_grad():
        outputs = Ensemble(students)(torch.zeros(2, 3, 32, 32))

    for student, output in outputs.items():
        assert tuple(map_.shape[1] for map_ in output.features) == feature_channels(students[student])
        assert output.logits.shape == (2, 10)
        assert len(output.features) == narrow_blocks
        channels = feature_channels(replace(students[student], compared_blocks=3))
        assert channels[: 3 - narrow_blocks] == full[: 3 - narrow_blocks]
    assert feature_channels(students["S3"])[-1] < full[-1]


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "densenet121", "efficientnet_b0"])
def test_a_small_stem_leaves_the_image_large(name: str, stem: Stem) -> None:
    student = described(name, num_students=1, stem=stem)["S1"]

    with torch.device("meta"), torch.no_grad():
        stem_output = build_stem(student)(torch.zeros(2, 3, 64, 64))
        features = build_branch(student)(stem_output)[1]

    halvings = {"resnet18": 4, "resnext50_32x4d": 4, "densenet121": 4, "efficientnet_b0": 2}[name]
    last = 2 if stem == "imagenet" else 2 * halvings
    assert features[-1].shape[-1] == last


@pytest.mark.parametrize(
    ("name", "most"),
    [("densenet_bc_k12", 12), ("resnext50_32x4d", 8), ("resnext101_32x8d", 16), ("densenet121", 32)],
)
def test_as_many_students_as_leave_every_layer_a_channel(name: str, most: int) -> None:
    assert len(described(name, num_students=most)) == most
    with pytest.raises(InputError, match=rf"leaves S{most + 1} .* at most {most} students are possible"):
        described(name, num_students=most + 1)


def test_an_open_stem_is_the_callers_mistake_where_there_are_two() -> None:
    with pytest.raises(ValueError, match="stem of resnet18 is still open"):
        describe_students(ModelConfig(name="resnet18"), in_channels=3, num_classes=2)


@pytest.mark.parametrize("name", ["densenet_bc_k12", "resnext50_32x4d", "densenet121", "efficientnet_b2"])
def test_a_description_survives_json_types(name: str) -> None:
    student = described(name, stem=largest_stem(name))["S4"]

    assert StudentDescription.from_dict(student.as_dict()) == student


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("cifar_resnet20", {"stem": "imagenet"}, "stem of cifar_resnet20 must be small, not 'imagenet'"),
        ("resnet18", {"stem": "auto"}, "stem of resnet18 must be imagenet or small, not 'auto'"),
        ("resnet18", {"stem": ["small"]}, "stem of resnet18 must be"),
        ("resnext50_32x4d", {"widths": [128, 256, 15]}, "widths must be 3 whole numbers, each at least 16"),
        ("efficientnet_b0", {"widths": [16, 24, 40]}, "widths must be 8 whole numbers, each at least 1"),
        ("densenet121", {"widths": [32, 32, 10**6]}, "widths must be"),
    ],
)
def test_a_description_of_no_student_is_refused(name: str, change: dict[str, object], words: str) -> None:
    data = described(name)["S1"].as_dict() | change

    with pytest.raises(InputError, match=words):
        StudentDescription.from_dict(data)


def test_a_description_written_before_there_were_stems_is_read() -> None:
    data = described("cifar_resnet20")["S2"].as_dict()
    del data["stem"]

    assert StudentDescription.from_dict(data) == described("cifar_resnet20")["S2"]


@pytest.mark.parametrize("name", ["densenet_bc_k12", "resnet18", "densenet121", "efficientnet_b0"])
def test_a_student_starts_from_the_same_weights_whoever_else_is_there(name: str) -> None:
    students = described(name)

    together = Ensemble({key: students[key] for key in ("S4", "S5")}, seed=3).state_dict()
    alone = Ensemble({"S5": students["S5"]}, seed=3).state_dict()

    assert all(torch.equal(tensor, together[key]) for key, tensor in alone.items())
    other = Ensemble({"S5": students["S5"]}, seed=4).state_dict()
    assert any(not torch.equal(tensor, other[key]) for key, tensor in alone.items())


@pytest.mark.parametrize("name", ["densenet_bc_k12", "resnet18", "densenet121", "efficientnet_b0"])
def test_weights_are_drawn_for_a_students_own_fan(name: str) -> None:
    branch = build_branch(described(name)["S5"])
    fan_in_families = ("densenet_bc_k12", "densenet121")

    for module in branch.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 4000 and module.groups == 1:
            fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(module.weight)
            expected = (2 / (fan_in if name in fan_in_families else fan_out)) ** 0.5
            # 4,000 draws estimate a deviation within 1.2 %: five times that.
            assert module.weight.std().item() == pytest.approx(expected, rel=0.06)


def batch(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, size, size, generator=generator), torch.tensor([0, 1])


def two_steps(students: dict[str, StudentDescription], size: int) -> Ensemble:
    ensemble = Ensemble(students, seed=1)
    channels = {name: feature_channels(student) for name, student in students.items()}
    objective = PaperObjective(ObjectiveConfig(), channels)
    engine = EagerEngine(ensemble)
    optimizer = torch.optim.SGD([*ensemble.parameters(), *objective.parameters()], lr=0.01)
    before = [parameter.detach().clone() for parameter in ensemble.parameters()]
    images, labels = batch(size)
    for step in range(2):
        result = engine.gradients(
            images, labels, objective=objective, names=list(students), senders=list(students), draw_seed=step
        )
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(result["loss"])
    changed = [not torch.equal(old, new) for old, new in zip(before, ensemble.parameters(), strict=True)]
    # A bias in front of a normalisation, and a channel that no image excites, may keep still.
    assert sum(changed) >= 0.9 * len(changed)
    return ensemble


def check_steps_and_delivery(name: str, num_students: int, folder: Path) -> None:
    students = described(name, num_students=num_students, num_classes=2)
    ensemble = two_steps(students, size=32).eval()
    images, _ = batch(32)
    with torch.no_grad():
        outputs = ensemble(images)
    preprocessing = Preprocessing(channels=3, height=32, width=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    for student, output in outputs.items():
        model = DeliveredModel(
            ensemble.selected([student]), name=student, classes=("a", "b"), preprocessing=preprocessing
        )
        save_model(model, folder / student)
        with torch.no_grad():
            assert torch.equal(load_model(folder / student)(images), output.logits)


@pytest.mark.parametrize("name", QUICK)
def test_two_steps_and_every_student_alone(name: str, tmp_path: Path) -> None:
    check_steps_and_delivery(name, 5, tmp_path)


@pytest.mark.parametrize("num_students", [3, 5])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in MODERATE else pytest.mark.long)
        for name in ARCHITECTURES
    ],
)
def test_two_steps_and_every_student_alone_of_every_network(
    name: str, num_students: int, tmp_path: Path
) -> None:
    check_steps_and_delivery(name, num_students, tmp_path)
