"""The same runs on a CUDA device; skipped where there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import codistill
from codistill.config import Config
from codistill.training.loop import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def first_losses(config: Config, name: str, device: Any) -> tuple[dict[str, float], Path]:
    losses: list[dict[str, float]] = []
    original = Trainer.train_step

    def train_step(self: Trainer, batch: Any, phase: Any) -> dict[str, float]:
        losses.append(original(self, batch, phase))
        return losses[-1]

    config = replace(
        config,
        training=replace(config.training, device=device, epochs=1),
        run=replace(config.run, name=name),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_step)
        run = codistill.train(config)
    return losses[0], run


def test_the_first_step_gives_the_losses_of_a_cpu(small_config: Config) -> None:
    on_cpu, _ = first_losses(small_config, "cpu", "cpu")
    on_cuda, run = first_losses(small_config, "cuda", "cuda")
    # TF32 in convolutions rounds to ten bits; losses are means over many products.
    assert on_cuda == pytest.approx(on_cpu, rel=1e-2)
    assert (run / "results.json").is_file()
    assert codistill.load_student(run, 3).name == "S3"


def test_half_precision_trains(small_config: Config) -> None:
    config = replace(small_config, training=replace(small_config.training, precision="bf16-mixed"))
    losses, _ = first_losses(config, "bf16", "cuda")
    assert 0 < losses["loss"] < 100
