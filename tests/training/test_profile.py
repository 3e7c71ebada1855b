"""The table of costs before training, and the cost of a step of all students."""

import re

import pytest

from codistill.config import Config, DataConfig, ModelConfig, TrainingConfig
from codistill.errors import InputError
from codistill.models.cost import activation_bytes
from codistill.models.ladder import describe_students
from codistill.training.profile import _classes_and_shape, profile


def test_memory_of_every_student_and_the_cost_of_a_step() -> None:
    model = ModelConfig(num_students=2)
    config = Config(model=model, training=TrainingConfig(batch_size=4, threads=1))

    text = profile(config)

    students = describe_students(model, in_channels=1, num_classes=10)
    rows = {line.split("|")[1].strip(): line.split("|") for line in text.splitlines() if line.startswith("|")}
    for name in ("S1", "S2"):
        expected = activation_bytes({name: students[name]}, (1, 8, 8)) / 2**20
        assert float(rows[name][5]) == pytest.approx(expected, abs=0.005)
    macs = {name: int(rows[name][4].replace(",", "")) for name in ("S1", "teacher")}
    found = re.search(r"the ensemble takes (\d+\.\d\d) times the MACs of S1 alone", text)
    assert found is not None
    assert float(found[1]) == pytest.approx(macs["teacher"] / macs["S1"], abs=0.005)
    assert "for 4 images, engine eager" in text


def test_images_too_small_for_a_network_are_refused() -> None:
    model = ModelConfig(name="densenet121", stem="imagenet")

    with pytest.raises(InputError, match="images of 8×8 pixels are too small for densenet121"):
        profile(Config(data=DataConfig(source="digits"), model=model))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (DataConfig(source="cifar10", root="x"), (10, (3, 32, 32))),
        (DataConfig(source="cifar10", root="x", image_size=224), (10, (3, 224, 224))),
        (DataConfig(source="mnist", root="x", grey_to_rgb=True), (10, (3, 28, 28))),
        (DataConfig(source="imagenet", root="x", num_classes=1000), (1000, (3, 224, 224))),
    ],
)
def test_what_is_known_of_a_source_is_not_read(
    data: DataConfig, expected: tuple[int, tuple[int, int, int]]
) -> None:
    assert _classes_and_shape(Config(data=data)) == expected
