"""Every config that is shipped parses strictly and takes two real training steps on its own kind of data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from copies import make_cifar10, make_cifar100, make_folder, make_idx, make_parquet, make_svhn

from codistill.config import Config
from codistill.config.parsing import load_config
from codistill.training import experiment
from codistill.training.loop import Trainer

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
DEEP = ("110", "1202")


class Enough(Exception):  # noqa: N818 - not an error
    """Two steps were taken."""


def make_copy(config: Config, folder: Path) -> dict[str, Any]:
    """Make a small copy of the data that a config names, in their true layout."""
    if config.data.source == "huggingface":
        classes = tuple(f"kind{number}" for number in range(config.data.num_classes or 3))
        return make_parquet(folder, classes=classes, label_columns=(config.data.label_column or "label",))
    if config.data.source == "folder":
        return make_folder(folder)
    makers = {
        "mnist": lambda: make_idx(folder, "mnist"),
        "fashion_mnist": lambda: make_idx(folder),
        "cifar10": lambda: make_cifar10(folder),
        "cifar100": lambda: make_cifar100(folder, per_class=2),
        "svhn": lambda: make_svhn(folder),
        "digits": dict,
    }
    return makers[config.data.source]()


def test_all_are_found() -> None:
    assert len(FILES) == 20
    assert len([file for file in FILES if file.parent.name == "paper"]) == 12


def parameters() -> list[Any]:
    return [
        pytest.param(
            file,
            id=str(file.relative_to(CONFIGS).with_suffix("")),
            marks=[pytest.mark.slow] if any(file.stem.endswith(f"resnet{depth}") for depth in DEEP) else [],
        )
        for file in FILES
    ]


@pytest.mark.parametrize("file", parameters())
def test_takes_two_steps(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(file)
    if config.data.source == "huggingface":
        pytest.importorskip("pyarrow")
    copy = make_copy(config, tmp_path / "data")
    config = replace(
        config,
        # Two images a class: a tenth of them would be none.
        data=replace(
            config.data, **copy, validation_fraction=0.5 if config.data.validation_fraction else 0.0
        ),
        training=replace(config.training, batch_size=4, threads=2),
        run=replace(config.run, folder=str(tmp_path / "runs"), name="run"),
    )
    losses: list[float] = []
    original = Trainer.train_step

    def train_step(self: Trainer, batch: Any, phase: Any) -> dict[str, float]:
        losses.append(original(self, batch, phase)["loss"])
        if len(losses) == 2:
            raise Enough
        return {"loss": losses[-1]}

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(Enough):
        experiment.train(config)
    assert all(0 < loss < 1000 for loss in losses)
