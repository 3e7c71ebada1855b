"""DenseNet-BC for small images (Huang et al. 2017, table 2 and section 4), cut after the first convolution.

A layer is a bottleneck (B): 1×1 to 4k channels, then 3×3 to k, each behind batch norm and ReLU. Transitions
halve the channels (C), rounding down, and the image. Without dropout: the students' data are augmented.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codistill.models import architecture
from codistill.models.architecture import BLOCKS, Outputs, WithOwnWidths, narrowed_blocks
from codistill.models.slices import Kept, firsts

BOTTLENECK = 4


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution


class DenseLayer(nn.Module):
    """[B, C, H, W] → [B, C + k, H, W]: its input and k maps computed from it."""

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _convolution(in_channels, BOTTLENECK * growth_rate, 1)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth_rate)
        self.conv2 = _convolution(BOTTLENECK * growth_rate, growth_rate, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and the new maps, concatenated."""
        hidden = self.conv1(F.relu(self.norm1(x), inplace=True))
        return torch.cat([x, self.conv2(F.relu(self.norm2(hidden), inplace=True))], dim=1)


class Transition(nn.Module):
    """[B, C, H, W] → [B, C // 2, H // 2, W // 2]."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = _convolution(in_channels, in_channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return half as many maps of half the size."""
        return F.avg_pool2d(self.conv(F.relu(self.norm(x), inplace=True)), 2)


class Branch(nn.Module):
    """Everything behind the first convolution: three dense blocks, two transitions, pooling and a head.

    Args:
        stem_channels: Channels of the stem's output.
        layers: Layers of each dense block.
        growth_rates: k of each dense block.
        num_classes: K.
        compared_blocks: How many feature maps are returned, counted from the last block.
    """

    def __init__(
        self,
        *,
        stem_channels: int,
        layers: int,
        growth_rates: Sequence[int],
        num_classes: int,
        compared_blocks: int,
    ) -> None:
        super().__init__()
        channels = stem_channels
        blocks: list[nn.Module] = []
        for index, growth_rate in enumerate(growth_rates):
            parts: list[nn.Module] = [
                DenseLayer(channels + layer * growth_rate, growth_rate) for layer in range(layers)
            ]
            channels += layers * growth_rate
            if index < len(growth_rates) - 1:
                parts.append(Transition(channels))
                channels //= 2
            blocks.append(nn.Sequential(*parts))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)
        self.compared_blocks = compared_blocks

    def forward(self, stem_output: Tensor) -> Outputs:
        """Return logits [B, K] and the last compared blocks' maps, each [B, C_b, H_b, W_b]."""
        features = []
        x = stem_output
        for block in self.blocks:
            x = block(x)
            features.append(x)
        pooled = F.relu(self.norm(x), inplace=True).mean(dim=(2, 3))
        return self.head(pooled), tuple(features[-self.compared_blocks :])


@dataclass(frozen=True)
class DenseNetBC(WithOwnWidths):
    """A DenseNet-BC of growth rate k and depth L = 6n + 4; its widths are the three blocks' growth rates."""

    growth_rate: int
    depth: int
    smallest_widths: tuple[int, ...] = (1, 1, 1)
    stems: tuple[architecture.Stem, ...] = ("small",)
    draws_random_numbers: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """The growth rates of S1."""
        return (self.growth_rate,) * BLOCKS

    @property
    def layers(self) -> int:
        """Layers of each dense block."""
        return (self.depth - 4) // 6

    def narrowed_widths(self, width: Fraction, narrow_blocks: int) -> tuple[int, ...]:
        """Return the growth rates of a student that has this share of the channels."""
        return narrowed_blocks(self.widths, width, narrow_blocks)

    def feature_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return the channels of the three blocks' maps, behind the transition where there is one."""
        first = (2 * self.growth_rate + self.layers * widths[0]) // 2
        second = (first + self.layers * widths[1]) // 2
        return first, second, second + self.layers * widths[2]

    def kept_channels(self, widths: Sequence[int]) -> Kept:
        """Return which channels each layer keeps: the first of each part of what is concatenated."""

        def concatenated(block: int, layers: int) -> list[int]:
            parts = [
                [inputs, *[growth_rate] * layers]
                for inputs, growth_rate in (
                    (self._input_channels(rates)[block], rates[block]) for rates in (self.widths, widths)
                )
            ]
            return firsts(*parts)

        def kept(name: str, dim: int) -> list[int] | None:
            parts = name.split(".")
            if parts[0] == "blocks" and (
                parts[3] in ("norm1", "norm") or (parts[3] in ("conv1", "conv") and dim)
            ):
                return concatenated(int(parts[1]), min(int(parts[2]), self.layers))
            if parts[0] == "norm" or (parts[0] == "head" and dim == 1):
                return concatenated(BLOCKS - 1, self.layers)
            return None

        return kept

    def _input_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return the channels that the three dense blocks take."""
        first, second, _ = self.feature_channels(widths)
        return 2 * self.growth_rate, first, second

    def build_stem(self, in_channels: int, stem: architecture.Stem) -> nn.Module:
        """Build images [B, C, H, W] → [B, 2k, H, W]."""
        return _convolution(in_channels, 2 * self.growth_rate, 3)

    def build_branch(self, widths: Sequence[int], *, num_classes: int, compared_blocks: int) -> nn.Module:
        """Build [B, 2k, H, W] → logits [B, K] and maps."""
        return Branch(
            stem_channels=2 * self.growth_rate,
            layers=self.layers,
            growth_rates=widths,
            num_classes=num_classes,
            compared_blocks=compared_blocks,
        )


ARCHITECTURES = {
    "densenet_bc_k12": DenseNetBC(growth_rate=12, depth=100),
    "densenet_bc_k24": DenseNetBC(growth_rate=24, depth=250),
    "densenet_bc_k40": DenseNetBC(growth_rate=40, depth=190),
}
