"""What a network says of itself, so that it can be trained as one stem and several students.

An architecture is a network of fixed depth whose widths are numbers: the stem stays at full width, and three
blocks behind it are built at the widths that a student has. A family is a file with such a class and its
members.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, Protocol

from torch import Tensor, nn

from codistill.models.slices import Kept, first_channels, sliced

Stem = Literal["imagenet", "small", "own"]
"""How a network begins: as for ImageNet, halving the image early, or with a 3×3 convolution of stride 1."""

BLOCKS = 3
"""Blocks behind the stem; students are compared block by block."""


class Architecture(Protocol):
    """One network, cut into a stem and three blocks plus a head.

    Shapes: B batch, C channels, H height, W width, K classes.
    """

    @property
    def widths(self) -> tuple[int, ...]:
        """The family's own width parameters, as S1 has them, in the order of the blocks."""

    @property
    def smallest_widths(self) -> tuple[int, ...]:
        """The least that each of the widths may be."""

    @property
    def stems(self) -> tuple[Stem, ...]:
        """The stems that there are."""

    @property
    def draws_random_numbers(self) -> bool:
        """Whether a student draws random numbers when it is trained, for dropout say."""

    def narrowed_widths(self, width: Fraction, narrow_blocks: int) -> tuple[int, ...]:
        """Return the widths with this share of their channels in the last `narrow_blocks` blocks."""

    def feature_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return C of the three blocks' maps at these widths."""

    def build_stem(self, in_channels: int, stem: Stem) -> nn.Module:
        """Build images [B, C, H, W] → the stem's output."""

    def build_branch(self, widths: Sequence[int], *, num_classes: int, compared_blocks: int) -> nn.Module:
        """Build the stem's output → logits [B, K] and the last compared blocks' maps, first to last."""

    def branch_state(
        self,
        widths: Sequence[int],
        wide: Mapping[str, Tensor],
        narrow: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the weights of a branch at these widths as the slices of S1's that narrowing keeps.

        Args:
            widths: The branch's.
            wide: The state of S1's branch.
            narrow: The state of the branch, for its names and shapes.
        """


def narrowed(channels: int, width: Fraction) -> int:
    """Return ⌊c · w⌋; on the paper's ladder, w = (N - j) / N, that is its c · (N - j) // N."""
    return int(channels * width)


def narrowed_blocks(widths: Sequence[int], width: Fraction, narrow_blocks: int) -> tuple[int, ...]:
    """Return the widths, one a block, with this share of the last `narrow_blocks` of them."""
    full = len(widths) - narrow_blocks
    return tuple(
        channels if block < full else narrowed(channels, width) for block, channels in enumerate(widths)
    )


class WithOwnWidths:
    """What the catalog's architectures share: slices of weights, by which channels their layers keep."""

    def kept_channels(self, widths: Sequence[int]) -> Kept:
        """Return which channels of S1's each layer of a branch at these widths keeps: the first."""
        return first_channels

    def branch_state(
        self,
        widths: Sequence[int],
        wide: Mapping[str, Tensor],
        narrow: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the weights of a branch as slices of S1's."""
        return sliced(wide, narrow, self.kept_channels(widths))


Outputs = tuple[Tensor, tuple[Tensor, ...]]
"""A branch's logits and feature maps."""
