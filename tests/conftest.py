"""What every test has: a cache of its own, and a set of pictures that trains in seconds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Threads that wait in a loop keep the cores from whoever else computes: on a busy machine tests of small
# models take ten times as long. Read when torch loads, also by the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from copies import make_folder

from codistill.config import Config, DataConfig, ModelConfig, RunConfig, ScheduleConfig, TrainingConfig


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_config(tmp_path: Path) -> Config:
    """Three students of a ResNet-20 on 2 × 22 pictures of 8×8 pixels: 3 epochs of 12, 12, 12 and 8 images."""
    data = make_folder(tmp_path / "pictures", per_class=24, classes=("cat", "dog"), size=(8, 8))
    return Config(
        data=DataConfig(source="folder", crop_padding=1, **data),
        model=ModelConfig(num_students=3),
        schedule=ScheduleConfig(warmup_epochs=0.5),
        training=TrainingConfig(epochs=3, batch_size=12, threads=2, device="cpu"),
        run=RunConfig(folder=str(tmp_path / "runs"), name="run"),
    )
