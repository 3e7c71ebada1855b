"""The commands as a user types them: what they print, what they refuse, with which status they end."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from copies import make_folder

import codistill
from codistill import cli
from codistill.config import Config


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


@pytest.fixture
def words(small_config: Config) -> list[str]:
    """The settings of `small_config`, one epoch, as words of a command."""
    return [
        "--data.source=folder",
        f"--data.root={small_config.data.root}",
        "--data.crop_padding=1",
        "--model.num_students=2",
        "--training.epochs=1",
        "--training.batch_size=12",
        "--training.threads=1",
        f"--run.folder={small_config.run.folder}",
    ]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert out.startswith(f"usage: codistill {command}")


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("--help",)):
        status, out, _ = run(capsys, *words)
        assert status == 0
        assert all(f"\n  {command} " in out for command in cli.COMMANDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "trian is no command; did you mean train?"),
        (["train", "missing.yaml"], "missing.yaml: cannot be read: No such file or directory"),
        (
            ["train", "a.yaml", "b.yaml"],
            "b.yaml: unexpected after a.yaml; settings are given as --section.key value",
        ),
        (["train", "--training.epochs"], "--training.epochs: needs a value"),
        (["train", "--training.epoch", "3"], "--training.epoch is no setting; did you mean training.epochs?"),
        (["train", "--training.epochs", "many"], "--training.epochs must be a whole number, not 'many'"),
        (["train", "--seed", "-1"], "seed must be at least 0, not -1"),
        (["train", "--run.name", "../outside"], "run.name must be up to 151 letters"),
        (
            ["train", "--data.source", "folder", "--data.root", "/nowhere"],
            "data.root: '/nowhere' does not exist",
        ),
        (["train", "--training.device", "cuda"], "training.device cuda: torch finds no CUDA device here"),
        (["train", "--model.num_students", "17"], "at most 16 students are possible"),
        (["train", "--data.num_classes", "7"], "data.num_classes: is 7, but digits has 10 classes"),
        (["resume"], "a run folder is needed; usage: codistill resume RUN"),
        (["resume", "/nowhere"], "/nowhere: is no run folder: it has no config.yaml"),
        (["resume", "x", "--fast", "y"], "--fast is no option here; usage: codistill resume RUN"),
        (["baseline"], "--student is needed: the student's number, or all"),
        (["baseline", "--student", "6"], "student 6 is not in this ensemble: choose one of 1, 2, 3, 4, 5"),
        (["baseline", "--student", "x"], "--student must be one of 1, 2, 3, 4, 5 or all, not 'x'"),
        (
            ["sweep", "--seed", "0"],
            "sweep: nothing varies; give a setting several values, such as --seed 0,1,2",
        ),
        (["sweep", "--seed", "0,,1"], "--seed: '0,,1' holds an empty value"),
        (["sweep", "--seed", "0,x"], "--seed must be a whole number, not 'x'"),
        (["evaluate", "/nowhere"], "/nowhere: is no run folder: it has no config.yaml"),
        (["compare", "/nowhere"], "/nowhere"),
        (["compare", "--which", "first", "x"], "--which must be last or best, not 'first'"),
        (["profile", "--model.name", "vgg"], "model.name must be one of cifar_resnet20"),
    ],
)
def test_a_mistake_gets_one_line_and_status_2(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "cuda" in words and codistill_sees_cuda():
        pytest.skip("there is a CUDA device here")
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert err.startswith("codistill: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "runs").exists()


def codistill_sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_print_config_prints_what_would_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run(capsys, "train", "--seed", "3", "--print_config")
    assert status == 0
    file = tmp_path / "config.yaml"
    file.write_text(out)
    assert codistill.load_config(file) == Config(seed=3)


def test_train_evaluate_compare_and_sweep(
    words: list[str], small_config: Config, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = Path(small_config.run.folder)
    status, out, err = run(capsys, "train", *words, "--run.name=five")
    assert (status, err) == (0, "")
    assert "| S1 " in out
    assert "memory about" in out
    assert out.count("expected end") == 1  # Corrected after 20 steps only; these are 4.
    assert out.rstrip().endswith(f"run {runs / 'five'}")

    status, out, _ = run(capsys, "resume", str(runs / "five"))
    assert (status, out) == (0, f"{runs / 'five'}: has finished; nothing is left to do\n")

    status, out, _ = run(capsys, "baseline", str(runs / "five"), "--student", "all", "--run.name=alone")
    assert status == 0
    assert {path.name for path in (runs / "alone").iterdir()} == {"group.json", "S1", "S2"}

    status, out, _ = run(capsys, "compare", str(runs / "five"), str(runs / "alone"))
    assert status == 0
    assert "S2" in out

    status, out, _ = run(capsys, "evaluate", str(runs / "five"))
    assert status == 0
    assert "on 48 images of folder" in out
    flat = make_folder(tmp_path / "flat", per_class=5, classes=("cat", "dog"), size=(8, 8), splits=("",))
    status, out, _ = run(capsys, "evaluate", str(runs / "five"), "--data", str(flat["root"]))
    assert status == 0
    assert "on 10 images of folder" in out
    other = make_folder(tmp_path / "other", per_class=5, classes=("cat", "cow"), size=(8, 8), splits=("",))
    status, _, err = run(capsys, "evaluate", str(runs / "five"), "--data", str(other["root"]))
    assert status == 2
    assert "the data's classes are not those of S1: 2 (cat, cow) instead of 2 (cat, dog)" in err

    status, out, _ = run(
        capsys, "sweep", *words, "--seed", "0,1", "--objective.temperature=1,2", "--run.name=grid"
    )
    assert status == 0
    group = json.loads((runs / "grid" / "group.json").read_text())
    assert group["parameters"] == ["seed", "objective.temperature"]
    assert [member["name"] for member in group["runs"]] == [
        "seed=0,objective.temperature=1",
        "seed=0,objective.temperature=2",
        "seed=1,objective.temperature=1",
        "seed=1,objective.temperature=2",
    ]
    assert "weighted" in out
    assert out.count("±") >= 4


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_was_stopped(
    words: list[str],
    small_config: Config,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from codistill.training.loop import Trainer

    original = Trainer.finish_epoch
    calls = 0

    def finish_epoch(self: Trainer) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    monkeypatch.setattr(Trainer, "finish_epoch", finish_epoch)
    status, _, err = run(capsys, "sweep", *words, "--seed=0,1,2", "--run.name=stopped")
    group = Path(small_config.run.folder) / "stopped"
    assert (status, err) == (143, f"stopped; continue with: codistill resume {group}\n")
    assert {path.name for path in group.iterdir()} == {"group.json", "seed=0", "seed=1"}
    first = (group / "seed=0" / "results.json").read_bytes()
    status, out, _ = run(capsys, "resume", str(group))
    assert status == 0
    assert all((group / f"seed={seed}" / "results.json").is_file() for seed in range(3))
    assert (group / "seed=0" / "results.json").read_bytes() == first
    assert "| 3 " in " ".join(out.split())


@pytest.mark.slow
def test_profile_prints_the_papers_relative_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(
        capsys, "profile", "--data.source=cifar10", "--data.root=unread", "--training.threads=1"
    )
    assert status == 0
    assert "cifar_resnet20, 10 classes, images 3×32×32" in out
    for name, size in zip(("S1", "S2", "S3", "S4", "S5"), (100.0, 62.95, 35.61, 15.50, 3.95), strict=True):
        row = next(line for line in out.splitlines() if line.startswith(f"| {name} "))
        assert float(row.split("|")[3]) == pytest.approx(size, abs=0.01)


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(words: list[str], small_config: Config) -> None:
    command = [sys.executable, "-m", "codistill", "train", *words, "--training.epochs=500", "--run.name=long"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 1/500"):
                process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate(timeout=60)
    run_folder = Path(small_config.run.folder) / "long"
    assert (process.returncode, err) == (130, f"stopped; continue with: codistill resume {run_folder}\n")


def test_a_full_disk_gets_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr("codistill.atomic.os.fsync", full)
    status, _, err = run(capsys, "train", *words)
    assert status == 2
    assert err.startswith("codistill: error: ")
    assert err.endswith("No space left on device\n")
    assert err.count("\n") == 1


def test_python_names_are_what_they_say() -> None:
    assert set(dir(codistill)) == set(codistill.__all__)
    for name in codistill.__all__:
        assert getattr(codistill, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        codistill.nonsense  # noqa: B018 - the attribute is asked for on purpose


def test_a_config_from_python_is_checked_like_one_from_a_file(small_config: Config) -> None:
    config = replace(small_config, training=replace(small_config.training, epochs=0))
    with pytest.raises(codistill.InputError, match=r"training\.epochs must be at least 1, not 0"):
        codistill.train(config)
