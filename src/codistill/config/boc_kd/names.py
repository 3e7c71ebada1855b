"""The networks and data sets that the authors' configs name, in codistill's names and settings."""

from typing import Any

MODELS = {
    **{f"ResNet{depth}": f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)},
    **{f"Resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    "Resnext50_32x4d": "resnext50_32x4d",
    "Resnext101_32x8d": "resnext101_32x8d",
    "Wide_Resnet50_2": "wide_resnet50_2",
    "Wide_Resnet101_2": "wide_resnet101_2",
    "Densenet_12_100": "densenet_bc_k12",
    "Densenet_24_250": "densenet_bc_k24",
    "Densenet_40_190": "densenet_bc_k40",
    **{f"Densenet{depth}": f"densenet{depth}" for depth in (121, 169, 201)},
    **{f"Efficientnet_B{number}": f"efficientnet_b{number}" for number in range(8)},
}
SOURCES = {
    "MNIST": "mnist",
    "Fashion-MNIST": "fashion_mnist",
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
    "SVHN": "svhn",
    "STL10": "stl10",
    "Caltech": "caltech256",
    "CUB2011": "cub2011",
    "Imagenet": "imagenet",
}
WITHOUT_TRANSFORMS = ("MNIST", "Fashion-MNIST", "SVHN", "STL10", "Caltech")
"""Sets for which the authors' code has no transforms, and stops."""
CIFAR10_STATISTICS = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}


def transforms(data: str, model: str) -> dict[str, Any]:
    """Return the settings of `data` that give the authors' transforms of this set (docs/data.md)."""
    match data:
        case "CIFAR10" if model.startswith("Efficientnet"):
            return {**CIFAR10_STATISTICS, "image_size": 224, "crop_padding": 30}
        case "CIFAR10":
            return CIFAR10_STATISTICS
        case "CIFAR100" | "CUB2011":
            return {"normalize": False}
        case "MNIST" | "Fashion-MNIST":
            return {"grey_to_rgb": True}
        case _:
            return {}
