"""The batches of an epoch: a function of seed and epoch, whatever the timing, workers or processes.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codistill.config import DataConfig
from codistill.data.augmentation import Augmentation
from codistill.data.images import LabelledImages, MemoryImages
from codistill.data.preprocessing import Preprocessing, fit_preprocessing
from codistill.data.sources import load_source
from codistill.data.split import stratified_split
from codistill.errors import InputError
from codistill.randomness import derive_seed


class Batch(NamedTuple):
    """Normalised images [B, C, H, W] and their classes, int64 [B]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of every batch a process takes: images number `rank`, `rank + processes`, … of it."""

    rank: int = 0
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Data:
    """Everything a run reads: images to train on, to choose the best epoch by, and to report on.

    Args:
        train: All training images of the source.
        test: The images that are touched only to report.
        train_positions: Which of `train` are trained on.
        validation_positions: Which of `train` choose the best epoch; may be empty.
        classes: Their names.
        preprocessing: From bytes to what the networks take.
        augmentation: What is done to training images alone.
        workers: Processes that read images which are not in memory.
        evaluation_batch_size: Images that are validated or tested at once.
        shuffle: Whether the order is new in each epoch, or always that of the positions.
    """

    train: LabelledImages
    test: LabelledImages
    train_positions: Tensor
    validation_positions: Tensor
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    augmentation: Augmentation
    workers: int
    evaluation_batch_size: int = 250
    shuffle: bool = True

    def epoch(
        self,
        epoch: int,
        *,
        seed: int,
        batch_size: int,
        first: int = 0,
        share: Share = Share(),
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Iterator[Batch]:
        """Yield the training batches of one epoch, from batch number `first` on.

        The last batch holds what is left. A last batch of one image is joined to the one before: batch
        norm has no variance to take of a single value.
        """
        generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
        order = self.train_positions
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        draws = self.augmentation.draw(len(self.train), seed=seed, epoch=epoch)
        positions = [
            batch[share.rank :: share.processes]
            for batch in split_batches(order, batch_size, smallest=2 * share.processes)[first:]
        ]
        batches = self.train.images.batches(positions, self.workers)
        for images_BHWC, chosen in zip(batches, positions, strict=True):
            augmented = draws.apply(images_BHWC.to(device), chosen)
            yield Batch(self.preprocessing(augmented, dtype), self.train.labels[chosen].to(device))

    def validation_batches(self, device: torch.device, dtype: torch.dtype) -> Iterator[Batch]:
        """Yield the validation images in order, without augmentation."""
        return plain_batches(
            self.train,
            self.preprocessing,
            self.validation_positions,
            batch_size=self.evaluation_batch_size,
            workers=self.workers,
            device=device,
            dtype=dtype,
        )

    def test_batches(self, device: torch.device, dtype: torch.dtype) -> Iterator[Batch]:
        """Yield the test images in order, without augmentation."""
        return plain_batches(
            self.test,
            self.preprocessing,
            batch_size=self.evaluation_batch_size,
            workers=self.workers,
            device=device,
            dtype=dtype,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be the same when a run goes on: counts, classes and preprocessing."""
        return {
            "train_images": len(self.train_positions),
            "validation_images": len(self.validation_positions),
            "test_images": len(self.test),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.as_dict(),
        }

    def images_in_step(self, step: int, batch_size: int, steps: int) -> int:
        """Count the images that all processes see in a step of an epoch of so many steps."""
        return batch_size if step < steps - 1 else len(self.train_positions) - batch_size * (steps - 1)

    def batches_per_epoch(self, batch_size: int, processes: int = 1) -> int:
        """Count the steps of an epoch."""
        return len(split_batches(self.train_positions, batch_size, smallest=2 * processes))


def split_batches(positions: Tensor, batch_size: int, *, smallest: int) -> list[Tensor]:
    """Split positions into batches; a last one below `smallest` is joined to the one before."""
    batches = list(positions.split(min(batch_size, max(1, len(positions)))))
    if len(batches) > 1 and len(batches[-1]) < smallest:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def plain_batches(
    images: LabelledImages,
    preprocessing: Preprocessing,
    positions: Tensor | None = None,
    *,
    batch_size: int,
    workers: int = 0,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Batch]:
    """Yield images in order, without augmentation: all of them, or those at `positions`."""
    chosen = torch.arange(len(images)) if positions is None else positions
    batches = list(chosen.split(batch_size))
    for images_BHWC, batch in zip(images.images.batches(batches, workers), batches, strict=True):
        yield Batch(preprocessing(images_BHWC.to(device), dtype), images.labels[batch].to(device))


def load_data(config: DataConfig, *, device: torch.device | None = None) -> Data:
    """Read the source, split off the validation images and measure the normalisation.

    Images that fit in memory are moved to `device` as bytes.

    Raises:
        InputError: Files are missing or wrong, or there are too few images.
    """
    config = config.completed()
    source = load_source(config)
    train, test = (_on_device(images, device) for images in (source.train, source.test))
    positions, validation = stratified_split(train.labels, config.validation_fraction, config.split_seed)
    if len(positions) < 2 or len(test) < 1:
        raise InputError(
            f"data of source {config.source} has {len(positions)} images to train on and {len(test)} to"
            " report on: at least 2 and 1 are needed"
        )
    if config.validation_fraction > 0 and len(validation) == 0:
        raise InputError(
            f"data.validation_fraction {config.validation_fraction} leaves no validation image of"
            f" {len(train)}: raise it, or set it to 0 to train without"
        )
    assert config.crop_padding is not None
    assert config.horizontal_flip is not None
    assert config.rotation is not None
    height, width, channels = train.images.image_shape
    channels = 3 if config.grey_to_rgb else channels
    if config.mean is not None and len(config.mean) != channels:
        raise InputError(
            f"data.mean must be {channels} numbers, one for each channel of the images,"
            f" not {len(config.mean)}"
        )
    if config.crop_padding > min(height, width):
        raise InputError(
            f"data.crop_padding must be at most the images' {min(height, width)} pixels,"
            f" not {config.crop_padding}"
        )
    return Data(
        train=train,
        test=test,
        train_positions=positions,
        validation_positions=validation,
        classes=source.classes,
        preprocessing=fit_preprocessing(
            train.images,
            positions,
            normalize=config.normalize,
            mean=config.mean,
            std=config.std,
            channels=channels,
            workers=config.workers,
        ),
        augmentation=Augmentation(
            crop_padding=config.crop_padding,
            horizontal_flip=config.horizontal_flip,
            rotation=config.rotation,
        ),
        workers=config.workers,
        evaluation_batch_size=config.evaluation_batch_size,
        shuffle=config.shuffle,
    )


def _on_device(images: LabelledImages, device: torch.device | None) -> LabelledImages:
    if isinstance(images.images, MemoryImages) and device is not None:
        return LabelledImages(images=images.images.to(device), labels=images.labels)
    return images
