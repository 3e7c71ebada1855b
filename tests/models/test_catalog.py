"""Which students a config describes: their widths, and what they weigh by the paper's own table."""

from typing import Literal

import pytest
import torch

from codistill.config import ModelConfig
from codistill.errors import InputError
from codistill.models.catalog import (
    StudentDescription,
    build_branch,
    build_stem,
    feature_channels,
)
from codistill.models.cost import count_parameters, student_costs
from codistill.models.ladder import describe_students

# Walawalkar et al. 2020, table 1: parameters as a share of S1's, in percent, with heads of 10 classes.
TABLE_1: dict[str, list[float]] = {
    "cifar_resnet20": [100.0, 62.95, 35.61, 15.50, 3.95],
    "cifar_resnet32": [100.0, 62.87, 35.43, 15.33, 3.80],
    "cifar_resnet44": [100.0, 62.84, 35.36, 15.25, 3.74],
    "cifar_resnet110": [100.0, 62.79, 35.26, 15.15, 3.64],
}


def described(in_channels: int = 3, num_classes: int = 10, **model: object) -> dict[str, StudentDescription]:
    config = ModelConfig(**model)  # type: ignore[arg-type]
    return describe_students(config, in_channels=in_channels, num_classes=num_classes)


def widths(**model: object) -> list[tuple[int, ...]]:
    return [student.widths for student in described(**model).values()]


@pytest.mark.parametrize("name", TABLE_1)
def test_relative_sizes_are_the_papers_to_a_hundredth(name: str) -> None:
    students = described(name=name)

    costs = student_costs(students, students["S1"], (3, 32, 32))

    sizes = [costs[student].relative_size_percent for student in students]
    # The paper prints two decimals: half a hundredth is rounding.
    assert sizes == pytest.approx(TABLE_1[name], abs=0.0051)


def counted_by_hand(units: int, widths: tuple[int, ...], in_channels: int, classes: int) -> int:
    """Count weights from the architecture's text: He et al. 2016, section 4.2, with option B shortcuts."""
    total = 9 * in_channels * 16 + 2 * 16
    before = 16
    for block, width in enumerate(widths):
        for unit in range(units):
            total += 9 * before * width + 2 * width + 9 * width * width + 2 * width
            if unit == 0 and (before != width or block > 0):
                total += before * width + 2 * width
            before = width
    return total + before * classes + classes


@pytest.mark.parametrize(
    ("depth", "units", "widths", "in_channels", "classes"),
    [
        (20, 3, (16, 32, 64), 3, 10),
        (20, 3, (3, 6, 12), 1, 10),
        (32, 5, (16, 32, 12), 3, 100),
        (44, 7, (1, 1, 1), 1, 2),
        (56, 9, (16, 19, 38), 3, 7),
    ],
)
def test_parameters_are_those_counted_by_hand(
    depth: int, units: int, widths: tuple[int, ...], in_channels: int, classes: int
) -> None:
    description = StudentDescription(
        architecture=f"cifar_resnet{depth}", in_channels=in_channels, num_classes=classes, widths=widths
    )

    with torch.device("meta"):
        stem, branch = build_stem(description), build_branch(description)

    assert count_parameters(stem) + count_parameters(branch) == counted_by_hand(
        units, widths, in_channels, classes
    )


def test_resnet_20_has_its_well_known_size() -> None:
    # 0.27 M in He et al.'s table 6, whose shortcuts have no weights: two projections more here.
    assert counted_by_hand(3, (16, 32, 64), 3, 10) == 272_474


def test_the_ladder_of_five() -> None:
    assert widths() == [(16, 32, 64), (12, 25, 51), (9, 19, 38), (6, 12, 25), (3, 6, 12)]


def test_the_ladder_of_four() -> None:
    assert widths(num_students=4) == [(16, 32, 64), (12, 24, 48), (8, 16, 32), (4, 8, 16)]


@pytest.mark.parametrize(("narrow_blocks", "s5"), [(1, (16, 32, 12)), (2, (16, 6, 12)), (3, (3, 6, 12))])
def test_only_the_last_blocks_are_narrowed_and_compared(
    narrow_blocks: Literal[1, 2, 3], s5: tuple[int, ...]
) -> None:
    students = described(narrow_blocks=narrow_blocks)

    assert students["S5"].widths == s5
    assert students["S1"].widths == (16, 32, 64)
    assert feature_channels(students["S5"]) == s5[-narrow_blocks:]
    assert feature_channels(students["S1"]) == (16, 32, 64)[-narrow_blocks:]


def test_one_student_is_the_whole_network() -> None:
    assert widths(num_students=1) == [(16, 32, 64)]


@pytest.mark.parametrize(("narrow_blocks", "most"), [(3, 16), (2, 32), (1, 64)])
def test_as_many_students_as_the_narrowest_block_has_channels(
    narrow_blocks: Literal[1, 2, 3], most: int
) -> None:
    ladder = widths(num_students=most, narrow_blocks=narrow_blocks)

    assert len(ladder) == most
    assert ladder[-1][3 - narrow_blocks] == 1
    with pytest.raises(InputError, match=rf"leaves S{most + 1} .* at most {most} students are possible"):
        widths(num_students=most + 1, narrow_blocks=narrow_blocks)


def test_some_students_keep_their_names_and_widths() -> None:
    every = described()

    assert described(students=(2, 5)) == {name: every[name] for name in ("S2", "S5")}


def test_a_description_survives_json_types() -> None:
    description = described(narrow_blocks=2)["S3"]

    assert StudentDescription.from_dict(description.as_dict()) == description


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number above 0, not 0"),
        ({"in_channels": 3.0}, "in_channels must be"),
        ({"num_classes": True}, "num_classes must be"),
        ({"num_classes": 10**7}, "num_classes must be"),
        ({"compared_blocks": 4}, "compared_blocks must be at most 3, not 4"),
        ({"compared_blocks": None}, "compared_blocks must be"),
        ({"widths": [16, 32]}, "widths must be 3 whole numbers, each at least 1, not"),
        ({"widths": [16, 32, 0]}, "widths must be"),
        ({"widths": [16, 32, 10**9]}, "widths must be"),
        ({"widths": "abc"}, "widths must be"),
        ({"architecture": "vgg"}, "architecture 'vgg' is unknown: it must be one of cifar_resnet20,"),
        ({"architecture": ["cifar_resnet20"]}, "is unknown"),
    ],
)
def test_a_description_of_no_student_is_refused(change: dict[str, object], words: str) -> None:
    data = described()["S1"].as_dict() | change

    with pytest.raises(InputError, match=words):
        StudentDescription.from_dict(data)
