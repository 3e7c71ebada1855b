"""From an image's bytes to what a network takes: plain data that travels with every delivered model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from codistill.data.images import Images
from codistill.errors import InputError

STATISTICS_SAMPLE = 20_000
PIXELS_AT_ONCE = 5_000_000


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a model expects: the size of its images and what is done to their pixels.

    Args:
        height: Pixels.
        width: Pixels.
        channels: 1 grey, 3 red-green-blue.
        mean: Subtracted per channel from pixels in 0 … 1.
        std: What the difference is divided by, per channel.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images_BHWC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return normalised images [B, C, H, W], channels last in memory, for uint8 [B, H, W, C].

        Grey images are taken as colour ones with three equal channels where the model wants these.
        """
        device = images_BHWC.device
        images_BHWC = images_BHWC.expand(*images_BHWC.shape[:3], self.channels)
        scale = 1 / (255 * torch.tensor(self.std, dtype=torch.float64))
        shift = torch.tensor(self.mean, dtype=torch.float64) * 255 * scale
        normalised = images_BHWC.to(dtype) * scale.to(device, dtype) - shift.to(device, dtype)
        return normalised.permute(0, 3, 1, 2)

    def as_dict(self) -> dict[str, Any]:
        """Return the preprocessing as JSON has it."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """Return the preprocessing that `as_dict` gave; raises `InputError` if it is none."""
        sizes: dict[str, Any] = {name: data.get(name) for name in ("height", "width", "channels")}
        for name, size in sizes.items():
            if type(size) is not int or not 1 <= size <= 100_000:
                raise InputError(f"{name} must be a whole number above 0, not {size!r}")
        statistics: dict[str, Any] = {name: data.get(name) for name in ("mean", "std")}
        for name, values in statistics.items():
            if (
                not isinstance(values, list)
                or len(values) != sizes["channels"]
                or not all(type(value) in (int, float) and abs(value) <= 1e6 for value in values)
                or (name == "std" and min(values) <= 0)
            ):
                raise InputError(f"{name} must be {sizes['channels']} numbers, one a channel, not {values!r}")
        return cls(**sizes, mean=tuple(statistics["mean"]), std=tuple(statistics["std"]))


def fit_preprocessing(
    images: Images,
    positions: Tensor,
    *,
    normalize: bool,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    channels: int | None = None,
    workers: int = 0,
) -> Preprocessing:
    """Return the preprocessing with the mean and deviation given, or with those of the images at `positions`.

    Of more than 20,000 images 10,000 to 20,000, evenly spread, are measured.

    Args:
        images: Images of one size.
        positions: Which of them are trained on.
        normalize: False leaves the pixels in 0 … 1.
        mean: Per channel that networks take, with `std`; none: measured.
        std: As `mean`.
        channels: What networks take, three for grey images as colour ones; none: the images' own.
        workers: Processes that read images which are not in memory.
    """
    height, width, measured_channels = images.image_shape
    channels = channels or measured_channels
    if not normalize:
        mean, std = (0.0,) * channels, (1.0,) * channels
    elif mean is None or std is None:
        stride = max(1, -(-len(positions) // STATISTICS_SAMPLE))
        batches = positions[::stride].split(max(1, PIXELS_AT_ONCE // (height * width)))
        counts_CV = torch.zeros(measured_channels, 256, dtype=torch.int64)
        for batch in images.batches(batches, workers):
            for channel in range(measured_channels):
                values = batch[..., channel].flatten().cpu().int()
                counts_CV[channel] += torch.bincount(values, minlength=256)
        share_CV = counts_CV.double() / counts_CV.sum(dim=1, keepdim=True)
        values_V = torch.arange(256, dtype=torch.float64) / 255
        means_C = share_CV @ values_V
        deviations_C = (share_CV * (values_V - means_C[:, None]).square()).sum(dim=1).sqrt()
        repeats = channels // measured_channels
        mean = tuple(round(value, 4) for value in means_C.tolist()) * repeats
        # A channel without any variation is shifted only.
        std = tuple(round(value, 4) if value >= 1e-4 else 1.0 for value in deviations_C.tolist()) * repeats
    return Preprocessing(height=height, width=width, channels=channels, mean=mean, std=std)
