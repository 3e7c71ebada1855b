"""DenseNet-121, 169 and 201 (Huang et al. 2017, table 1) of torchvision's blocks, cut after transition 1.

Modules are called as in torchvision, so its weights fit S1 by name. A student's widths are the growth rates
of dense blocks 2 … 4. Where to cut is ours: the paper does not say.

Shapes: B batch, C channels, H height, W width, K classes.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.densenet import _DenseBlock, _Transition

from codistill.models import architecture
from codistill.models.architecture import BLOCKS, Outputs, WithOwnWidths, narrowed_blocks
from codistill.models.slices import Kept, firsts

FIRST_CHANNELS = 64
GROWTH_RATE = 32
BOTTLENECK = 4
LAYERS_OF_BLOCK_1 = 6
STEM_CHANNELS = (FIRST_CHANNELS + LAYERS_OF_BLOCK_1 * GROWTH_RATE) // 2


class Branch(nn.Module):
    """Everything behind transition 1: dense blocks 2 … 4 with their transitions, pooling and a head.

    Args:
        layers: Layers of the three dense blocks.
        growth_rates: Their growth rates.
        num_classes: K.
        compared_blocks: How many feature maps are returned, counted from the last block.
    """

    def __init__(
        self, *, layers: Sequence[int], growth_rates: Sequence[int], num_classes: int, compared_blocks: int
    ) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {}
        channels = STEM_CHANNELS
        for number, count, growth_rate in zip((2, 3, 4), layers, growth_rates, strict=True):
            parts[f"denseblock{number}"] = _dense_block(count, channels, growth_rate)
            channels += count * growth_rate
            if number < 4:
                parts[f"transition{number}"] = _Transition(channels, channels // 2)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.ModuleDict(parts)
        self.classifier = nn.Linear(channels, num_classes)
        self.compared_blocks = compared_blocks
        _initialise(self)

    def forward(self, stem_output: Tensor) -> Outputs:
        """Return logits [B, K] and the last compared blocks' maps, each [B, C_b, H_b, W_b]."""
        parts = self.features
        second = parts["transition2"](parts["denseblock2"](stem_output))
        third = parts["transition3"](parts["denseblock3"](second))
        fourth = parts["denseblock4"](third)
        pooled = F.relu(parts["norm5"](fourth), inplace=True).mean(dim=(2, 3))
        return self.classifier(pooled), (second, third, fourth)[-self.compared_blocks :]


@dataclass(frozen=True)
class DenseNet(WithOwnWidths):
    """A DenseNet with so many layers in dense blocks 2 … 4."""

    layers: tuple[int, int, int]
    widths: tuple[int, ...] = (GROWTH_RATE,) * 3
    smallest_widths: tuple[int, ...] = (1, 1, 1)
    stems: tuple[architecture.Stem, ...] = ("imagenet", "small")
    draws_random_numbers: bool = False

    def narrowed_widths(self, width: Fraction, narrow_blocks: int) -> tuple[int, ...]:
        """Return the growth rates of a student that has this share of the channels."""
        return narrowed_blocks(self.widths, width, narrow_blocks)

    def feature_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return the channels of the three blocks' maps, behind the transition where there is one."""
        second = (STEM_CHANNELS + self.layers[0] * widths[0]) // 2
        third = (second + self.layers[1] * widths[1]) // 2
        return second, third, third + self.layers[2] * widths[2]

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
            found = re.fullmatch(
                r"features\.(denseblock|transition)(\d)(?:\.denselayer(\d+))?\.(norm|conv)1?\.\w+", name
            )
            if found and (found[4] == "norm" or dim == 1):
                block = int(found[2]) - 2
                return concatenated(block, int(found[3]) - 1 if found[3] else self.layers[block])
            if name.startswith("features.norm5") or (name == "classifier.weight" and dim == 1):
                return concatenated(BLOCKS - 1, self.layers[-1])
            return None

        return kept

    def _input_channels(self, widths: Sequence[int]) -> tuple[int, int, int]:
        """Return the channels that dense blocks 2 … 4 take."""
        second, third, _ = self.feature_channels(widths)
        return STEM_CHANNELS, second, third

    def build_stem(self, in_channels: int, stem: architecture.Stem) -> nn.Module:
        """Build images [B, C, H, W] → transition 1's output: H / 8, or H / 2 where the stem is small."""
        kernel_size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        parts: list[tuple[str, nn.Module]] = [
            (
                "conv0",
                nn.Conv2d(in_channels, FIRST_CHANNELS, kernel_size, stride, kernel_size // 2, bias=False),
            ),
            ("norm0", nn.BatchNorm2d(FIRST_CHANNELS)),
            ("relu0", nn.ReLU(inplace=True)),
        ]
        if stem == "imagenet":
            parts.append(("pool0", nn.MaxPool2d(3, stride=2, padding=1)))
        parts.append(("denseblock1", _dense_block(LAYERS_OF_BLOCK_1, FIRST_CHANNELS, GROWTH_RATE)))
        parts.append(("transition1", _Transition(2 * STEM_CHANNELS, STEM_CHANNELS)))
        module = nn.Sequential(OrderedDict([("features", nn.Sequential(OrderedDict(parts)))]))
        _initialise(module)
        return module

    def build_branch(self, widths: Sequence[int], *, num_classes: int, compared_blocks: int) -> nn.Module:
        """Build transition 1's output → logits [B, K] and maps."""
        return Branch(
            layers=self.layers,
            growth_rates=widths,
            num_classes=num_classes,
            compared_blocks=compared_blocks,
        )


def _dense_block(layers: int, in_channels: int, growth_rate: int) -> nn.Module:
    block: nn.Module = _DenseBlock(
        layers, in_channels, bn_size=BOTTLENECK, growth_rate=growth_rate, drop_rate=0.0
    )
    return block


def _initialise(module: nn.Module) -> None:
    """Draw the weights as torchvision does: He's normal distribution for a layer's own fan-in."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
        elif isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


ARCHITECTURES = {
    "densenet121": DenseNet((12, 24, 16)),
    "densenet169": DenseNet((12, 32, 32)),
    "densenet201": DenseNet((12, 48, 32)),
}
