"""Random turns, crops and flips, drawn for a whole epoch at once and applied to a batch in one gather.

Shapes: n images, B batch, H height, W width, C channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from codistill.randomness import derive_seed


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Zero padding, a random turn, a random crop back to size, and mirroring; each image has its own draws.

    Args:
        crop_padding: Pixels added on every side before the crop; 0 for no crop.
        horizontal_flip: Whether half of the images are mirrored.
        rotation: Degrees up to which the padded image is turned about its centre, either way.
    """

    crop_padding: int
    horizontal_flip: bool
    rotation: float = 0.0

    def draw(self, count: int, *, seed: int, epoch: int) -> "EpochDraws":
        """Draw for all of `count` images, a function of seed, epoch and position alone."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", epoch))
        offsets = torch.randint(0, 2 * self.crop_padding + 1, (2, count), generator=generator)
        flips = torch.rand(count, generator=generator) < 0.5
        angles = None
        if self.rotation:
            angles = (torch.rand(count, generator=generator, dtype=torch.float64) * 2 - 1) * self.rotation
        return EpochDraws(self.crop_padding, offsets[0], offsets[1], flips & self.horizontal_flip, angles)


@dataclass(frozen=True)
class EpochDraws:
    """One epoch's draws: for each image its crop's first row and column, whether it is mirrored, its turn.

    `angles` are degrees clockwise, float64 [n]; `None` where nothing is turned.
    """

    crop_padding: int
    rows: Tensor
    columns: Tensor
    flips: Tensor
    angles: Tensor | None = None

    def apply(self, images_BHWC: Tensor, positions: Tensor) -> Tensor:
        """Return uint8 [B, H, W, C], turned, cropped and mirrored as drawn for the images at `positions`.

        A turned pixel is the nearest one of the image, or zero where that lies outside.
        """
        device = images_BHWC.device
        batch, height, width, _ = images_BHWC.shape
        padding = self.crop_padding
        padded = F.pad(images_BHWC, (0, 0, padding, padding, padding, padding))
        rows_BH = self.rows[positions, None].to(device) + torch.arange(height, device=device)
        steps_W = torch.arange(width, device=device)
        mirrored_BW = torch.where(self.flips[positions, None].to(device), width - 1 - steps_W, steps_W)
        columns_BW = self.columns[positions, None].to(device) + mirrored_BW
        images = torch.arange(batch, device=device)[:, None, None]
        rows_BHW, columns_BHW = rows_BH[:, :, None], columns_BW[:, None, :]
        if self.angles is None:
            return padded[images, rows_BHW, columns_BHW]
        turns_B = torch.deg2rad(self.angles[positions]).to(device)[:, None, None]
        height, width = padded.shape[1:3]
        # Where a pixel comes from is its place turned back about the centre.
        down, right = rows_BHW - (height - 1) / 2, columns_BHW - (width - 1) / 2
        from_rows = (down * turns_B.cos() - right * turns_B.sin() + (height - 1) / 2).round().long()
        from_columns = (down * turns_B.sin() + right * turns_B.cos() + (width - 1) / 2).round().long()
        inside = (from_rows >= 0) & (from_rows < height) & (from_columns >= 0) & (from_columns < width)
        turned = padded[images, from_rows.clamp(0, height - 1), from_columns.clamp(0, width - 1)]
        return turned * inside[..., None]
