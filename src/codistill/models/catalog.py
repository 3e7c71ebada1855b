"""Which networks there are: from a name to the widths of every student, and from widths to modules."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from torch import nn

from codistill.config import ModelConfig
from codistill.errors import InputError
from codistill.models.architecture import BLOCKS, Architecture, Stem

FAMILIES = {
    "cifar_resnet": tuple(f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)),
    "densenet_bc": ("densenet_bc_k12", "densenet_bc_k24", "densenet_bc_k40"),
    "resnet": (
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"),
    ),
    "densenet": ("densenet121", "densenet169", "densenet201"),
    "efficientnet": tuple(f"efficientnet_b{number}" for number in range(8)),
}
"""The networks of each module beside this one. It is imported when one is used: torchvision takes seconds."""

ARCHITECTURES = tuple(name for names in FAMILIES.values() for name in names)


def architecture_of(name: str) -> Architecture:
    """Return a network of the catalog."""
    family = next(family for family, names in FAMILIES.items() if name in names)
    architecture: Architecture = import_module(f"codistill.models.{family}").ARCHITECTURES[name]
    return architecture


@dataclass(frozen=True, kw_only=True)
class StudentDescription:
    """How to build one student, as plain data: with its weights it is the model.

    Args:
        architecture: A name of the catalog.
        in_channels: Channels of the images, 1 or 3.
        num_classes: Classes told apart.
        widths: The family's width parameters, in the order of the blocks.
        compared_blocks: Blocks, from the last, whose maps are compared with the pseudo teacher's.
        stem: How the network begins.
    """

    architecture: str
    in_channels: int
    num_classes: int
    widths: tuple[int, ...]
    compared_blocks: int = 3
    stem: Stem = "small"

    def as_dict(self) -> dict[str, Any]:
        """Return the description as JSON has it."""
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StudentDescription":
        """Return the description that `as_dict` gave; raises `InputError` if it describes no student."""
        numbers: dict[str, Any] = {
            name: data.get(name) for name in ("in_channels", "num_classes", "compared_blocks")
        }
        for field, number in numbers.items():
            if type(number) is not int or not 1 <= number <= 1_000_000:
                raise InputError(f"{field} must be a whole number above 0, not {number!r}")
        if numbers["compared_blocks"] > BLOCKS:
            raise InputError(f"compared_blocks must be at most {BLOCKS}, not {numbers['compared_blocks']}")
        name = data.get("architecture")
        if not isinstance(name, str) or name not in ARCHITECTURES:
            raise InputError(
                f"architecture {name!r} is unknown: it must be one of {', '.join(ARCHITECTURES)}"
            )
        architecture = architecture_of(name)
        stem = data.get("stem", "small")
        if stem not in architecture.stems:
            raise InputError(f"stem of {name} must be {' or '.join(architecture.stems)}, not {stem!r}")
        widths = _widths(name, data.get("widths"))
        return cls(**{**numbers, "architecture": name, "widths": widths, "stem": stem})

    @property
    def draws_random_numbers(self) -> bool:
        """Whether the student draws random numbers when it is trained."""
        return architecture_of(self.architecture).draws_random_numbers


def describe_students(
    config: ModelConfig, *, in_channels: int, num_classes: int
) -> dict[str, StudentDescription]:
    """Describe every student that `config` trains, by name, S1 … SN.

    Raises:
        InputError: A student would have a layer without channels.
    """
    architecture = architecture_of(config.name)
    stem = _stem(config, architecture)
    students = {}
    for student in config.trained_students:
        widths = architecture.narrowed_widths(student, config.num_students, config.narrow_blocks)
        if not _wide_enough(architecture, widths):
            most = _most_students(architecture, config.narrow_blocks)
            raise InputError(
                f"model.num_students {config.num_students} leaves S{student} of {config.name} a layer with no"
                f" channels: at most {most} students are possible"
            )
        students[f"S{student}"] = StudentDescription(
            architecture=config.name,
            in_channels=in_channels,
            num_classes=num_classes,
            widths=widths,
            compared_blocks=config.narrow_blocks,
            stem=stem,
        )
    return students


def build_stem(description: StudentDescription) -> nn.Module:
    """Build the stem that students of this description share: images → the stem's output."""
    return architecture_of(description.architecture).build_stem(description.in_channels, description.stem)


def build_branch(description: StudentDescription) -> nn.Module:
    """Build what a student has of its own: the stem's output → (logits, feature maps)."""
    return architecture_of(description.architecture).build_branch(
        description.widths,
        num_classes=description.num_classes,
        compared_blocks=description.compared_blocks,
    )


def feature_channels(description: StudentDescription) -> tuple[int, ...]:
    """Return the channels of the maps that are compared, first to last."""
    channels = architecture_of(description.architecture).feature_channels(description.widths)
    return channels[-description.compared_blocks :]


def _stem(config: ModelConfig, architecture: Architecture) -> Stem:
    if config.stem != "auto":
        return config.stem
    if len(architecture.stems) > 1:
        raise ValueError(f"model.stem of {config.name} is still open: codistill.config.completed chooses it")
    return architecture.stems[0]


def _widths(name: str, widths: object) -> tuple[int, ...]:
    smallest = architecture_of(name).smallest_widths
    if (
        not isinstance(widths, list)
        or len(widths) != len(smallest)
        or not all(
            type(width) is int and least <= width <= 100_000
            for width, least in zip(widths, smallest, strict=True)
        )
    ):
        least = str(smallest[0]) if len(set(smallest)) == 1 else f"those of {list(smallest)}"
        raise InputError(
            f"widths must be {len(smallest)} whole numbers, each at least {least}, not {widths!r}"
        )
    return tuple(widths)


def _wide_enough(architecture: Architecture, widths: tuple[int, ...]) -> bool:
    pairs = zip(widths, architecture.smallest_widths, strict=True)
    return all(width >= least for width, least in pairs)


def _most_students(architecture: Architecture, narrow_blocks: int) -> int:
    most = 1
    while _wide_enough(architecture, architecture.narrowed_widths(most + 1, most + 1, narrow_blocks)):
        most += 1
    return most
