"""Which network is compressed, into how many students: the section `model`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from codistill.config.problems import Problem, in_range

ModelName = Literal[
    "cifar_resnet20",
    "cifar_resnet32",
    "cifar_resnet44",
    "cifar_resnet56",
    "cifar_resnet110",
    "cifar_resnet1202",
    "densenet_bc_k12",
    "densenet_bc_k24",
    "densenet_bc_k40",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "densenet121",
    "densenet169",
    "densenet201",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
]

LARGEST_SMALL_IMAGE = 64
"""Pixels up to which images are small: a stem made for ImageNet would leave little of them."""


TEACHER = "teacher"
"""The name of the ensemble teacher beside S1 … SN, wherever members have names."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The pseudo teacher's architecture and the ladder of students below it."""

    name: ModelName = "cifar_resnet20"
    """Architecture of S1, the pseudo teacher."""

    num_students: int = 5
    """N: S1 at full width and N - 1 students with (N - j) / N of its channels, j = 1 … N - 1."""

    narrow_blocks: Literal[1, 2, 3] = 3
    """How many of the three blocks are narrowed, counted from the last; their maps are compared."""

    stem: Literal["auto", "imagenet", "small"] = "auto"
    """How the network begins; imagenet halves the image early, small has a 3×3 convolution of stride 1 and no
    pooling instead, auto takes small up to 64 pixels. CIFAR ResNets and densenet_bc are always small."""

    students: tuple[int, ...] | None = None
    """Numbers of the students that are trained; none: all. A baseline trains one."""

    def problems(self) -> Iterator[Problem]:
        """Yield everything in this section that cannot be used."""
        yield from in_range(self, "num_students", low=1, high=1000)
        if self.stem == "imagenet" and not self.has_imagenet_stem:
            yield "stem", f"must be small or auto, not imagenet: {self.name} is made for small images"
        if self.students is not None:
            allowed = range(1, self.num_students + 1)
            wrong = [number for number in self.students if number not in allowed]
            if wrong or not self.students:
                yield "students", f"must name some of 1 to {self.num_students}, not {list(self.students)}"
            elif list(self.students) != sorted(set(self.students)):
                yield "students", f"must ascend without repetition, not {list(self.students)}"

    @property
    def has_imagenet_stem(self) -> bool:
        """Whether the network was made for large images, so that it has both stems."""
        return not self.name.startswith(("cifar_", "densenet_bc_"))

    @property
    def trained_students(self) -> tuple[int, ...]:
        """The numbers, counted from 1, of the students that take part."""
        return self.students or tuple(range(1, self.num_students + 1))
