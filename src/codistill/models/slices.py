"""A narrow student's weights as slices of the wide network's: the channels that narrowing keeps.

They are the first channels of every layer, of each group of a grouped convolution, and of each part of what
is concatenated.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Kept = Callable[[str, int], Sequence[int] | None]
"""From a tensor's name and dimension to the wide network's channels that are kept; none: the first."""


def sliced(wide: Mapping[str, Tensor], narrow: Mapping[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    """Return the slices of the wide network's tensors that have the narrow one's names and shapes."""
    state = {}
    for name, like in narrow.items():
        tensor = wide[name]
        for dim, size in enumerate(like.shape):
            if tensor.shape[dim] != size:
                channels = kept(name, dim)
                chosen = torch.tensor(range(size) if channels is None else channels)
                tensor = tensor.index_select(dim, chosen)
        state[name] = tensor.clone()
    return state


def firsts(wide: Sequence[int], narrow: Sequence[int]) -> list[int]:
    """Return the first channels of each of several parts that stand one behind the other."""
    chosen: list[int] = []
    start = 0
    for size, kept in zip(wide, narrow, strict=True):
        chosen += range(start, start + kept)
        start += size
    return chosen


def first_channels(name: str, dim: int) -> None:
    """Say that a layer keeps its first channels, whichever it is."""
