"""What to train on: the section `data`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from codistill.config.problems import Problem, in_range

Source = Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "huggingface", "folder"]


class SourceFacts(NamedTuple):
    """What is known of a source without reading it; `None` where only its files can tell."""

    num_classes: int | None
    channels: int | None
    image_size: int | None
    needs_root: bool
    crop_padding: int
    horizontal_flip: bool


# A digit's mirror image is another sign, so images of digits are never flipped unless a user insists.
SOURCES: dict[str, SourceFacts] = {
    "digits": SourceFacts(10, 1, 8, needs_root=False, crop_padding=1, horizontal_flip=False),
    "mnist": SourceFacts(10, 1, 28, needs_root=True, crop_padding=4, horizontal_flip=False),
    "fashion_mnist": SourceFacts(10, 1, 28, needs_root=True, crop_padding=4, horizontal_flip=True),
    "cifar10": SourceFacts(10, 3, 32, needs_root=True, crop_padding=4, horizontal_flip=True),
    "cifar100": SourceFacts(100, 3, 32, needs_root=True, crop_padding=4, horizontal_flip=True),
    "svhn": SourceFacts(10, 3, 32, needs_root=True, crop_padding=4, horizontal_flip=False),
    "huggingface": SourceFacts(None, None, None, needs_root=False, crop_padding=4, horizontal_flip=True),
    "folder": SourceFacts(None, None, None, needs_root=True, crop_padding=4, horizontal_flip=True),
}
DOWNLOADABLE = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, how they are split and how they are augmented."""

    source: Source = "digits"
    """Kind of data set; digits are embedded, all others are read from `root` or a hub."""

    root: str | None = None
    """Folder that holds the files; for huggingface a folder or a pattern of parquet files."""

    hub_name: str | None = None
    """Data set on the Hugging Face hub (huggingface only), such as uoft-cs/cifar100."""

    download: bool = False
    """Whether torchvision may download the files into `root` (MNIST, Fashion-MNIST, CIFAR, SVHN)."""

    num_classes: int | None = None
    """Classes expected; the count comes from the data and a difference is an error."""

    image_size: int | None = None
    """Height and width in pixels to which images are resized (huggingface, folder); none: as they are."""

    image_column: str | None = None
    """Column of the images (huggingface); none: the only one that holds images."""

    label_column: str | None = None
    """Column of the labels (huggingface); none: the only one that holds classes."""

    train_split: str = "train"
    """Split to train on (huggingface)."""

    test_split: str = "test"
    """Split to report on (huggingface)."""

    validation_fraction: float = 0.1
    """Share of the training images, drawn per class, that chooses the best epoch; 0: only the last."""

    split_seed: int = 0
    """Seed of the validation split, apart from `seed` so that seeds share one split."""

    crop_padding: int | None = None
    """Pixels of zero padding before the random crop, 0 for none; none: the source's usual."""

    horizontal_flip: bool | None = None
    """Whether half of the training images are mirrored; none: yes, except where they are digits."""

    normalize: bool = True
    """Whether pixels are shifted and scaled by the training images' mean and deviation per channel."""

    memory_gib: float = 4.0
    """Images that fit in this many GiB as bytes stay in memory, others are read as they are needed."""

    workers: int = 2
    """Processes that read images which do not fit in memory."""

    def problems(self) -> Iterator[Problem]:
        """Yield everything in this section that cannot be used."""
        facts = SOURCES[self.source]
        if facts.needs_root and self.root is None:
            yield "root", f"is needed for {self.source}: the folder that holds its files"
        if self.source == "digits" and self.root is not None:
            yield "root", f"{self.root!r} has no meaning for digits, which are embedded"
        if self.source == "huggingface" and (self.root is None) == (self.hub_name is None):
            yield "hub_name", "huggingface needs either a hub_name or a root of parquet files, not both"
        if self.download and self.source not in DOWNLOADABLE:
            yield "download", f"is possible for {', '.join(DOWNLOADABLE)}, not for {self.source}"
        only_huggingface = {
            "hub_name": self.hub_name,
            "image_column": self.image_column,
            "label_column": self.label_column,
        }
        if self.source != "huggingface":
            for name, value in only_huggingface.items():
                if value is not None:
                    yield name, f"{value!r} has a meaning for huggingface only, not for {self.source}"
        if self.image_size is not None and facts.image_size is not None:
            yield "image_size", f"cannot change {self.source}, whose images have {facts.image_size} pixels"
        yield from in_range(self, "num_classes", low=2)
        yield from in_range(self, "image_size", low=1)
        yield from in_range(self, "validation_fraction", low=0, high=0.9)
        yield from in_range(self, "split_seed", low=0)
        yield from in_range(self, "crop_padding", low=0)
        yield from in_range(self, "memory_gib", low=0)
        yield from in_range(self, "workers", low=0)
