"""EfficientNet B0 … B7 (Tan, Le 2019, table 1) of torchvision's blocks, cut after the first convolution.

Modules are called as in torchvision, so its weights fit S1 by name. A student's widths are the channels of
the seven stages and of the final 1×1 convolution: the network's own, for a width multiplier that is scaled.

Shapes: B batch, C channels, H height, W width, K classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torchvision.models.efficientnet import MBConv, MBConvConfig
from torchvision.ops.misc import Conv2dNormActivation

from codistill.models import architecture
from codistill.models.architecture import BLOCKS, Outputs, WithOwnWidths

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
STOCHASTIC_DEPTH = 0.2
"""Probability with which the last residual block would be skipped; it grows from 0 along the network."""


class Stage(NamedTuple):
    """One row of the architecture's table, before it is scaled."""

    expand_ratio: int
    kernel_size: int
    stride: int
    channels: int
    layers: int
    block: int


STAGES = (
    Stage(1, 3, 1, 16, 1, block=0),
    Stage(6, 3, 2, 24, 2, block=0),
    Stage(6, 5, 2, 40, 2, block=0),
    Stage(6, 3, 2, 80, 3, block=1),
    Stage(6, 5, 1, 112, 3, block=1),
    Stage(6, 5, 2, 192, 4, block=2),
    Stage(6, 3, 1, 320, 1, block=2),
)
NOMINAL_CHANNELS = (*(stage.channels for stage in STAGES), HEAD_CHANNELS)
BLOCK_OF_WIDTH = (*(stage.block for stage in STAGES), 2)
LAST_OF_BLOCKS = (3, 5, 8)
"""The names, in torchvision, of what ends the three blocks: stages 3 and 5, and the final convolution."""

Norm = Callable[[int], nn.Module]


class Branch(nn.Module):
    """Everything behind the first convolution: seven stages, a 1×1 convolution, pooling and a head.

    Args:
        parts: Stages 1 … 7 and the 1×1 convolution.
        channels: Channels of the last one's output.
        dropout: Share of the pooled channels that are dropped in training.
        num_classes: K.
        compared_blocks: How many feature maps are returned, counted from the last block.
    """

    def __init__(
        self,
        parts: Sequence[nn.Module],
        channels: int,
        *,
        dropout: float,
        num_classes: int,
        compared_blocks: int,
    ) -> None:
        super().__init__()
        self.features = nn.ModuleDict({str(number): part for number, part in enumerate(parts, start=1)})
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes))
        self.compared_blocks = compared_blocks
        _initialise(self)

    def forward(self, stem_output: Tensor) -> Outputs:
        """Return logits [B, K] and the last compared blocks' maps, each [B, C_b, H_b, W_b]."""
        features = []
        x = stem_output
        for number, part in enumerate(self.features.values(), start=1):
            x = part(x)
            if number in LAST_OF_BLOCKS:
                features.append(x)
        return self.classifier(x.mean(dim=(2, 3))), tuple(features[-self.compared_blocks :])


@dataclass(frozen=True)
class EfficientNet(WithOwnWidths):
    """A network of the family.

    Args:
        width: Multiplier of the channels, which are then rounded to multiples of 8.
        depth: Multiplier of each stage's layers, which are then rounded up.
        dropout: Dropout in front of the head.
        norm: Batch norm with the statistics' decay that the network was trained with.
    """

    width: float
    depth: float
    dropout: float
    norm: Norm = nn.BatchNorm2d
    stems: tuple[architecture.Stem, ...] = ("imagenet", "small")
    smallest_widths: tuple[int, ...] = (1,) * len(NOMINAL_CHANNELS)
    draws_random_numbers: bool = True

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of S1."""
        return self.narrowed_widths(Fraction(1), BLOCKS)

    @property
    def stem_channels(self) -> int:
        """Channels of the stem's output."""
        return _rounded(STEM_CHANNELS, self.width)

    def narrowed_widths(self, width: Fraction, narrow_blocks: int) -> tuple[int, ...]:
        """Return the channels of a student whose multiplier is this share of S1's."""
        narrow = self.width * width.numerator / width.denominator
        return tuple(
            _rounded(channels, self.width if block < BLOCKS - narrow_blocks else narrow)
            for channels, block in zip(NOMINAL_CHANNELS, BLOCK_OF_WIDTH, strict=True)
        )

    def feature_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return the channels of stages 3 and 5 and of the final convolution."""
        first, second, third = (widths[number - 1] for number in LAST_OF_BLOCKS)
        return first, second, third

    def build_stem(self, in_channels: int, stem: architecture.Stem) -> nn.Module:
        """Build images [B, C, H, W] → the first convolution's output: H / 2, or H where the stem is small."""
        stride = 2 if stem == "imagenet" else 1
        module = nn.Sequential()
        module.features = nn.Sequential(self._convolution(in_channels, self.stem_channels, 3, stride))
        _initialise(module)
        return module

    def build_branch(self, widths: Sequence[int], *, num_classes: int, compared_blocks: int) -> nn.Module:
        """Build the first convolution's output → logits [B, K] and maps."""
        layers = [MBConvConfig.adjust_depth(stage.layers, self.depth) for stage in STAGES]
        parts: list[nn.Module] = []
        channels = self.stem_channels
        for number, (stage, width) in enumerate(zip(STAGES, widths[:-1], strict=True)):
            units = []
            for layer in range(layers[number]):
                skipped = STOCHASTIC_DEPTH * (sum(layers[:number]) + layer) / sum(layers)
                stride = stage.stride if layer == 0 else 1
                units.append(_unit(stage, channels, width, stride=stride, skipped=skipped, norm=self.norm))
                channels = width
            parts.append(nn.Sequential(*units))
        parts.append(self._convolution(channels, widths[-1], 1, 1))
        return Branch(
            parts,
            widths[-1],
            dropout=self.dropout,
            num_classes=num_classes,
            compared_blocks=compared_blocks,
        )

    def _convolution(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
        module: nn.Module = Conv2dNormActivation(
            in_channels, out_channels, kernel_size, stride, norm_layer=self.norm, activation_layer=nn.SiLU
        )
        return module


def _unit(
    stage: Stage, in_channels: int, out_channels: int, *, stride: int, skipped: float, norm: Norm
) -> MBConv:
    config = MBConvConfig(stage.expand_ratio, stage.kernel_size, stride, in_channels, out_channels, 1)
    # The constructor rounds to multiples of 8, and a description may hold other channels.
    config.input_channels, config.out_channels = in_channels, out_channels
    return MBConv(config, skipped, norm)


def _rounded(channels: int, width: float) -> int:
    return int(MBConvConfig.adjust_channels(channels, width))


def _initialise(module: nn.Module) -> None:
    """Draw the weights as torchvision does: He's normal distribution for a layer's own fan-out."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            bound = 1.0 / math.sqrt(part.out_features)
            nn.init.uniform_(part.weight, -bound, bound)
            nn.init.zeros_(part.bias)


_SLOW_NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
ARCHITECTURES = {
    "efficientnet_b0": EfficientNet(width=1.0, depth=1.0, dropout=0.2),
    "efficientnet_b1": EfficientNet(width=1.0, depth=1.1, dropout=0.2),
    "efficientnet_b2": EfficientNet(width=1.1, depth=1.2, dropout=0.3),
    "efficientnet_b3": EfficientNet(width=1.2, depth=1.4, dropout=0.3),
    "efficientnet_b4": EfficientNet(width=1.4, depth=1.8, dropout=0.4),
    "efficientnet_b5": EfficientNet(width=1.6, depth=2.2, dropout=0.4, norm=_SLOW_NORM),
    "efficientnet_b6": EfficientNet(width=1.8, depth=2.6, dropout=0.5, norm=_SLOW_NORM),
    "efficientnet_b7": EfficientNet(width=2.0, depth=3.1, dropout=0.5, norm=_SLOW_NORM),
}
