"""Tests between epochs, the checkpoints they keep, going on from any of these, and the curves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from copies import make_folder
from PIL import Image
from safetensors.torch import load_file

import codistill
from codistill.cli import main
from codistill.config import (
    Config,
    DataConfig,
    ModelConfig,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
    baseline,
)
from codistill.errors import InputError
from codistill.training.checkpoint import kept_epochs
from codistill.training.phase import count_tests_left, is_tested


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two students, one epoch of pretraining and four together, a test after every other of these."""
    folder = tmp_path_factory.mktemp("way")
    data = make_folder(folder / "pictures", per_class=16, classes=("cat", "dog"), size=(8, 8))
    return Config(
        data=DataConfig(source="folder", crop_padding=1, **data),
        model=ModelConfig(num_students=2),
        schedule=ScheduleConfig(name="CosineAnnealingLR", arguments={"T_max": 4}),
        training=TrainingConfig(
            epochs=4, pretraining_epochs=1, batch_size=12, threads=1, device="cpu", test_interval=2
        ),
        run=RunConfig(folder=str(folder / "runs"), name="run", curves="pictures"),
    )


@pytest.fixture(scope="module")
def run(config: Config) -> Path:
    return codistill.train(config)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "runs" / "run"))


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_seconds(run: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in metrics(run)]


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "students" / "last" / "teacher.safetensors")


def test_epochs_are_tested_as_the_authors_count_them() -> None:
    tested = [
        [
            epoch + 1
            for epoch in range(12)
            if is_tested(TrainingConfig(epochs=12, test_interval=interval), epoch)
        ]
        for interval in (1, 5, 10, 100, None)
    ]
    assert tested == [list(range(1, 13)), [1, 6, 11, 12], [1, 11, 12], [1, 12], []]
    assert count_tests_left(TrainingConfig(epochs=12, test_interval=5), 6) == 2


def test_tests_and_their_checkpoints_are_of_the_joint_epochs(run: Path) -> None:
    assert [record["epoch"] for record in metrics(run) if "test" in record] == [2, 4, 5]
    assert kept_epochs(run / "checkpoints") == [2, 4, 5]
    assert len(list((run / "checkpoints").glob("step-*.pt"))) == 2


def test_the_last_test_is_what_the_run_reports(run: Path) -> None:
    reported = json.loads((run / "results.json").read_text())["students"]
    tested = metrics(run)[-1]["test"]
    assert tested["accuracy"] == {name: each["last"]["test_accuracy"] for name, each in reported.items()}
    losses = tested["loss"]
    total = sum(
        0.7 * losses[f"label/{name}"] + 0.15 * losses[f"distillation/{name}"] for name in ("S1", "S2")
    )
    assert losses["loss"] == pytest.approx(total + 0.15 * losses["feature/S2"], rel=1e-5)


def test_accuracy_in_training_is_a_share_of_the_images(run: Path) -> None:
    records = metrics(run)
    assert records[0]["train_accuracy"].keys() == {"S1"}
    assert records[1]["train_accuracy"].keys() == {"S1", "S2", "teacher"}
    for record in records:
        assert not any(name.startswith("accuracy") for name in record["train"])
        for share in record["train_accuracy"].values():
            hits = share * record["images"]
            assert hits == pytest.approx(round(hits), abs=1e-3)


def test_tests_change_nothing_else(config: Config, run: Path, tmp_path: Path) -> None:
    plain = replace(
        config,
        training=replace(config.training, test_interval=None),
        run=RunConfig(folder=str(tmp_path), name="plain"),
    )
    other = codistill.train(plain)
    assert [{**record, "test": None} for record in without_seconds(other)] == [
        {**record, "test": None} for record in without_seconds(run)
    ]
    assert not (other / "Plots").exists()
    assert kept_epochs(other / "checkpoints") == []


def test_any_kept_epoch_is_gone_on_from_bit_for_bit(run: Path, copy: Path) -> None:
    again = codistill.resume(copy, epoch=2)

    assert again.parent == copy.parent
    assert again != copy
    parent = json.loads((again / "environment.json").read_text())["parent"]
    assert parent == {"run": str(copy), "epoch": 2}
    assert without_seconds(again) == without_seconds(run)
    ours, theirs = last_weights(again), last_weights(run)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert kept_epochs(again / "checkpoints") == [2, 4, 5]
    # What was best before is in the parent alone.
    best = json.loads((again / "results.json").read_text())["students"]["S1"]["best"]
    assert best["epoch"] >= 2


@pytest.mark.slow
def test_a_finished_run_goes_on_with_more_epochs(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["resume", str(copy), "--epoch", "5", "--training.epochs", "5", "--run.name", "longer"])
    assert end.value.code == 0
    longer = copy.parent / "longer"
    assert [record["epoch"] for record in metrics(longer)] == [1, 2, 3, 4, 5, 6]
    assert without_seconds(longer)[:5] == without_seconds(copy)
    assert "run" in capsys.readouterr().out


@pytest.mark.slow
def test_from_the_last_epoch_done_it_goes_on_in_its_own_folder(copy: Path, run: Path) -> None:
    checkpoints = copy / "checkpoints"
    for file in (copy / "results.json", copy / "predictions.safetensors", *checkpoints.iterdir()):
        if file.name not in ("epoch-00002.pt", "epoch-00004.pt"):
            file.unlink()
    shutil.copy(copy / "checkpoints" / "epoch-00004.pt", copy / "checkpoints" / "step-000000012.pt")

    assert codistill.resume(copy, epoch=4) == copy
    assert without_seconds(copy) == without_seconds(run)
    assert list(copy.parent.iterdir()) == [copy]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epoch", "3"], "no checkpoint after epoch 3 is kept: choose one of 2, 4, 5"),
        (["--epoch", "5"], "epoch 5 of 5 is the last: raise training.epochs to go on"),
        (["--epoch", "0"], "--epoch must be a whole number above 0, not '0'"),
        (["--epoch", "2", "--optimizer.lr", "1"], "--optimizer.lr is no option here"),
        (["--training.epochs", "9"], "--training.epochs is no option here"),
        (["--epoch", "2", "--run.name", ".."], "run.name must be up to 151 letters"),
    ],
)
def test_what_cannot_be_gone_on_from_is_said(
    options: list[str], message: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["resume", str(copy), *options])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert list(copy.parent.iterdir()) == [copy]


def test_a_torn_checkpoint_is_named(copy: Path) -> None:
    file = copy / "checkpoints" / "epoch-00002.pt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"epoch-00002\.pt: cannot be read: it is torn or no checkpoint"):
        codistill.resume(copy, epoch=2)
    with pytest.raises(InputError, match=r"epoch-00002\.pt: cannot be read"):
        codistill.evaluate(copy, epoch=2)


def test_other_settings_must_be_the_runs(config: Config, copy: Path) -> None:
    other = replace(config, optimizer=replace(config.optimizer, lr=0.5))
    with pytest.raises(InputError, match=r"was trained with optimizer\.lr 0\.1, so it cannot go on"):
        codistill.resume(copy, other, epoch=2)


def test_students_are_tested_as_they_were(run: Path) -> None:
    for record in metrics(run):
        if "test" in record:
            evaluation = codistill.evaluate(run, epoch=record["epoch"])
            assert evaluation.accuracies == {f"epoch {record['epoch']}": record["test"]["accuracy"]}
    assert "test %, after epoch 5" in evaluation.table()
    alone = codistill.evaluate(run, student=2)
    assert {tuple(found) for found in alone.accuracies.values()} == {("S2",)}
    with pytest.raises(InputError, match="has no student 3: choose one of S1, S2, teacher"):
        codistill.evaluate(run, student=3)
    with pytest.raises(InputError, match="no checkpoint after epoch 1 is kept: choose one of 2, 4, 5"):
        codistill.evaluate(run, epoch=1)


def test_arrays_are_the_metrics(run: Path) -> None:
    records = metrics(run)[1:]
    tested = [record for record in records if "test" in record]
    arrays = run / "Accuracy_arrays"

    def loaded(name: str) -> list[float]:
        return list(np.load(arrays / name, allow_pickle=False))

    assert loaded("Training/Train_Accuracy_for_Student_2.npy") == [
        100 * r["train_accuracy"]["S2"] for r in records
    ]
    assert loaded("Training/Train_loss_for_Overall_Loss.npy") == [r["train"]["loss"] for r in records]
    expected = [100 * r["test"]["accuracy"]["teacher"] for r in tested]
    assert loaded("Validation/Valid_Accuracies_for_Combined_Teacher.npy") == expected
    assert loaded("Validation/Val_loss_for_Student_1.npy") == [r["test"]["loss"]["label/S1"] for r in tested]
    assert sorted(path.name for path in arrays.glob("*/*")) == sorted(
        [
            *(f"Train_Accuracy_for_{name}.npy" for name in ("Student_1", "Student_2", "Combined_Teacher")),
            *(f"Valid_Accuracies_for_{name}.npy" for name in ("Student_1", "Student_2", "Combined_Teacher")),
            *(f"Train_loss_for_{name}.npy" for name in ("Student_1", "Student_2", "Overall_Loss")),
            *(f"Val_loss_for_{name}.npy" for name in ("Student_1", "Student_2", "Overall_Loss")),
        ]
    )


def test_pictures_are_drawn_of_everyone_and_every_term(run: Path) -> None:
    names = {path.stem for path in (run / "Plots").iterdir()}
    members = ("Student_1", "Student_2")
    terms = ("Total_Normal_Loss", "Total_Intermmediate_Loss", "Total_KL_Loss")
    assert names == {
        *(f"Accuracy_comparision_{name}" for name in (*members, "Combined_Teacher", "all")),
        *(f"Loss_comparision_{name}" for name in (*members, "Overall_Loss", *terms)),
    }
    for path in (run / "Plots").iterdir():
        with Image.open(path) as picture:
            assert picture.size == (768, 480)
            assert len(set(picture.convert("L").resize((64, 40)).tobytes())) > 5  # Not blank.


@pytest.mark.slow
def test_a_baseline_has_its_own_array_and_can_be_gone_on_from(config: Config, tmp_path: Path) -> None:
    alone = baseline(replace(config, run=RunConfig(folder=str(tmp_path), name="S2", curves="arrays")), 2)
    run = codistill.train(alone)
    values = np.load(run / "Accuracy_arrays" / "Validation" / "Student_Valid_Accuracies.npy")
    assert list(values) == [
        100 * record["test"]["accuracy"]["S2"] for record in metrics(run) if "test" in record
    ]
    again = codistill.resume(run, epoch=4)
    assert without_seconds(again) == without_seconds(run)


@pytest.mark.slow
def test_names_that_tell_the_time_never_overwrite(config: Config, tmp_path: Path) -> None:
    short = replace(
        config,
        training=replace(config.training, epochs=1, pretraining_epochs=0),
        run=RunConfig(folder=str(tmp_path), name="%Y"),
    )
    first, second = codistill.train(short), codistill.train(short)
    assert first.name.isdecimal()
    assert second.name == f"{first.name}-2"


def test_without_kept_epochs_the_way_on_is_named(copy: Path) -> None:
    for file in (copy / "checkpoints").glob("epoch-*.pt"):
        file.unlink()
    with pytest.raises(
        InputError, match=r"is kept: none is yet \(training\.test_interval\); 'codistill resume"
    ):
        codistill.resume(copy, epoch=2)
