"""Each source that is read from files: two steps of training, and one line where a file is wrong."""

from pathlib import Path
from typing import Any

import pytest
from copies import (
    make_caltech,
    make_cifar10,
    make_cifar100,
    make_cub,
    make_folder,
    make_idx,
    make_imagenet,
    make_lmdb,
    make_parquet,
    make_stl10,
    make_svhn,
)

from codistill.cli import main
from codistill.config.data import SOURCES
from codistill.training.loop import Trainer

MAKERS: dict[str, Any] = {
    "mnist": lambda folder: make_idx(folder, "mnist"),
    "fashion_mnist": make_idx,
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "svhn": make_svhn,
    "stl10": make_stl10,
    "caltech256": make_caltech,
    "cub2011": make_cub,
    "imagenet": make_imagenet,
    "huggingface": make_parquet,
    "folder": make_folder,
    "lmdb": make_lmdb,
}
CUT = {
    "mnist": "train-images-idx3-ubyte.gz",
    "fashion_mnist": "t10k-labels-idx1-ubyte.gz",
    "cifar10": "cifar-10-batches-py/data_batch_3",
    "cifar100": "cifar-100-python/test",
    "svhn": "train_32x32.mat",
    "stl10": "stl10_binary/train_X.bin",
    "caltech256": "256_ObjectCategories/002.american-flag/002_0003.jpg",
    "cub2011": "CUB_200_2011/images/002.Laysan_Albatross/Laysan_Albatross_0000_5.jpg",
    "imagenet": "train/n01443537/train_1_00000.JPEG",
    "huggingface": "test-00000-of-00001.parquet",
    "folder": "train/kind1/001.png",
    "lmdb": "train.lmdb",
}


class Enough(Exception):  # noqa: N818 - not an error
    """Two steps were taken."""


def command(source: str, folder: Path, runs: Path) -> list[str]:
    settings = {
        "data.source": source,
        "data.root": folder,
        "data.image_size": 8,
        "data.crop_padding": 2,
        "data.grey_to_rgb": "true",
        "data.validation_fraction": 0,
        "data.workers": 0,
        "model.num_students": 2,
        "training.epochs": 1,
        "training.batch_size": 50 if source == "cifar100" else 4,
        "training.threads": 1,
        "schedule.warmup_epochs": 0,
        "run.folder": runs,
        "run.name": "run",
    }
    return ["train", *(f"--{name}={value}" for name, value in settings.items())]


def test_all_are_here() -> None:
    assert MAKERS.keys() == CUT.keys() == SOURCES.keys() - {"digits"}


# These are trained on elsewhere too.
SLOW = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")


@pytest.mark.parametrize(
    "source",
    [pytest.param(source, marks=pytest.mark.slow) if source in SLOW else source for source in MAKERS],
)
def test_it_is_trained_on_for_two_steps(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MAKERS[source](tmp_path / "data")
    losses: list[float] = []
    original = Trainer.train_step

    def train_step(self: Trainer, batch: Any, phase: Any) -> dict[str, float]:
        assert batch.images.shape[1:] == (3, 8, 8)
        losses.append(original(self, batch, phase)["loss"])
        if len(losses) == 2:
            raise Enough
        return {"loss": losses[-1]}

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(Enough):
        main(command(source, tmp_path / "data", tmp_path / "runs"))
    assert all(0 < loss < 1000 for loss in losses)


@pytest.mark.parametrize("source", MAKERS)
def test_a_cut_file_ends_in_one_line(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MAKERS[source](tmp_path / "data")
    path = tmp_path / "data" / CUT[source]
    content = path.read_bytes()
    # Within the first of an image, a table, an array … by a length that is no multiple of anything's.
    path.write_bytes(content[: len(content) * 2 // 5 + 1 if len(content) > 20 else 3])

    with pytest.raises(SystemExit) as stop:
        main(command(source, tmp_path / "data", tmp_path / "runs"))

    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert path.name in errors
    assert errors.startswith("codistill: error: ")
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.glob("runs/*"))
