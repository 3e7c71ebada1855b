"""Does it matter to start from a trained wide network? Fashion-MNIST, one budget, two beginnings.

    python benchmarks/pretrained.py FASHION_MNIST_FOLDER [--wide-epochs 2] [--epochs 1] [--json FILE]

S1 is trained alone on the labels; then one ensemble starts from its weights and their slices, another from
scratch, and both train for the same further epochs with the same images in the same order.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from codistill.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
    baseline,
)
from codistill.tables import markdown_table
from codistill.training.experiment import train
from codistill.training.run import processor_name


def accuracies(run: Path) -> dict[str, float]:
    """Return the test accuracy of every delivered model after the last epoch, 0 to 1."""
    results = json.loads((run / "results.json").read_text())
    return {name: student["last"]["test_accuracy"] for name, student in results["students"].items()}


def main() -> None:
    """Train three times and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", help="folder of Fashion-MNIST")
    parser.add_argument("--wide-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Config(
            seed=arguments.seed,
            data=DataConfig(source="fashion_mnist", root=arguments.root),
            model=ModelConfig(name="cifar_resnet20", num_students=arguments.students),
            optimizer=OptimizerConfig(lr=0.05),
            schedule=ScheduleConfig(name="cosine"),
            training=TrainingConfig(epochs=arguments.epochs),
            run=RunConfig(folder=folder),
        )
        longer = replace(scratch, training=replace(scratch.training, epochs=arguments.wide_epochs))
        wide = train(baseline(longer, 1))
        weights = str(wide / "students" / "last" / "S1.safetensors")
        pretrained = replace(scratch, model=replace(scratch.model, init="pretrained", weights=weights))
        found = {
            "wide": accuracies(wide),
            "scratch": accuracies(train(scratch)),
            "pretrained": accuracies(train(pretrained)),
        }
    rows: list[list[Any]] = [
        [
            name,
            f"{100 * found['scratch'][name]:.2f}",
            f"{100 * found['pretrained'][name]:.2f}",
            f"{100 * (found['pretrained'][name] - found['scratch'][name]):+.2f}",
        ]
        for name in found["scratch"]
    ]
    print(markdown_table(rows, ["student", "from scratch %", "from S1's weights %", "difference"]))
    print(
        f"\nTest accuracy after {arguments.epochs} epoch(s), seed {arguments.seed}; S1 alone had"
        f" {100 * found['wide']['S1']:.2f} % after {arguments.wide_epochs}. {processor_name()}, torch"
        f" {torch.__version__}."
    )
    if arguments.json:
        arguments.json.write_text(
            json.dumps(vars(arguments) | {"json": None, "root": None} | found, indent=1)
        )


if __name__ == "__main__":
    main()
