"""Which networks there are: from a name to the widths of every student, and from widths to modules."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

from torch import nn

from codistill.config.model import NETWORKS, OTHER_NETWORK
from codistill.errors import InputError
from codistill.models.any_model import AnyModel
from codistill.models.architecture import BLOCKS, Architecture, Stem
from codistill.models.branch import Cut
from codistill.models.pointwise import thin_out_first

FAMILIES = {
    "cifar_resnet": "cifar_resnet",
    "densenet_bc": "densenet_bc",
    "resn": "resnet",
    "wide_resnet": "resnet",
    "densenet": "densenet",
    "efficientnet": "efficientnet",
}
"""The module beside this one that holds a network, by how its name begins. It is imported when it is used:
torchvision takes seconds."""

ARCHITECTURES = NETWORKS


def architecture_of(name: str) -> Architecture:
    """Return a network of the catalog."""
    family = next(module for prefix, module in FAMILIES.items() if name.startswith(prefix))
    architecture: Architecture = import_module(f"codistill.models.{family}").ARCHITECTURES[name]
    return architecture


@dataclass(frozen=True, kw_only=True)
class StudentDescription:
    """How to build one student, as plain data: with its weights it is the model.

    Args:
        architecture: A name of the catalog, or of a network outside it.
        in_channels: Channels of the images, 1 or 3.
        num_classes: Classes told apart.
        widths: The family's width parameters, in the order of the blocks.
        compared_blocks: Blocks, from the last, whose maps are compared with the pseudo teacher's.
        stem: How the network begins.
        cut: Where a network outside the catalog is cut, and for what images it is built.
    """

    architecture: str
    in_channels: int
    num_classes: int
    widths: tuple[int, ...]
    compared_blocks: int = 3
    stem: Stem = "small"
    cut: Cut | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the description as JSON has it."""
        data = asdict(self) | {"widths": list(self.widths)}
        if self.cut is None:
            del data["cut"]
        else:
            data["cut"] = {
                key: list(value) if isinstance(value, tuple) else value for key, value in data["cut"].items()
            }
        return data

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
        if isinstance(name, str) and name not in ARCHITECTURES and OTHER_NETWORK.fullmatch(name):
            cut = _cut(name, data.get("cut"))
        elif not isinstance(name, str) or name not in ARCHITECTURES:
            raise InputError(
                f"architecture {name!r} is unknown: it must be one of {', '.join(ARCHITECTURES)}, or"
                " library:network"
            )
        else:
            cut = None
        description = cls(**{**numbers, "architecture": name, "widths": (), "cut": cut})
        architecture = description.network
        stem = data.get("stem", "small")
        if stem not in architecture.stems:
            raise InputError(f"stem of {name} must be {' or '.join(architecture.stems)}, not {stem!r}")
        widths = _widths(architecture, data.get("widths"))
        return replace(description, widths=widths, stem=stem)

    @property
    def network(self) -> Architecture:
        """The architecture, at any width."""
        if self.cut is None:
            return architecture_of(self.architecture)
        return AnyModel(self.architecture, self.in_channels, self.num_classes, self.cut)

    @property
    def draws_random_numbers(self) -> bool:
        """Whether the student draws random numbers when it is trained."""
        return self.network.draws_random_numbers


def build_stem(description: StudentDescription) -> nn.Module:
    """Build the stem that students of this description share: images → the stem's output."""
    stem = description.network.build_stem(description.in_channels, description.stem)
    thin_out_first(stem)
    return stem


def build_branch(description: StudentDescription) -> nn.Module:
    """Build what a student has of its own: the stem's output → (logits, feature maps)."""
    branch = description.network.build_branch(
        description.widths,
        num_classes=description.num_classes,
        compared_blocks=description.compared_blocks,
    )
    thin_out_first(branch)
    return branch


def feature_channels(description: StudentDescription) -> tuple[int, ...]:
    """Return the channels of the maps that are compared, first to last."""
    channels = description.network.feature_channels(description.widths)
    return channels[-description.compared_blocks :]


def _widths(architecture: Architecture, widths: object) -> tuple[int, ...]:
    smallest = architecture.smallest_widths
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


def _cut(name: str, data: object) -> Cut:
    """Read where a network outside the catalog is cut."""
    if not isinstance(data, dict):
        raise InputError(f"cut of {name} must be a mapping")
    size, least = data.get("image_size"), data.get("min_channels")
    if not isinstance(size, list) or len(size) != 2 or not all(_is_count(each, 10_000) for each in size):
        raise InputError(f"image_size of {name} must be two whole numbers of pixels, not {size!r}")
    if type(least) is not int or not 1 <= least <= 100_000:
        raise InputError(f"min_channels of {name} must be a whole number above 0, not {least!r}")
    for role, count in (("stem", None), ("blocks", BLOCKS)):
        names = data.get(role)
        if (
            not isinstance(names, list)
            or not names
            or not all(isinstance(each, str) for each in names)
            or (count is not None and len(names) != count)
        ):
            raise InputError(f"{role} of {name} must be a list of modules' names, not {names!r}")
    return Cut((size[0], size[1]), tuple(data["stem"]), tuple(data["blocks"]), least)


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most
