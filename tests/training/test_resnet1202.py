"""The deepest network: five students of ResNet-1202 take a step of 128 images within 24 GB."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(__file__).parents[2] / "benchmarks" / "step_memory.py"


def step(*words: str) -> tuple[float, float]:
    """Return the peak in GiB and the loss of one step."""
    run = subprocess.run(
        [sys.executable, str(COMMAND), "--data.source", "cifar100", "--data.root", "x", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"peak ([\d.]+) GiB .* loss ([\d.]+)", run.stdout)
    assert found, run.stdout
    return float(found[1]), float(found[2])


@pytest.mark.slow
def test_a_step_takes_less_memory_and_has_the_same_loss() -> None:
    words = ("--model.name", "cifar_resnet110", "--training.batch_size", "32")

    kept, loss = step(*words)
    less, same = step(*words, "--training.gradient_checkpointing", "true")

    assert same == loss
    assert less < kept


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_resnet_1202_takes_a_step_within_24_gb() -> None:
    peak, _ = step(
        *("--model.name", "cifar_resnet1202", "--training.batch_size", "128"),
        *("--training.gradient_checkpointing", "true"),
    )

    assert peak * 2**30 < 24e9
