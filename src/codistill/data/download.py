"""Downloads through torchvision, which knows the addresses and checksums."""

import contextlib
import io
from pathlib import Path

from codistill.config.data import Source

_NAMES: dict[Source, str] = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}


def download(source: Source, root: Path) -> None:
    """Let torchvision download the files of a source into `root`; it raises whatever stops it."""
    from torchvision import datasets

    fetch = getattr(datasets, _NAMES[source])
    # torchvision tells each address and each failed attempt on stdout, which belongs to our results.
    with contextlib.redirect_stdout(io.StringIO()):
        if source == "svhn":
            fetch(root=str(root), split="train", download=True)
            fetch(root=str(root), split="test", download=True)
        else:
            fetch(root=str(root), download=True)
