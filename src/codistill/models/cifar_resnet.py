"""ResNets for small images (He et al. 2016, section 4.2), cut into a stem and three blocks plus a head.

Shortcuts are 1×1 projections ("option B") wherever shape changes, so also in block 1 of a narrow student.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codistill.models import architecture
from codistill.models.architecture import Outputs, WithOwnWidths, narrowed_blocks

STEM_CHANNELS = 16
BLOCK_CHANNELS = (16, 32, 64)


def _convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


class ResidualUnit(nn.Module):
    """Two 3×3 convolutions and a shortcut: [B, C_in, H, W] → [B, C_out, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _convolution(out_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                _convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output, after its last ReLU."""
        hidden = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x), inplace=True)


class Stem(nn.Sequential):
    """The shared first layer: images [B, C, H, W] → [B, 16, H, W]."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            _convolution(in_channels, STEM_CHANNELS, 3), nn.BatchNorm2d(STEM_CHANNELS), nn.ReLU(inplace=True)
        )


class Branch(nn.Module):
    """Everything behind the stem, at the given widths: three blocks, pooling and a linear head.

    Args:
        depth: Layers of the whole network, 6n + 2.
        widths: Channels of the three blocks.
        num_classes: K.
        compared_blocks: How many feature maps are returned, counted from the last block.
    """

    def __init__(
        self, *, depth: int, widths: Sequence[int], num_classes: int, compared_blocks: int = 3
    ) -> None:
        super().__init__()
        units, remainder = divmod(depth - 2, 6)
        if remainder or units < 1:
            raise ValueError(f"depth must be 6n + 2, not {depth}")
        blocks: list[nn.Module] = []
        in_channels = STEM_CHANNELS
        for index, width in enumerate(widths):
            stride = 1 if index == 0 else 2
            blocks.append(
                nn.Sequential(
                    ResidualUnit(in_channels, width, stride),
                    *(ResidualUnit(width, width, 1) for _ in range(units - 1)),
                )
            )
            in_channels = width
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(in_channels, num_classes)
        self.compared_blocks = compared_blocks

    def forward(self, stem_output: Tensor) -> Outputs:
        """Return logits [B, K] and the last compared blocks' maps, each [B, C_b, H_b, W_b]."""
        features = []
        x = stem_output
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return self.head(x.mean(dim=(2, 3))), tuple(features[-self.compared_blocks :])


@dataclass(frozen=True)
class CifarResNet(WithOwnWidths):
    """A ResNet of so many layers; its widths are the channels of the three blocks."""

    depth: int
    widths: tuple[int, ...] = BLOCK_CHANNELS
    smallest_widths: tuple[int, ...] = (1, 1, 1)
    stems: tuple[architecture.Stem, ...] = ("small",)
    draws_random_numbers: bool = False

    def narrowed_widths(self, width: Fraction, narrow_blocks: int) -> tuple[int, ...]:
        """Return the widths of a student that has this share of the channels."""
        return narrowed_blocks(self.widths, width, narrow_blocks)

    def feature_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return the channels of the three blocks' maps."""
        first, second, third = widths
        return first, second, third

    def branch_state(
        self,
        widths: Sequence[int],
        wide: Mapping[str, Tensor],
        narrow: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return slices of S1's weights; a projection that S1 does not need passes the first channels on."""
        state = dict(wide)
        for name, like in narrow.items():
            if name not in wide:
                state[name] = torch.zeros_like(like)
                if name.endswith("shortcut.0.weight"):
                    state[name][:, :, 0, 0] = torch.eye(*like.shape[:2])
                elif name.endswith(("shortcut.1.weight", "running_var")):
                    state[name].fill_(1.0)
        return super().branch_state(widths, state, narrow)

    def build_stem(self, in_channels: int, stem: architecture.Stem) -> nn.Module:
        """Build images [B, C, H, W] → [B, 16, H, W]."""
        return Stem(in_channels)

    def build_branch(self, widths: Sequence[int], *, num_classes: int, compared_blocks: int) -> nn.Module:
        """Build [B, 16, H, W] → logits [B, K] and maps."""
        return Branch(
            depth=self.depth, widths=widths, num_classes=num_classes, compared_blocks=compared_blocks
        )


ARCHITECTURES = {f"cifar_resnet{depth}": CifarResNet(depth) for depth in (20, 32, 44, 56, 110, 1202)}
