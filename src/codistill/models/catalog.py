"""Which networks there are: from a name to the widths of every student, and from widths to modules."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from codistill.config import ModelConfig
from codistill.errors import InputError
from codistill.models import cifar_resnet

DEPTHS = {f"cifar_resnet{depth}": depth for depth in (20, 32, 44, 56, 110, 1202)}


@dataclass(frozen=True, kw_only=True)
class StudentDescription:
    """How to build one student, as plain data: with its weights it is the model.

    Args:
        architecture: A name of the catalog.
        in_channels: Channels of the images, 1 or 3.
        num_classes: Classes told apart.
        widths: Channels of the three blocks.
        compared_blocks: Blocks, from the last, whose maps are compared with the pseudo teacher's.
    """

    architecture: str
    in_channels: int
    num_classes: int
    widths: tuple[int, ...]
    compared_blocks: int = 3

    def as_dict(self) -> dict[str, Any]:
        """Return the description as JSON has it."""
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StudentDescription":
        """Return the description that `as_dict` gave; raises `InputError` if it describes no student."""
        numbers: dict[str, Any] = {
            name: data.get(name) for name in ("in_channels", "num_classes", "compared_blocks")
        }
        for name, number in numbers.items():
            if type(number) is not int or not 1 <= number <= 1_000_000:
                raise InputError(f"{name} must be a whole number above 0, not {number!r}")
        widths = data.get("widths")
        blocks = len(cifar_resnet.BLOCK_CHANNELS)
        if (
            not isinstance(widths, list)
            or len(widths) != blocks
            or not all(type(width) is int and 1 <= width <= 100_000 for width in widths)
        ):
            raise InputError(f"widths must be {blocks} whole numbers above 0, not {widths!r}")
        if numbers["compared_blocks"] > blocks:
            raise InputError(f"compared_blocks must be at most {blocks}, not {numbers['compared_blocks']}")
        architecture = data.get("architecture")
        if not isinstance(architecture, str) or architecture not in DEPTHS:
            raise InputError(
                f"architecture {architecture!r} is unknown: it must be one of {', '.join(DEPTHS)}"
            )
        return cls(**{**numbers, "architecture": architecture, "widths": tuple(widths)})


def narrowed(channels: int, student: int, num_students: int) -> int:
    """Return c · (N - j) // N, the paper's linear ladder, for student number j + 1 of N."""
    return channels * (num_students - (student - 1)) // num_students


def describe_students(
    config: ModelConfig, *, in_channels: int, num_classes: int
) -> dict[str, StudentDescription]:
    """Describe every student that `config` trains, by name, S1 … SN.

    Raises:
        InputError: A student would have a layer without channels.
    """
    students = {}
    for student in config.trained_students:
        full = len(cifar_resnet.BLOCK_CHANNELS) - config.narrow_blocks
        widths = tuple(
            channels if block < full else narrowed(channels, student, config.num_students)
            for block, channels in enumerate(cifar_resnet.BLOCK_CHANNELS)
        )
        if min(widths) < 1:
            raise InputError(
                f"model.num_students {config.num_students} leaves S{student} of {config.name} a block with no"
                f" channels: its narrowed blocks have {cifar_resnet.BLOCK_CHANNELS[full]} channels or more at"
                f" full width, so at most {cifar_resnet.BLOCK_CHANNELS[full]} students are possible"
            )
        students[f"S{student}"] = StudentDescription(
            architecture=config.name,
            in_channels=in_channels,
            num_classes=num_classes,
            widths=widths,
            compared_blocks=config.narrow_blocks,
        )
    return students


def build_stem(description: StudentDescription) -> nn.Module:
    """Build the stem that students of this description share: images → the stem's output."""
    return cifar_resnet.Stem(description.in_channels)


def build_branch(description: StudentDescription) -> nn.Module:
    """Build what a student has of its own: the stem's output → (logits, feature maps)."""
    return cifar_resnet.Branch(
        depth=DEPTHS[description.architecture],
        widths=description.widths,
        num_classes=description.num_classes,
        compared_blocks=description.compared_blocks,
    )


def feature_channels(description: StudentDescription) -> tuple[int, ...]:
    """Return the channels of the maps that are compared, first to last."""
    return description.widths[-description.compared_blocks :]
