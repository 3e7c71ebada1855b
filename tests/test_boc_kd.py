"""The authors' commands as their users type them: the walk of docs/from-boc-kd.md, and what is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from copies import (
    make_caltech,
    make_cifar10,
    make_cifar100,
    make_cub,
    make_idx,
    make_imagenet,
    make_stl10,
    make_svhn,
)
from files import as_python, changed

from codistill import cli
from codistill.cli.original import best_accuracies, tools_train
from codistill.config import completed
from codistill.config.boc_kd.names import MODELS, SOURCES
from codistill.config.parsing import load_config
from codistill.errors import Notice
from codistill.models.ensemble import Ensemble
from codistill.models.ladder import describe_students
from codistill.training.loop import Trainer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the two commands, a config beside them and a small CIFAR-10."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "configs").mkdir()
    return tmp_path


def configure(clone: Path, **changes: Any) -> None:
    """Write configs/mine.py: three epochs of two students, with these fields set (`__` stands for a dot)."""
    small = {
        "model.No_students": 2,
        "model.gpu": [],
        "dataset_cfg.id_cfg.name": "CIFAR10",
        "dataset_cfg.id_cfg.num_classes": 10,
        "dataset_cfg.train_cfg.batch_size": 16,
        "train_cfg.scheduler": {"name": "StepLR", "step_size": 1, "gamma": 0.5},
        "train_cfg.test_interval": 1,
        "train_cfg.epochs": 3,
        "Load_run_id": None,
        "Load_Epoch": None,
    }
    fields = small | {name.replace("__", "."): value for name, value in changes.items()}
    (clone / "configs" / "mine.py").write_text(as_python(changed(fields)))


def tool(clone: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=clone / "tools",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONUNBUFFERED": "1", "CODISTILL_CACHE": str(clone / "cache"), "OMP_NUM_THREADS": "1"},
    )


def output(process: subprocess.Popen[str], status: int = 0) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, err
    return out + err


def runs(clone: Path) -> list[Path]:
    return sorted((clone / "Model_storage").iterdir(), key=lambda path: path.stat().st_mtime)


@pytest.mark.slow
def test_the_walk(clone: Path) -> None:
    make_cifar10(clone / "data", per_class=60, layout="cifar10/cifar-10-batches-py")
    train = ("train.py", "--cfg=configs/mine.py")
    configure(clone)

    # Train, and stop after the second epoch.
    process = tool(clone, *train)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/3"):
            process.send_signal(signal.SIGINT)
            break
    assert "continue with: codistill resume" in output(process, 130)
    (first,) = runs(clone)
    assert len(first.name) == len("11_24_15_30")
    assert (first / "checkpoints" / "epoch-00002.pt").exists()

    # Resume after an earlier epoch: a new folder, which names the first.
    configure(clone, Train_resume=True, Load_run_id=first.name, Load_Epoch=1)
    told = output(tool(clone, *train))
    assert "3 is the total, so 2 follow; the authors' code trained 3 more" in told
    again = runs(clone)[-1]
    parent = json.loads((again / "environment.json").read_text())["parent"]
    assert parent == {"run": str(first), "epoch": 1}
    assert (again / "results.json").exists()
    assert (again / "Plots" / "Accuracy_comparision_Combined_Teacher.png").exists()
    assert (again / "Accuracy_arrays" / "Validation" / "Valid_Accuracies_for_Student_2.npy").exists()
    rates = [json.loads(line)["learning_rate"] for line in (again / "metrics.jsonl").read_text().splitlines()]
    assert rates == [0.001, 0.0005, 0.00025]  # The schedule steps, also across the stop.

    # One student alone.
    configure(clone, Single_model_mode=1)
    output(tool(clone, *train))
    alone = runs(clone)[-1]
    assert load_config(alone / "config.yaml").model.students == (2,)
    assert list(json.loads((alone / "results.json").read_text())["students"]) == ["S2"]

    # Compare: the authors' evaluator in both modes, and ours.
    report = output(tool(clone, "Best_accuracy_evaluator.py", "--run_id", again.name))
    assert "Epoch: the last: no validation images could choose another" in report
    assert "| teacher" in report
    report = output(
        tool(
            clone,
            "Best_accuracy_evaluator.py",
            "--run_id",
            again.name,
            "--mode=2",
            "--stu_run_id",
            alone.name,
        )
    )
    ours, baseline = (
        json.loads((run / "results.json").read_text())["students"]["S2"] for run in (again, alone)
    )
    new, old = (100 * each["last"]["test_accuracy"] for each in (ours, baseline))
    assert f"{old:.3f}" in report
    assert f"{100 * (new - old) / old:.3f}" in report
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", str(again), str(alone)])
    assert end.value.code == 0

    # Test one student as it was after an epoch.
    configure(clone, Validate_only=True, Validate_student_no=1, Load_run_id=again.name, Load_Epoch=2)
    told = output(tool(clone, *train))
    record = json.loads((again / "metrics.jsonl").read_text().splitlines()[1])
    assert re.search(rf"\| S2 +\| +{100 * record['test']['accuracy']['S2']:.2f} \|", told)
    assert "test %, after epoch 2" in told
    assert "| S1 " not in told
    assert runs(clone)[-1] in (alone, again)  # Nothing was trained.


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    error = capsys.readouterr().err
    assert end.value.code == 2
    lines = [line for line in error.splitlines() if not line.startswith("codistill: note: ")]
    assert len(lines) == 1, error
    return lines[0]


def test_what_torch_does_not_take_is_refused_before_anything_is_written(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cifar10(clone / "data", layout="cifar10/cifar-10-batches-py")
    monkeypatch.chdir(clone / "tools")
    wrong = {
        "train_cfg__optimizer": ({"name": "SGD", "lr": 0.1, "momentun": 0.9}, "did you mean momentum?"),
        "train_cfg__scheduler": ({"name": "StepLR"}, "schedule.arguments.step_size is needed for StepLR"),
        "train_cfg__criterion__L1": ("NLLLoss", "NLLLoss takes log-probabilities"),
        "train_cfg__criterion__L3": ("KLDivLoss", "use MSELoss"),
    }
    for field, (value, message) in wrong.items():
        configure(clone, **{field: value})
        for command in ("train", "convert"):
            assert message in refused(capsys, command, "../configs/mine.py")
    configure(clone, Train_resume=True, Load_run_id="11_24_15_30", Load_Epoch=1)
    message = refused(capsys, "train", "../configs/mine.py")
    assert "Load_run_id: ../Model_storage/11_24_15_30: is no run folder" in message
    assert not (clone / "Model_storage").exists()


def test_convert_prints_yaml_that_says_the_same(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    configure(clone, Single_model_mode=1, Validate_only=True, Load_run_id="x", Load_Epoch=2)
    with pytest.raises(SystemExit) as end:
        cli.main(["convert", "configs/mine.py"])
    assert end.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("# Single_model_mode: codistill baseline THIS.yaml --student 2\n")
    assert "# Validate_only: codistill evaluate ../Model_storage/x --epoch 2 --student 2\n" in printed.out
    assert printed.err.startswith("codistill: note: configs/mine.py line ")
    Path("c.yaml").write_text(printed.out)
    assert load_config("c.yaml").schedule.arguments == {"step_size": 1, "gamma": 0.5}
    assert yaml.safe_load(printed.out)["model"]["name"] == "cifar_resnet20"


def test_gpus_that_are_not_here_are_told(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    configure(clone, model__DataParallel=True, model__gpu=[0, 1])
    with pytest.raises(SystemExit):
        cli.main(["convert", "configs/mine.py"])
    printed = capsys.readouterr()
    assert "names 2 GPUs for DataParallel, 0 CUDA devices are here: the CPU takes each batch" in printed.err
    assert yaml.safe_load(printed.out)["training"]["processes"] == 1


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (tools_train, ["--cfg=configs/none.py"], "none.py: cannot be read: No such file or directory"),
        (tools_train, ["--cfg=configs/x.yaml"], "x.yaml is no .py file"),
        (tools_train, ["configs/mine.py"], "configs/mine.py: unexpected; usage: python3 train.py"),
        (tools_train, ["--cfg"], "--cfg: needs a value"),
        (best_accuracies, [], "--run_id is needed"),
        (best_accuracies, ["--run_id", "x"], "x: is no run folder"),
        (best_accuracies, ["--run_id=x", "--mode=3"], "--mode must be 1 or 2, not '3'"),
        (best_accuracies, ["--run_id=x", "--mode=2"], "--stu_run_id is needed in mode 2"),
        (best_accuracies, ["--run_id=x", "--stu_run_id=y"], "--stu_run_id is for mode 2"),
        (best_accuracies, ["--run_id=x", "--modus=2"], "--modus=2: unexpected; usage: "),
    ],
)
def test_a_wrong_word_is_named(
    command: Any, words: list[str], message: str, clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.run_and_exit(lambda: command(words, clone / "tools"))
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_network_converts_and_builds(
    name: str, clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    configure(clone, model__name=name, model__No_students=3)
    with pytest.raises(SystemExit) as end:
        cli.main(["convert", "configs/mine.py"])
    assert end.value.code == 0
    Path("c.yaml").write_text(capsys.readouterr().out)
    model = completed(load_config("c.yaml")).model
    size = 224 if name.startswith("Efficientnet") else 32  # The authors' transforms of CIFAR-10.
    facts: Any = {"in_channels": 3, "num_classes": 10, "image_size": (size, size)}
    with torch.device("meta"):
        ensemble = Ensemble(describe_students(model, **facts))
        outputs = ensemble.eval()(torch.zeros(2, 3, size, size))
    assert [tuple(output.logits.shape) for output in outputs.values()] == [(2, 10)] * 3


IN_THE_AUTHORS_LAYOUT: dict[str, Any] = {
    "MNIST": lambda folder: make_idx(folder, "mnist", layout="MNIST"),
    "Fashion-MNIST": lambda folder: make_idx(folder, layout="Fashion-MNIST"),
    "CIFAR10": lambda folder: make_cifar10(folder, layout="cifar10/cifar-10-batches-py"),
    "CIFAR100": make_cifar100,
    "SVHN": lambda folder: make_svhn(folder, layout="SVHN"),
    "STL10": make_stl10,
    "Caltech": lambda folder: make_caltech(folder / "Caltech", split=True),
    "CUB2011": make_cub,
    "Imagenet": lambda folder: make_imagenet(folder, layout="ImageNet"),
}


class Enough(Exception):  # noqa: N818 - not an error
    """Two steps were taken."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_every_data_set_is_trained_on_for_two_steps(
    name: str, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    IN_THE_AUTHORS_LAYOUT[name](clone / "data")
    configure(
        clone,
        dataset_cfg__id_cfg__name=name,
        dataset_cfg__id_cfg__num_classes=None,
        dataset_cfg__train_cfg__batch_size=50 if name == "CIFAR100" else 3,
    )
    losses: list[float] = []
    original = Trainer.train_step

    def train_step(self: Trainer, batch: Any, phase: Any) -> dict[str, float]:
        losses.append(original(self, batch, phase)["loss"])
        if len(losses) == 2:
            raise Enough
        return {"loss": losses[-1]}

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.warns(Notice), pytest.raises(Enough):
        tools_train(["--cfg=configs/mine.py", "--training.threads=2"], clone / "tools")
    assert all(0 < loss < 1000 for loss in losses)
