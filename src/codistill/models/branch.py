"""A network of any kind, cut into its stem and what stands behind it.

A student is a network with the end of its stem replaced by a tap, into which the shared stem's output is
put. Where a student's own layers begin with the stem's channels, as along a residual stream, it takes the
slice of them that its narrow stem would give.

Shapes: B batch, C channels, H height, W width, K classes, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from codistill.models.architecture import Outputs


@dataclass(frozen=True)
class Cut:
    """How a network outside the catalog is built and cut.

    Args:
        image_size: H and W.
        stem: The modules that make the stem, in the order in which they run.
        blocks: The modules that end the three blocks.
        min_channels: Fewest channels that narrowing leaves a layer.
    """

    image_size: tuple[int, int]
    stem: tuple[str, ...]
    blocks: tuple[str, ...]
    min_channels: int = 1


class Tap(nn.Module):
    """Stands where a network's stem ended, and gives what was put into it instead."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor | None = None

    def forward(self, *_: Any) -> Tensor:
        """Return the shared stem's output."""
        assert self.value is not None
        return self.value


class Stem(nn.ModuleList):
    """The stem of a network: its modules, one after another."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the stem's output for images [B, C, H, W]."""
        for module in self:
            x = module(x)
        return x


class Branch(nn.Module):
    """A network from its stem's end on.

    Args:
        network: The whole network; its stem is taken out.
        cut: Where.
        in_channels: C of the images.
        taken: Which of the stem's channels the network takes.
        channel_dims: Dimension of the channels in the three blocks' outputs.
        compared_blocks: How many feature maps are returned, counted from the last block.
    """

    def __init__(
        self,
        network: nn.Module,
        cut: Cut,
        *,
        in_channels: int,
        taken: "Taken",
        channel_dims: Sequence[int],
        compared_blocks: int,
    ) -> None:
        super().__init__()
        for name in cut.stem:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, nn.Identity())
        self.network = network
        self.taken = taken
        self.image_shape = (in_channels, *cut.image_size)
        self.channel_dims = tuple(channel_dims[-compared_blocks:])
        self._tap = (cut.stem[-1].rpartition(".")[0], cut.stem[-1].rpartition(".")[2])
        setattr(network.get_submodule(self._tap[0]), self._tap[1], Tap())
        self._maps: dict[int, Tensor] = {}
        for number, name in enumerate(cut.blocks[-compared_blocks:]):
            network.get_submodule(name).register_forward_hook(Keep(self._maps, number))

    @property
    def tap(self) -> Tap:
        """Where the stem's output goes in."""
        tap = getattr(self.network.get_submodule(self._tap[0]), self._tap[1])
        assert isinstance(tap, Tap)
        return tap

    def forward(self, stem_output: Tensor) -> Outputs:
        """Return logits [B, K] and the last compared blocks' maps, each [B, C_b, H_b, W_b]."""
        self.tap.value = self.taken(stem_output)
        # What the network believes to be its images; it holds no memory.
        images = stem_output.new_zeros(()).expand(len(stem_output), *self.image_shape)
        try:
            logits = self.network(images)
            maps = tuple(
                channels_first(self._maps[number], dim) for number, dim in enumerate(self.channel_dims)
            )
        finally:
            self.tap.value = None
            self._maps.clear()
        return logits, maps


class Keep:
    """A hook that keeps a block's map where the branch finds it."""

    def __init__(self, maps: dict[int, Tensor], number: int) -> None:
        self.maps = maps
        self.number = number

    def __call__(self, _: nn.Module, inputs: Any, output: Tensor) -> None:
        """Keep the map."""
        self.maps[self.number] = output


@dataclass(frozen=True)
class Taken:
    """Which of the stem's channels a student takes: the first of each of some equal parts.

    Args:
        dim: Dimension of the channels.
        parts: How many parts there are.
        first: Channels taken of each; none: all.
    """

    dim: int
    parts: int = 1
    first: int | None = None

    def __call__(self, stem_output: Tensor) -> Tensor:
        """Return the channels of the stem's output that are taken."""
        if self.first is None:
            return stem_output
        if self.parts == 1:
            return stem_output.narrow(self.dim, 0, self.first)
        split: Tensor = stem_output.unflatten(self.dim, (self.parts, -1))
        return split.narrow(self.dim + 1, 0, self.first).flatten(self.dim, self.dim + 1)


def channels_first(features: Tensor, dim: int) -> Tensor:
    """Return a map [B, …] with channels at `dim` as [B, C, H, W]; tokens [B, T, C] as [B, C, T, 1]."""
    moved = features.movedim(dim, 1)
    return moved.reshape(*moved.shape[:2], *(moved.shape[2:] if moved.ndim == 4 else (-1, 1)))


def stem_of(network: nn.Module, cut: Cut) -> Stem:
    """Return a network's stem, whose modules are its own."""
    return Stem([network.get_submodule(name) for name in cut.stem])
