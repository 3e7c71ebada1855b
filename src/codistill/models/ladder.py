"""The students of a config: how wide each is, by the paper's ladder, by shares or by sizes.

Shapes: H height, W width in pixels.
"""

from collections.abc import Callable
from fractions import Fraction

import torch

from codistill.config import ModelConfig
from codistill.config.target import Target
from codistill.errors import InputError
from codistill.models.any_model import cut_of
from codistill.models.architecture import Architecture, Stem
from codistill.models.catalog import StudentDescription, feature_channels
from codistill.models.cost import count_macs, count_parameters
from codistill.models.ensemble import Classifier, Ensemble

STEPS = 1000
"""A target is met by one of so many widths."""


def describe_students(
    config: ModelConfig,
    *,
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int] | None = None,
) -> dict[str, StudentDescription]:
    """Describe every student that `config` trains, by name, S1 … SN.

    Args:
        config: The network and the students' widths.
        in_channels: Channels of the images.
        num_classes: Classes told apart.
        image_size: H and W; networks outside the catalog and targets in MACs need it.

    Raises:
        InputError: A student would have a layer without channels, a target cannot be met, or a network
            outside the catalog cannot be cut or narrowed.
    """
    whole = _pseudo_teacher(config, in_channels, num_classes, image_size)
    students = {}
    for student in config.trained_students:
        width = config.width_of(student)
        if isinstance(width, Target):
            width = _solve(config, whole, width, image_size)
        widths = _narrowed(config, whole.network, width)
        if not _wide_enough(whole.network, widths):
            raise InputError(_too_narrow(config, whole.network, student))
        students[f"S{student}"] = _with_widths(whole, widths)
        if not config.is_in_catalog:
            feature_channels(students[f"S{student}"])  # Refuses what cannot be narrowed so.
    return students


def _pseudo_teacher(
    config: ModelConfig, in_channels: int, num_classes: int, image_size: tuple[int, int] | None
) -> StudentDescription:
    cut = None
    if not config.is_in_catalog:
        if image_size is None:
            raise ValueError(f"{config.name} is built for images of a size")
        cut = cut_of(
            config.name,
            in_channels=in_channels,
            num_classes=num_classes,
            image_size=image_size,
            stem_end=config.stem_end,
            blocks=config.blocks,
            min_channels=config.min_channels,
        )
    description = StudentDescription(
        architecture=config.name,
        in_channels=in_channels,
        num_classes=num_classes,
        widths=(),
        compared_blocks=config.narrow_blocks,
        cut=cut,
    )
    stem = _stem(config, description.network)
    return _with_widths(description, description.network.widths, stem)


def _with_widths(
    description: StudentDescription, widths: tuple[int, ...], stem: Stem | None = None
) -> StudentDescription:
    return StudentDescription(
        **{**vars(description), "widths": widths, "stem": description.stem if stem is None else stem}
    )


def _stem(config: ModelConfig, architecture: Architecture) -> Stem:
    if config.stem != "auto":
        return config.stem
    if len(architecture.stems) > 1:
        raise ValueError(f"model.stem of {config.name} is still open: codistill.config.completed chooses it")
    return architecture.stems[0]


def _narrowed(config: ModelConfig, architecture: Architecture, width: Fraction) -> tuple[int, ...]:
    widths = architecture.narrowed_widths(width, config.narrow_blocks)
    if not config.is_in_catalog or config.min_channels == 1:
        return widths  # Outside the catalog the floor is part of how a network is cut.
    return tuple(
        max(narrow, min(whole, config.min_channels))
        for narrow, whole in zip(widths, architecture.widths, strict=True)
    )


def _wide_enough(architecture: Architecture, widths: tuple[int, ...]) -> bool:
    pairs = zip(widths, architecture.smallest_widths, strict=True)
    return all(width >= least for width, least in pairs)


def _too_narrow(config: ModelConfig, architecture: Architecture, student: int) -> str:
    if config.widths is not None:
        return (
            f"model.widths {config.widths[student - 2]:g} leaves S{student} of {config.name} a layer with no"
            " channels"
        )
    most = 1
    while _wide_enough(architecture, _narrowed(config, architecture, Fraction(1, most + 1))):
        most += 1
    return (
        f"model.num_students {config.num_students} leaves S{student} of {config.name} a layer with no"
        f" channels: at most {most} students are possible"
    )


def _solve(
    config: ModelConfig, whole: StudentDescription, target: Target, image_size: tuple[int, int] | None
) -> Fraction:
    """Return the width at which a student that stands alone comes nearest to the target."""
    cost = _cost(target, image_size)
    full = cost(whole)
    wanted = target.amount * full if target.is_share else target.amount
    if wanted > full:
        raise InputError(f"model.targets {target}: {config.name} itself has {full:,}")

    def at(step: int) -> int | None:
        widths = _narrowed(config, whole.network, Fraction(step, STEPS))
        if not _wide_enough(whole.network, widths):
            return None
        try:
            return cost(_with_widths(whole, widths))
        except InputError:
            if step > STEPS // 2:
                raise
            return None  # Too narrow for its graph.

    low, high = 0, STEPS  # Too small or impossible, large enough.
    costs: dict[int, int | None] = {0: None, STEPS: full}
    while high - low > 1:
        middle = (low + high) // 2
        found = costs[middle] = at(middle)
        low, high = (middle, high) if found is None or found < wanted else (low, middle)
    above = costs[high]
    assert above is not None
    below = costs[low]
    if below is None and above > wanted:
        raise InputError(
            f"model.targets {target} is too small for {config.name}: its narrowest student, stem and all,"
            f" has {above:,}"
        )
    nearest = high if below is None or abs(above - wanted) <= abs(below - wanted) else low
    return Fraction(nearest, STEPS)


def _cost(target: Target, image_size: tuple[int, int] | None) -> Callable[[StudentDescription], int]:
    def cost(description: StudentDescription) -> int:
        with torch.device("meta"):
            student = Classifier(Ensemble({"S1": description}))
        if target.unit == "parameters":
            return count_parameters(student)
        if image_size is None:
            raise ValueError("MACs are counted for images of a size")
        return count_macs(student, (description.in_channels, *image_size))

    return cost
