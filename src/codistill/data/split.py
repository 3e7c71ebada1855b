"""The validation split: per class, seeded, apart from everything else that is random."""

import torch
from torch import Tensor

from codistill.randomness import derive_seed


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split positions 0 … n - 1 into (rest, held out), both ascending.

    Of each class `fraction` of the images, rounded, is held out, but never its last one.

    Args:
        labels: Class of each image, int64 [n].
        fraction: Share held out, 0 to below 1.
        seed: Seed of the draw.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        of_class = (labels == label).nonzero().flatten()
        count = min(round(len(of_class) * fraction), len(of_class) - 1)
        held_out[of_class[torch.randperm(len(of_class), generator=generator)[:count]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
