"""Which network is compressed, into how many students: the section `model`."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from codistill.config.problems import Problem, in_range
from codistill.config.target import Target
from codistill.errors import InputError

NETWORKS = (
    *(f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)),
    *("densenet_bc_k12", "densenet_bc_k24", "densenet_bc_k40"),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"),
    *("densenet121", "densenet169", "densenet201"),
    *(f"efficientnet_b{number}" for number in range(8)),
)
"""The networks whose own width parameters are known. All others are narrowed by their dependency graph."""

LARGEST_SMALL_IMAGE = 64
"""Pixels up to which images are small: a stem made for ImageNet would leave little of them."""

LIBRARIES = ("timm", "torchvision")
OTHER_NETWORK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_][\w.-]*")
"""library:network, or module:function."""

TEACHER = "teacher"
"""The name of the ensemble teacher beside S1 … SN, wherever members have names."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The pseudo teacher's architecture and the ladder of students below it."""

    name: str = "cifar_resnet20"
    """Network of S1, the pseudo teacher: cifar_resnet20 … 1202, densenet_bc_k12 … k40, resnet18 … 152,
    resnext50_32x4d, resnext101_32x8d, wide_resnet50_2, wide_resnet101_2, densenet121 … 201,
    efficientnet_b0 … b7; or any other as timm:NAME, torchvision:NAME or your own module:function."""

    num_students: int = 5
    """N: S1 at full width and N - 1 students with (N - j) / N of its channels, j = 1 … N - 1."""

    widths: tuple[float, ...] | None = None
    """Shares of S1's channels that S2 … SN have, instead of that ladder."""

    targets: tuple[str, ...] | None = None
    """Sizes of S2 … SN, instead of the ladder, as '10 % of the parameters', '20 % of the MACs', '50 MMACs' or
    '200 k parameters'; each student gets the width that comes nearest."""

    min_channels: int = 1
    """Fewest channels that narrowing leaves a layer; one that has fewer in S1 keeps them all."""

    narrow_blocks: Literal[1, 2, 3] = 3
    """How many of the three blocks are narrowed, counted from the last; their maps are compared."""

    stem: Literal["auto", "imagenet", "small", "own"] = "auto"
    """How the network begins; imagenet halves the image early, small has a 3×3 convolution of stride 1 and no
    pooling instead, auto takes small up to 64 pixels. CIFAR ResNets and densenet_bc are always small;
    networks of timm, torchvision or your own begin as they do, own."""

    stem_end: str | None = None
    """Module of a timm, torchvision or own network that ends the shared stem; none: its first layer."""

    blocks: tuple[str, str, str] | None = None
    """Modules of such a network that end the three blocks; none: thirds of its depth."""

    init: Literal["scratch", "pretrained"] = "scratch"
    """Initial weights: drawn anew for every student, or those of the wide network, which S1 takes whole and
    the others as the slices that narrowing keeps."""

    weights: str | None = None
    """Pretrained weights: a .safetensors or .pth file, or timm:NAME or torchvision:NAME; none: the network's
    own of that library."""

    students: tuple[int, ...] | None = None
    """Numbers of the students that are trained; none: all. A baseline trains one."""

    def problems(self) -> Iterator[Problem]:
        """Yield everything in this section that cannot be used."""
        yield from self._name_problems()
        yield from in_range(self, "num_students", low=1, high=1000)
        yield from in_range(self, "min_channels", low=1, high=100_000)
        yield from self._width_problems()
        yield from self._cut_problems()
        yield from self._weight_problems()
        if self.students is not None:
            allowed = range(1, self.num_students + 1)
            wrong = [number for number in self.students if number not in allowed]
            if wrong or not self.students:
                yield "students", f"must name some of 1 to {self.num_students}, not {list(self.students)}"
            elif list(self.students) != sorted(set(self.students)):
                yield "students", f"must ascend without repetition, not {list(self.students)}"

    @property
    def is_in_catalog(self) -> bool:
        """Whether the network's own width parameters are known, so that nothing must be found out."""
        return self.name in NETWORKS

    @property
    def is_own(self) -> bool:
        """Whether the network is code of the user's own, module:function."""
        return not self.is_in_catalog and self.name.partition(":")[0] not in LIBRARIES

    @property
    def has_imagenet_stem(self) -> bool:
        """Whether the network was made for large images, so that it has both stems."""
        return self.is_in_catalog and not self.name.startswith(("cifar_", "densenet_bc_"))

    @property
    def trained_students(self) -> tuple[int, ...]:
        """The numbers, counted from 1, of the students that take part."""
        return self.students or tuple(range(1, self.num_students + 1))

    def width_of(self, student: int) -> Fraction | Target:
        """Return the share of S1's channels that student number 1 … N has, or the size it shall have."""
        if student == 1:
            return Fraction(1)
        if self.widths is not None:
            return Fraction(repr(self.widths[student - 2]))
        if self.targets is not None:
            return Target.parse(self.targets[student - 2])
        return Fraction(self.num_students - (student - 1), self.num_students)

    def _name_problems(self) -> Iterator[Problem]:
        if self.is_in_catalog or OTHER_NETWORK.fullmatch(self.name):
            return
        close = difflib.get_close_matches(self.name, NETWORKS, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        yield (
            "name",
            f"must be one of {', '.join(NETWORKS)}, or timm:NAME, torchvision:NAME or module:function of your"
            f" own, not {self.name!r}{meant}",
        )

    def _width_problems(self) -> Iterator[Problem]:
        if self.widths is not None and self.targets is not None:
            yield "targets", "must be null where model.widths are given: either decides the students' widths"
        for name, given in (("widths", self.widths), ("targets", self.targets)):
            if given is not None and len(given) != self.num_students - 1:
                yield (
                    name,
                    f"must have one entry for each of S2 … S{self.num_students}, as model.num_students is"
                    f" {self.num_students}, not {len(given)}",
                )
        if self.widths is not None and not all(0 < width <= 1 for width in self.widths):
            yield "widths", f"must be above 0 and at most 1, not {list(self.widths)}"
        for text in self.targets or ():
            try:
                Target.parse(text)
            except InputError as error:
                yield "targets", str(error)

    def _cut_problems(self) -> Iterator[Problem]:
        if self.is_in_catalog:
            if self.stem == "own":
                yield "stem", f"must be auto, imagenet or small for {self.name}, not own"
            if self.stem == "imagenet" and not self.has_imagenet_stem:
                yield "stem", f"must be small or auto, not imagenet: {self.name} is made for small images"
            for name in ("stem_end", "blocks"):
                if getattr(self, name) is not None:
                    yield (
                        name,
                        f"must be null for {self.name}, which is cut as in the paper; timm:NAME and"
                        " torchvision:NAME can be cut elsewhere",
                    )
            return
        if self.stem not in ("auto", "own"):
            yield "stem", f"must be own or auto for {self.name}, which begins as it does, not {self.stem}"
        if self.narrow_blocks != 3:
            yield "narrow_blocks", f"must be 3 for {self.name}, not {self.narrow_blocks}"
        if self.blocks is not None and len(set(self.blocks)) < 3:
            yield "blocks", f"must name three different modules, not {list(self.blocks)}"

    def _weight_problems(self) -> Iterator[Problem]:
        if self.init == "scratch" and self.weights is not None:
            yield "weights", "must be null unless model.init is pretrained"
        if (
            self.init == "pretrained"
            and self.weights is None
            and self.name.startswith(("cifar_", "densenet_bc_"))
        ):
            yield "weights", f"is needed: no library has pretrained weights of {self.name}"
