"""ResNet, ResNeXt and Wide ResNet of torchvision's blocks, cut after layer1.

Sources: He et al. 2016, table 1; Xie et al. 2017, table 1; Zagoruyko and Komodakis 2016.

Modules are called as in torchvision, so its weights fit S1 by name. A student's widths are the `planes` of
layer2 … layer4, from which torchvision's blocks find their inner and outer channels.

Shapes: B batch, C channels, H height, W width, K classes.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from codistill.models import architecture
from codistill.models.architecture import Outputs, WithOwnWidths, narrowed_blocks
from codistill.models.slices import Kept, firsts

STEM_CHANNELS = 64
STEM_PLANES = 64
BLOCK_PLANES = (128, 256, 512)


class Branch(nn.Module):
    """Everything behind layer1: layer2 … layer4, pooling and a linear head.

    Args:
        layers: The three layers.
        channels: Channels of the last one's output.
        num_classes: K.
        compared_blocks: How many feature maps are returned, counted from the last layer.
    """

    def __init__(
        self, layers: Sequence[nn.Module], channels: int, *, num_classes: int, compared_blocks: int
    ) -> None:
        super().__init__()
        self.layer2, self.layer3, self.layer4 = layers
        self.fc = nn.Linear(channels, num_classes)
        self.compared_blocks = compared_blocks
        _initialise(self)

    def forward(self, stem_output: Tensor) -> Outputs:
        """Return logits [B, K] and the last compared layers' maps, each [B, C_b, H_b, W_b]."""
        second = self.layer2(stem_output)
        third = self.layer3(second)
        fourth = self.layer4(third)
        return self.fc(fourth.mean(dim=(2, 3))), (second, third, fourth)[-self.compared_blocks :]


@dataclass(frozen=True)
class ResNet(WithOwnWidths):
    """A network of torchvision's residual blocks.

    Args:
        block: BasicBlock or Bottleneck.
        units: Blocks of layer1 … layer4.
        groups: Groups of the 3×3 convolutions.
        width_per_group: Channels of a group where planes are 64.
    """

    block: type[BasicBlock] | type[Bottleneck]
    units: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64
    widths: tuple[int, ...] = BLOCK_PLANES
    stems: tuple[architecture.Stem, ...] = ("imagenet", "small")
    draws_random_numbers: bool = False

    @property
    def smallest_widths(self) -> tuple[int, ...]:
        """The planes that leave each group one channel."""
        return (-(-64 // self.width_per_group),) * len(self.widths)

    def narrowed_widths(self, width: Fraction, narrow_blocks: int) -> tuple[int, ...]:
        """Return the planes of a student that has this share of the channels."""
        return narrowed_blocks(self.widths, width, narrow_blocks)

    def feature_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return the channels that layer2 … layer4 give."""
        second, third, fourth = (self.block.expansion * planes for planes in widths)
        return second, third, fourth

    def build_stem(self, in_channels: int, stem: architecture.Stem) -> nn.Module:
        """Build images [B, C, H, W] → layer1's output: H / 4, or H where the stem is small."""
        parts: list[tuple[str, nn.Module]] = [
            ("conv1", _first_convolution(in_channels, stem)),
            ("bn1", nn.BatchNorm2d(STEM_CHANNELS)),
            ("relu", nn.ReLU(inplace=True)),
        ]
        if stem == "imagenet":
            parts.append(("maxpool", nn.MaxPool2d(3, stride=2, padding=1)))
        parts.append(("layer1", self._layer(STEM_CHANNELS, STEM_PLANES, self.units[0], stride=1)))
        module = nn.Sequential(OrderedDict(parts))
        _initialise(module)
        return module

    def build_branch(self, widths: Sequence[int], *, num_classes: int, compared_blocks: int) -> nn.Module:
        """Build layer1's output → logits [B, K] and maps."""
        channels = STEM_PLANES * self.block.expansion
        layers = []
        for planes, units in zip(widths, self.units[1:], strict=True):
            layers.append(self._layer(channels, planes, units, stride=2))
            channels = planes * self.block.expansion
        return Branch(layers, channels, num_classes=num_classes, compared_blocks=compared_blocks)

    def kept_channels(self, widths: Sequence[int]) -> Kept:
        """Return which channels each layer keeps: in a bottleneck the first of each group."""

        def kept(name: str, dim: int) -> list[int] | None:
            found = re.match(r"layer(\d)\.\d+\.(?:(conv1|bn1|conv2|bn2)|(conv3))\.", name)
            if self.groups == 1 or not found or dim != (1 if found[3] else 0):
                return None
            block = int(found[1]) - 2
            wide, narrow = (
                planes * self.width_per_group // 64 for planes in (self.widths[block], widths[block])
            )
            return firsts([wide] * self.groups, [narrow] * self.groups)

        return kept

    def _layer(self, in_channels: int, planes: int, units: int, *, stride: int) -> nn.Sequential:
        out_channels = planes * self.block.expansion
        shortcut = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        grouped = {"groups": self.groups, "base_width": self.width_per_group}
        first = self.block(in_channels, planes, stride, shortcut, **grouped)
        return nn.Sequential(first, *(self.block(out_channels, planes, **grouped) for _ in range(units - 1)))


def _first_convolution(in_channels: int, stem: architecture.Stem) -> nn.Conv2d:
    if stem == "small":
        return nn.Conv2d(in_channels, STEM_CHANNELS, 3, padding=1, bias=False)
    return nn.Conv2d(in_channels, STEM_CHANNELS, 7, stride=2, padding=3, bias=False)


def _initialise(module: nn.Module) -> None:
    """Draw the weights as torchvision does: He's normal distribution for a layer's own fan-out."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


ARCHITECTURES = {
    "resnet18": ResNet(BasicBlock, (2, 2, 2, 2)),
    "resnet34": ResNet(BasicBlock, (3, 4, 6, 3)),
    "resnet50": ResNet(Bottleneck, (3, 4, 6, 3)),
    "resnet101": ResNet(Bottleneck, (3, 4, 23, 3)),
    "resnet152": ResNet(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": ResNet(Bottleneck, (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": ResNet(Bottleneck, (3, 4, 23, 3), groups=32, width_per_group=8),
    "wide_resnet50_2": ResNet(Bottleneck, (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": ResNet(Bottleneck, (3, 4, 23, 3), width_per_group=128),
}
