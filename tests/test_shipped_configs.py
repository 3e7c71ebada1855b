"""Every config that is shipped parses strictly and takes two real training steps on its own kind of data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from copies import make_cifar10, make_cifar100, make_folder, make_idx, make_parquet, make_svhn

from codistill.config import Config, completed
from codistill.config.parsing import load_config
from codistill.training import experiment
from codistill.training.loop import Trainer

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
PAPER = [file for file in FILES if file.parent.name == "paper"]
QUICK = ("cifar_resnet20",)
# The rows of the paper's tables of accuracy; all but ImageNet's also hold CIFAR ResNets of these depths.
DEPTHS = {"cifar10": (20, 32, 44, 110), "cifar100": (32, 44, 56, 110), "svhn": (20, 32, 44, 110)}
OTHERS = ("densenet_bc_k12", "resnext50_32x4d", "efficientnet_b0", "efficientnet_b2", "efficientnet_b4")
IMAGENET = ("resnet18", "resnet34", "resnet50", "resnet101", "densenet121", "resnext50_32x4d")
EPOCHS = {"cifar10": 350, "cifar100": 450, "svhn": 50, "folder": 100}


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
    assert len(FILES) == 41
    assert len(PAPER) == 33


def test_the_papers_rows_are_complete() -> None:
    expected = {(source, f"cifar_resnet{depth}") for source, depths in DEPTHS.items() for depth in depths}
    expected |= {(source, name) for source in DEPTHS for name in OTHERS}
    expected |= {("folder", name) for name in IMAGENET}

    found = [(config.data.source, config.model.name) for config in map(load_config, PAPER)]

    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_a_paper_config_says_what_the_paper_says(file: Path) -> None:
    config = load_config(file)
    source, _, network = file.stem.partition("_")

    assert {"imagenet": "folder"}.get(source, source) == config.data.source
    assert config.model.name in (network, f"cifar_{network}")
    assert completed(config).model.stem == ("imagenet" if source == "imagenet" else "small")
    assert config.model.num_students == 5
    weights = (config.objective.label_weight, config.objective.feature_weight)
    assert (*weights, config.objective.distillation_weight, config.objective.temperature) == (
        0.7,
        0.15,
        0.15,
        2.0,
    )
    assert config.training.epochs == EPOCHS[config.data.source]
    assert config.data.validation_fraction == 0
    optimizer, schedule = config.optimizer, config.schedule
    if network.startswith("efficientnet"):
        assert (optimizer.name, optimizer.lr, optimizer.alpha, optimizer.momentum) == (
            "rmsprop",
            0.256,
            0.9,
            0.9,
        )
        assert (schedule.name, schedule.decay, schedule.decay_epochs) == ("exponential", 0.97, 3)
    else:
        assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.nesterov) == (
            "sgd",
            0.1,
            0.9,
            True,
        )
        assert (schedule.name, schedule.milestones, schedule.factor) == ("multistep", (0.5, 0.75), 0.1)


def tier(file: Path) -> list[pytest.MarkDecorator]:
    config = load_config(file)
    if config.model.name in QUICK:
        return []
    # Images of 224 pixels take minutes and several GiB.
    return [pytest.mark.long if config.data.source == "folder" else pytest.mark.slow]


def parameters() -> list[Any]:
    return [
        pytest.param(
            file,
            id=str(file.relative_to(CONFIGS).with_suffix("")),
            marks=tier(file),
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
