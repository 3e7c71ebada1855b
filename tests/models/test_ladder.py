"""How wide students are: shares, sizes that are solved for, and a floor."""

import pytest

from codistill.config import Config, DataConfig, ModelConfig, check
from codistill.config.target import Target
from codistill.errors import InputError
from codistill.models.catalog import StudentDescription
from codistill.models.cost import student_costs
from codistill.models.ladder import STEPS, describe_students
from codistill.models.networks import admit
from models.test_narrow import Plain


def described(**model: object) -> dict[str, StudentDescription]:
    config = ModelConfig(**model)  # type: ignore[arg-type]
    return describe_students(config, in_channels=3, num_classes=10, image_size=(32, 32))


def test_shares_are_those_of_every_block() -> None:
    students = described(num_students=3, widths=(0.5, 0.1))

    assert [student.widths for student in students.values()] == [(16, 32, 64), (8, 16, 32), (1, 3, 6)]


def test_the_ladder_as_shares_is_the_ladder() -> None:
    assert described(widths=(0.8, 0.6, 0.4, 0.2)) == described()


def test_no_layer_falls_below_the_floor() -> None:
    students = described(min_channels=8)

    assert [student.widths for student in students.values()] == [
        (16, 32, 64),
        (12, 25, 51),
        (9, 19, 38),
        (8, 12, 25),
        (8, 8, 12),
    ]
    assert described(min_channels=40)["S5"].widths == (16, 32, 40)


@pytest.mark.parametrize(
    ("name", "target", "unit", "wanted"),
    [
        pytest.param("cifar_resnet20", "10 % of the parameters", "parameters", 0.1, marks=pytest.mark.slow),
        pytest.param("cifar_resnet20", "5 MMACs", "macs", 5_000_000, marks=pytest.mark.slow),
        pytest.param("own", "25% macs", "macs", 0.25, marks=pytest.mark.slow),
        pytest.param("own", "100k parameters", "parameters", 100_000, marks=pytest.mark.slow),
    ],
)
def test_a_target_gets_the_nearest_width(name: str, target: str, unit: str, wanted: float) -> None:
    if name == "own":
        name = admit(lambda num_classes: Plain(num_classes, channels=120), "tests:plain")
    students = described(name=name, num_students=2, targets=(target,), stem="auto")
    costs = student_costs(students, students["S1"], (3, 32, 32))
    counted = [getattr(costs[student], unit) for student in ("S1", "S2")]
    amount = wanted * counted[0] if wanted < 1 else wanted

    def distance(width: float) -> float:
        other = described(name=name, num_students=2, widths=(width,), stem="auto")
        return abs(getattr(student_costs(other, other["S1"], (3, 32, 32))["S2"], unit) - amount)

    nearest = min(distance(step / 10) for step in range(1, 11))
    assert abs(counted[1] - amount) <= nearest
    assert STEPS % 10 == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("1 parameters", "model.targets 1 parameters is too small for cifar_resnet20: its narrowest student"),
        ("3 M parameters", "model.targets 3,000,000 parameters: cifar_resnet20 itself has 272,474"),
    ],
)
def test_an_impossible_target_is_refused(target: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        described(num_students=2, targets=(target,))


def test_a_share_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"model.widths 0.05 leaves S2 of cifar_resnet20 a layer with no"):
        described(num_students=2, widths=(0.05,))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10 % of the parameters", Target(0.1, "parameters", is_share=True)),
        (" 12.5% of the  MACs ", Target(0.125, "macs", is_share=True)),
        ("50 MMACs", Target(50e6, "macs", is_share=False)),
        ("1.5 G macs", Target(1.5e9, "macs", is_share=False)),
        ("200 k params", Target(200e3, "parameters", is_share=False)),
        ("900 parameters", Target(900, "parameters", is_share=False)),
    ],
)
def test_sizes_are_read(text: str, target: Target) -> None:
    parsed = Target.parse(text)
    assert (parsed.unit, parsed.is_share) == (target.unit, target.is_share)
    assert parsed.amount == pytest.approx(target.amount)


@pytest.mark.parametrize(
    "text", ["", "ten", "10", "0 % params", "101 % params", "5 seconds", "1.2.3 MMACs", "-5 MMACs"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be sizes as"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"widths": (0.5,)}, "model.widths must have one entry for each of S2 … S5"),
        ({"num_students": 2, "widths": (0.5,), "targets": ("5 MMACs",)}, "model.targets must be null where"),
        ({"num_students": 2, "widths": (1.5,)}, "model.widths must be above 0 and at most 1"),
        ({"num_students": 2, "targets": ("many",)}, "model.targets must be sizes as"),
        ({"min_channels": 0}, "model.min_channels must be at least 1"),
        ({"stem_end": "layer1"}, "model.stem_end must be null for cifar_resnet20"),
        ({"name": "timm:x", "stem": "small"}, "model.stem must be own or auto for timm:x"),
        ({"name": "timm:x", "narrow_blocks": 2}, "model.narrow_blocks must be 3 for timm:x"),
        ({"name": "timm:x", "blocks": ("a", "b", "a")}, "model.blocks must name three different modules"),
        ({"name": "resnet18", "stem": "own"}, "model.stem must be auto, imagenet or small for resnet18"),
        ({"weights": "x.pth"}, "model.weights must be null unless model.init is pretrained"),
        (
            {"init": "pretrained"},
            "model.weights is needed: no library has pretrained weights of cifar",
        ),
    ],
)
def test_what_cannot_be_together_is_refused(model: dict[str, object], words: str) -> None:
    config = Config(data=DataConfig(), model=ModelConfig(**model))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        check(config)
