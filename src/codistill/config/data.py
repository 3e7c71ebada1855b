"""What to train on: the section `data`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from codistill.config.problems import Problem, in_range

Source = Literal[
    "digits",
    "mnist",
    "fashion_mnist",
    "cifar10",
    "cifar100",
    "svhn",
    "stl10",
    "caltech256",
    "cub2011",
    "imagenet",
    "huggingface",
    "folder",
    "lmdb",
]
Resize = Literal["crop", "stretch"]
"""How a picture becomes a square: its centre cut out, or its sides scaled each by itself."""


class SourceFacts(NamedTuple):
    """What is known of a source without reading it, and what is usual for it.

    `None` stands where only the files can tell, or where the training images are measured.
    """

    num_classes: int | None = None
    channels: int | None = None
    image_size: int | None = None
    pictures: bool = True
    """Whether its images are files of any size, not arrays of one."""
    needs_root: bool = True
    crop_padding: int = 4
    horizontal_flip: bool = True
    rotation: float = 0.0
    resize: Resize = "crop"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def _arrays(
    num_classes: int, channels: int, size: int, crop_padding: int, *, flip: bool, needs_root: bool = True
) -> SourceFacts:
    return SourceFacts(
        num_classes,
        channels,
        size,
        pictures=False,
        needs_root=needs_root,
        crop_padding=crop_padding,
        horizontal_flip=flip,
    )


# docs/data.md says where each value comes from. A digit's mirror image is another sign, so images of digits
# are never flipped unless a user insists.
SOURCES: dict[str, SourceFacts] = {
    "digits": _arrays(10, 1, 8, 1, flip=False, needs_root=False),
    "mnist": _arrays(10, 1, 28, 4, flip=False),
    "fashion_mnist": _arrays(10, 1, 28, 4, flip=True),
    "cifar10": _arrays(10, 3, 32, 4, flip=True),
    "cifar100": _arrays(100, 3, 32, 4, flip=True),
    "svhn": _arrays(10, 3, 32, 4, flip=False),
    "stl10": _arrays(10, 3, 96, 12, flip=True),
    "caltech256": SourceFacts(channels=3, image_size=224, crop_padding=28),
    "cub2011": SourceFacts(channels=3, image_size=64, resize="stretch"),
    "imagenet": SourceFacts(
        channels=3,
        image_size=224,
        crop_padding=50,
        rotation=10.0,
        resize="stretch",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "huggingface": SourceFacts(needs_root=False),
    "folder": SourceFacts(),
    "lmdb": SourceFacts(),
}
DOWNLOADABLE = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "stl10", "caltech256")
LARGEST_IMAGE_SIZE = 10_000


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, how they are split and how they are augmented."""

    source: Source = "digits"
    """Kind of data set; digits are embedded, all others are read from `root` or a hub."""

    root: str | None = None
    """Folder that holds the files; for huggingface also a pattern of parquet files, for lmdb one file."""

    hub_name: str | None = None
    """Data set on the Hugging Face hub (huggingface only), such as uoft-cs/cifar100."""

    download: bool = False
    """Whether torchvision may download the files into `root` (MNIST, Fashion-MNIST, CIFAR, SVHN, STL-10,
    Caltech-256)."""

    num_classes: int | None = None
    """Classes expected; the count comes from the data and a difference is an error."""

    image_size: int | None = None
    """Height and width in pixels to which images are resized; none: the source's usual, else as they are."""

    resize: Resize | None = None
    """How pictures become squares: crop scales the shorter side and cuts out the centre, stretch scales both
    sides; none: the source's usual."""

    grey_to_rgb: bool = False
    """Whether networks take grey images as three equal channels; coloured ones stay as they are."""

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

    rotation: float | None = None
    """Degrees up to which training images are turned, either way, before the crop; none: as usual."""

    normalize: bool = True
    """Whether pixels are shifted and scaled by a mean and a deviation per channel."""

    mean: tuple[float, ...] | None = None
    """Mean per channel of pixels in 0 … 1; none: the source's usual, else measured on the training images."""

    std: tuple[float, ...] | None = None
    """Deviation per channel of pixels in 0 … 1; given with `mean` or not at all."""

    shuffle: bool = True
    """Whether training images come in a new order each epoch; no: always in the order of the files."""

    evaluation_batch_size: int = 250
    """Images that are validated or tested at once, which changes nothing but memory and speed."""

    memory_gib: float = 4.0
    """Images that fit in this many GiB as bytes stay in memory, others are read as they are needed."""

    workers: int = 2
    """Processes that read images which do not fit in memory; no more than there are cores."""

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
        if self.resize is not None and not facts.pictures:
            yield "resize", f"{self.resize!r} has no meaning for {self.source}, whose images are squares"
        yield from self._statistics_problems(facts)
        yield from in_range(self, "num_classes", low=2)
        yield from in_range(self, "image_size", low=1, high=LARGEST_IMAGE_SIZE)
        yield from in_range(self, "validation_fraction", low=0, high=0.9)
        yield from in_range(self, "split_seed", low=0)
        yield from in_range(self, "crop_padding", low=0)
        yield from in_range(self, "rotation", low=0, high=180)
        yield from in_range(self, "evaluation_batch_size", low=1)
        yield from in_range(self, "memory_gib", low=0)
        yield from in_range(self, "workers", low=0)

    def _statistics_problems(self, facts: SourceFacts) -> Iterator[Problem]:
        if (self.mean is None) != (self.std is None):
            there, missing = ("mean", "std") if self.std is None else ("std", "mean")
            yield missing, f"is needed beside data.{there}"
        if self.mean is not None and not self.normalize:
            yield "mean", "has no meaning without data.normalize"
        channels = {3 if self.grey_to_rgb else facts.channels} if facts.channels is not None else {1, 3}
        for name, values, low in (("mean", self.mean, 0.0), ("std", self.std, 1e-6)):
            if values is None:
                continue
            if len(values) not in channels:
                counts = " or ".join(str(count) for count in sorted(channels))
                yield name, f"must be {counts} numbers, one a channel, not {len(values)}"
            elif not all(low <= value <= 1 for value in values):
                yield name, f"must be numbers from {low:g} to 1, not {list(values)}"

    def completed(self) -> "DataConfig":
        """Return the section with what its source decides written out."""
        facts = SOURCES[self.source]
        fixed = self.mean is None and self.normalize
        return replace(
            self,
            image_size=facts.image_size if self.image_size is None else self.image_size,
            resize=facts.resize if self.resize is None and facts.pictures else self.resize,
            crop_padding=facts.crop_padding if self.crop_padding is None else self.crop_padding,
            horizontal_flip=facts.horizontal_flip if self.horizontal_flip is None else self.horizontal_flip,
            rotation=facts.rotation if self.rotation is None else self.rotation,
            mean=facts.mean if fixed else self.mean,
            std=facts.std if fixed else self.std,
        )
