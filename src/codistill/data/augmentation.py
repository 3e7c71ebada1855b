"""Random crops and flips, drawn for a whole epoch at once and applied to a batch in one gather.

Shapes: n images, B batch, H height, W width, C channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from codistill.randomness import derive_seed


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Zero padding with a random crop back to size, and mirroring; each image has draws of its own.

    Args:
        crop_padding: Pixels added on every side before the crop; 0 for no crop.
        horizontal_flip: Whether half of the images are mirrored.
    """

    crop_padding: int
    horizontal_flip: bool

    def draw(self, count: int, *, seed: int, epoch: int) -> "EpochDraws":
        """Draw offsets and flips for all of `count` images, a function of seed, epoch and position alone."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", epoch))
        offsets = torch.randint(0, 2 * self.crop_padding + 1, (2, count), generator=generator)
        flips = torch.rand(count, generator=generator) < 0.5
        return EpochDraws(self.crop_padding, offsets[0], offsets[1], flips & self.horizontal_flip)


@dataclass(frozen=True)
class EpochDraws:
    """One epoch's draws: for each image its crop's first row and column, and whether it is mirrored."""

    crop_padding: int
    rows: Tensor
    columns: Tensor
    flips: Tensor

    def apply(self, images_BHWC: Tensor, positions: Tensor) -> Tensor:
        """Return uint8 [B, H, W, C], cropped and mirrored as drawn for the images at `positions`."""
        device = images_BHWC.device
        batch, height, width, _ = images_BHWC.shape
        padding = self.crop_padding
        padded = F.pad(images_BHWC, (0, 0, padding, padding, padding, padding))
        rows_BH = self.rows[positions, None].to(device) + torch.arange(height, device=device)
        steps_W = torch.arange(width, device=device)
        mirrored_BW = torch.where(self.flips[positions, None].to(device), width - 1 - steps_W, steps_W)
        columns_BW = self.columns[positions, None].to(device) + mirrored_BW
        images = torch.arange(batch, device=device)[:, None, None]
        return padded[images, rows_BH[:, :, None], columns_BW[:, None, :]]
