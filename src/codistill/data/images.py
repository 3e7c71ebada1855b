"""Where a batch of images comes from: memory, or files read by workers while the step runs.

Shapes: n images, B of a batch, H height, W width, C channels (1 grey, 3 red-green-blue).
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from codistill.errors import InputError


class Images(Protocol):
    """Images of one size, fetched in batches by their positions."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""

    def __len__(self) -> int:
        """Count the images."""

    def batches(self, positions: Sequence[Tensor], workers: int) -> Iterator[Tensor]:
        """Yield for each int64 tensor of positions the images there, uint8 [B, H, W, C], in order."""


class MemoryImages:
    """Images held as one uint8 tensor [n, H, W, C].

    Args:
        images_NHWC: The images as they are.
        size: Height and width to which each batch is scaled; none: as they are.
    """

    def __init__(self, images_NHWC: Tensor, size: int | None = None) -> None:
        self.images_NHWC = images_NHWC
        self.size = size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.images_NHWC.shape[1:]
        return (height, width, channels) if self.size is None else (self.size, self.size, channels)

    def to(self, device: torch.device | None) -> "MemoryImages":
        """Return the images on a device."""
        return MemoryImages(self.images_NHWC.to(device), self.size)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images_NHWC)

    def batches(self, positions: Sequence[Tensor], workers: int = 0) -> Iterator[Tensor]:
        """Yield for each int64 tensor of positions the images there, uint8 [B, H, W, C], in order."""
        del workers  # Nothing is left to read.
        for batch in positions:
            images_BHWC = self.images_NHWC[batch.to(self.images_NHWC.device)]
            yield images_BHWC if self.size is None else scaled(images_BHWC, self.size)


def scaled(images_BHWC: Tensor, size: int) -> Tensor:
    """Return uint8 [B, H, W, C] scaled to squares (bilinear, antialiased), as pictures are when decoded."""
    images_BCHW = images_BHWC.permute(0, 3, 1, 2)
    result = F.interpolate(images_BCHW.float(), (size, size), mode="bilinear", antialias=True)
    return result.round().clamp(0, 255).byte().permute(0, 2, 3, 1)


@dataclass(frozen=True)
class _ReadByPosition(Dataset[Tensor | InputError]):
    read: Callable[[int], np.ndarray]

    def __getitem__(self, position: int) -> Tensor | InputError:
        # A worker that raises turns the message into a page of traceback: hand the error over as a value.
        try:
            return torch.from_numpy(self.read(position))
        except InputError as error:
            return error


def _stacked(images: list[Tensor | InputError]) -> Tensor | InputError:
    for image in images:
        if isinstance(image, InputError):
            return image
    return torch.stack([image for image in images if isinstance(image, Tensor)])


def _leave_signals_to_the_main_process(worker: int) -> None:
    # Ctrl-C, and what ends a job, reach all processes; it is the main one that finishes the step and saves.
    # Workers end when it tells them to, or when it is gone.
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class StreamedImages:
    """Images read one by one when they are needed.

    `read` returns the uint8 array [H, W, C] at a position or raises `InputError`; it must be picklable,
    since workers may be started afresh.
    """

    def __init__(
        self, read: Callable[[int], np.ndarray], count: int, image_shape: tuple[int, int, int]
    ) -> None:
        self.read = read
        self.count = count
        self.image_shape = image_shape

    def __len__(self) -> int:
        """Count the images."""
        return self.count

    def batches(self, positions: Sequence[Tensor], workers: int) -> Iterator[Tensor]:
        """Yield for each int64 tensor of positions the images there, uint8 [B, H, W, C], in order."""
        loader = DataLoader(
            _ReadByPosition(self.read),
            batch_sampler=[batch.tolist() for batch in positions],
            num_workers=min(workers, _cores()),
            collate_fn=_stacked,
            generator=torch.Generator(),  # Else it would draw from the one that the students may use.
            worker_init_fn=_leave_signals_to_the_main_process,
        )
        for images in loader:
            if isinstance(images, InputError):
                raise images
            yield images


def _cores() -> int:
    """Count the cores that this process may use; with more workers than these nothing is faster."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images and their classes, int64 [n], counted from 0."""

    images: Images
    labels: Tensor

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class SourceData:
    """What a source holds: images to train on, images to report on, and the names of the classes."""

    train: LabelledImages
    test: LabelledImages
    classes: tuple[str, ...]
