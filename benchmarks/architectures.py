"""Print the table of docs/architectures.md: every network, its five students' sizes, and what they compute.

    python benchmarks/architectures.py > table.md        all networks, some minutes
    python benchmarks/architectures.py resnet18 …        some of them

Everything is counted on torch's meta device: no training, no images, nothing random. Ten classes, three
channels. The paper's figures are its table 1 (Walawalkar, Shen, Savvides, ECCV 2020).
"""

import sys
from collections.abc import Iterator, Sequence

import torch

from codistill.config import ModelConfig
from codistill.models.architecture import Stem
from codistill.models.catalog import ARCHITECTURES, StudentDescription, architecture_of
from codistill.models.cost import count_macs, count_parameters
from codistill.models.ensemble import Classifier, Ensemble
from codistill.models.ladder import describe_students

TABLE_1 = {
    "cifar_resnet20": (62.95, 35.61, 15.50, 3.95),
    "cifar_resnet32": (62.87, 35.43, 15.33, 3.80),
    "cifar_resnet44": (62.84, 35.36, 15.25, 3.74),
    "cifar_resnet110": (62.79, 35.26, 15.15, 3.64),
    "densenet_bc_k12": (58.01, 36.34, 13.31, 4.29),
    "resnext50_32x4d": (62.10, 35.60, 16.09, 4.76),
    "efficientnet_b0": (64.11, 35.94, 18.88, 5.43),
    "efficientnet_b2": (65.16, 37.87, 18.13, 4.69),
    "efficientnet_b4": (64.43, 36.27, 16.40, 4.91),
}
HEADERS = (
    "network",
    "S1 parameters",
    "S2 … S5 %",
    "paper's table 1 %",
    "S1 MACs, 32 px",
    "S2 … S5 %",
    "S1 MACs, 224 px",
    "S2 … S5 %",
)


def described(name: str, stem: Stem) -> list[StudentDescription]:
    """Return five students, S1 first."""
    config = ModelConfig(name=name, stem=stem)
    return list(describe_students(config, in_channels=3, num_classes=10).values())


def counted(students: Sequence[StudentDescription], size: int) -> tuple[list[int], list[int]]:
    """Return parameters and multiply-accumulates of students that stand alone, at `size` pixels."""
    parameters, macs = [], []
    for student in students:
        with torch.device("meta"):
            model = Classifier(Ensemble({"S1": student}))
        parameters.append(count_parameters(model))
        macs.append(count_macs(model, (3, size, size)))
    return parameters, macs


def shares(numbers: Sequence[float]) -> str:
    """Return S2 … S5 as percentages of S1, which stands first."""
    return ", ".join(f"{100 * number / numbers[0]:.2f}" for number in numbers[1:])


def row(name: str) -> list[str]:
    """Return a network's row."""
    stems = architecture_of(name).stems
    parameters, macs = counted(described(name, "small"), 32)
    large = ["—", "—"]
    if "imagenet" in stems:
        parameters, large_macs = counted(described(name, "imagenet"), 224)
        large = [f"{large_macs[0] / 1e6:,.1f} M", shares(large_macs)]
    paper = ", ".join(f"{figure:.2f}" for figure in TABLE_1[name]) if name in TABLE_1 else "—"
    return [
        name,
        f"{parameters[0]:,}",
        shares(parameters),
        paper,
        f"{macs[0] / 1e6:,.1f} M",
        shares(macs),
        *large,
    ]


def lines(names: Sequence[str]) -> Iterator[str]:
    """Yield the table's lines in Markdown."""
    yield _line(HEADERS)
    yield _line(["---"] * len(HEADERS))
    for name in names:
        yield _line(row(name))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in ARCHITECTURES]
    if unknown:
        sys.exit(f"{unknown[0]} is no network: choose some of {', '.join(ARCHITECTURES)}")
    for line in lines(sys.argv[1:] or ARCHITECTURES):
        print(line, flush=True)
