"""Networks and batches small enough that a test of them takes milliseconds."""

import torch
from torch import Tensor

from codistill.models.catalog import StudentDescription
from codistill.models.ensemble import Ensemble

CLASSES = 4


def described(*widths: int, compared_blocks: int = 3, in_channels: int = 1) -> StudentDescription:
    return StudentDescription(
        architecture="cifar_resnet20",
        in_channels=in_channels,
        num_classes=CLASSES,
        widths=widths,
        compared_blocks=compared_blocks,
    )


WIDTHS = {"S1": (6, 8, 10), "S2": (4, 5, 6), "S3": (2, 3, 3)}


def tiny_ensemble(
    names: tuple[str, ...] = ("S1", "S2", "S3"), *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Ensemble:
    descriptions = {name: described(*WIDTHS[name]) for name in names}
    return Ensemble(descriptions, seed=seed).to(dtype)


def tiny_batch(
    count: int = 6, *, size: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, size, size, generator=generator, dtype=dtype)
    return images, torch.randint(0, CLASSES, (count,), generator=generator)


def with_statistics(ensemble: Ensemble, seed: int = 0) -> Ensemble:
    """Give batch norm's running statistics values of their own, so that train and eval differ."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in ensemble.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return ensemble
