"""Downloads through torchvision, which knows the addresses and checksums."""

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from codistill.config.data import Source
from codistill.errors import InputError, one_line

_NAMES: dict[Source, str] = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "stl10": "STL10",
    "caltech256": "Caltech256",
}


def downloaded(source: Source, root: Path) -> None:
    """Let torchvision download the files of a source into `root`; `InputError` says what stops it."""
    from torchvision import datasets

    fetch = getattr(datasets, _NAMES[source])
    try:
        # torchvision tells each address and each failed attempt on stdout, which belongs to our results.
        with contextlib.redirect_stdout(io.StringIO()), _nothing_leaves_its_folder():
            if source == "svhn":
                fetch(root=str(root), split="train", download=True)
                fetch(root=str(root), split="test", download=True)
            else:
                fetch(root=str(root), download=True)
    except Exception as error:  # Network, disk, archive and checksum each fail in their own way.
        raise InputError(
            f"data.download: {source} cannot be downloaded into {str(root)!r}: {one_line(error)}"
        ) from error


@contextlib.contextmanager
def _nothing_leaves_its_folder() -> Iterator[None]:
    """Refuse members of tar archives that point outside, whatever the caller asks for."""
    # Python's own default from 3.14 on; not every version of torchvision asks for it. The first releases of
    # 3.11 know no filters: there the checksums of what is downloaded stand alone.
    previous = getattr(tarfile.TarFile, "extraction_filter", None)
    if hasattr(tarfile, "data_filter"):
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = previous
