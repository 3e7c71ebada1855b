"""A whole run: what it writes, that it goes on bit for bit, that it never loses or overwrites anything."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import codistill
from codistill.cli import main
from codistill.config import Config, baseline
from codistill.config.parsing import load_config
from codistill.data.loaders import load_data
from codistill.errors import DivergedError, InputError, Interrupted
from codistill.models.ensemble import mean_logits
from codistill.training import checkpoint, setup
from codistill.training.delivered import delivered_names, evaluate, load_student
from codistill.training.loop import Trainer


def named(config: Config, name: str) -> Config:
    return replace(config, run=replace(config.run, name=name))


def metrics(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def student_files(run: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted((run / "students").rglob("*"))
        if file.is_file()
    }


def results(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    del content["seconds"]
    return content


def assert_same_run(run: Path, reference: Path) -> None:
    assert metrics(run) == metrics(reference)
    assert results(run) == results(reference)
    assert student_files(run) == student_files(reference)
    ours, theirs = (load_file(folder / "predictions.safetensors") for folder in (run, reference))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@contextmanager
def signal_at(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send this process a signal within the step that is the `step`-th to be taken."""
    original = Trainer.train_step
    taken = 0

    def train_step(self: Trainer, *arguments: Any) -> dict[str, float]:
        nonlocal taken
        taken += 1
        if taken == step:
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_step)
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {}


@pytest.fixture
def finished(small_config: Config, shared: dict[str, Any]) -> Path:
    """One finished run, trained once for all tests that only read it."""
    if "run" not in shared:
        shared["run"] = codistill.train(named(small_config, "reference"))
    run: Path = shared["run"]
    return run


def test_the_folder_holds_the_whole_experiment(finished: Path) -> None:
    names = {"S1", "S2", "S3", "teacher"}
    assert {"versions", "hardware", "git_commit", "command", "started"} <= json.loads(
        (finished / "environment.json").read_text()
    ).keys()
    saved = yaml.safe_load((finished / "config.yaml").read_text())
    assert saved["training"]["engine"] == "parallel"
    assert saved["training"]["threads"] == 2
    assert saved["data"]["horizontal_flip"] is True
    records = metrics(finished)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert records[0]["train"].keys() == {
        "loss",
        *(f"label/S{n}" for n in (1, 2, 3)),
        *(f"feature/S{n}" for n in (2, 3)),
        *(f"distillation/S{n}" for n in (1, 2, 3)),
    }
    assert all(record["validation"].keys() == names for record in records)
    assert records[0]["images"] == 44
    content = results(finished)
    assert content["students"].keys() == names
    assert content["train_images"], content["test_images"] == (44, 48)
    assert content["classes"] == ["cat", "dog"]
    for variant in ("last", "best"):
        assert set(delivered_names(finished, variant)) == names
    assert sorted(file.name for file in (finished / "checkpoints").iterdir()) == [
        "step-000000008.pt",
        "step-000000012.pt",
    ]


def test_logged_losses_are_the_weighted_sum(finished: Path) -> None:
    for record in metrics(finished):
        terms = record["train"]
        weights = {"label": 0.7, "feature": 0.15, "distillation": 0.15}
        total = sum(weights[name.split("/")[0]] * value for name, value in terms.items() if name != "loss")
        assert terms["loss"] == pytest.approx(total, rel=1e-5)


def test_best_is_the_latest_epoch_with_the_highest_validation_accuracy(finished: Path) -> None:
    records = metrics(finished)
    for name, student in results(finished)["students"].items():
        accuracies = [record["validation"][name] for record in records]
        assert student["best"]["validation_accuracy"] == max(accuracies)
        assert student["best"]["epoch"] == 3 - accuracies[::-1].index(max(accuracies))


def test_delivered_students_give_the_logits_they_give_in_the_ensemble(finished: Path) -> None:
    config = load_config(finished / "config.yaml")
    data = load_data(config.data)
    state, _ = checkpoint.load_newest_checkpoint(finished / "checkpoints")
    assert state is not None
    ensemble = setup.build_ensemble(config, data)
    ensemble.load_state_dict(state["ensemble"])
    ensemble.eval()
    batch = next(iter(data.test_batches(torch.device("cpu"), torch.float32)))
    with torch.no_grad():
        outputs = ensemble(batch.images)
        for number, (name, output) in enumerate(outputs.items(), start=1):
            assert torch.allclose(
                load_student(finished, number, "last")(batch.images), output.logits, atol=1e-5
            )
            assert name == f"S{number}"
        teacher = load_student(finished, "teacher", "last")
        assert torch.allclose(teacher(batch.images), mean_logits(outputs), atol=1e-5)
    predicted = load_file(finished / "predictions.safetensors")
    images = data.test.images.images_NHWC  # type: ignore[attr-defined]
    assert torch.equal(teacher.predict(images).argmax(1), predicted["last/teacher"])
    assert torch.equal(data.test.labels, predicted["labels"])


def test_a_second_run_gives_the_same_bits(small_config: Config, finished: Path) -> None:
    config = load_config(finished / "config.yaml")
    assert_same_run(
        codistill.train(replace(named(config, "again"), run=replace(small_config.run, name="again"))),
        finished,
    )


# Steps 1 to 4 are epoch 1; 4 and 8 end an epoch, 12 the run.
@pytest.mark.parametrize(
    "step",
    [pytest.param(step, marks=() if step in (1, 4) else pytest.mark.slow) for step in (1, 3, 4, 6, 12)],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    small_config: Config, finished: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(load_config(finished / "config.yaml"), run=small_config.run)
    with (
        signal_at(step, signal.SIGTERM if step % 2 else signal.SIGINT, monkeypatch),
        pytest.raises(Interrupted, match=r"codistill resume .*run$") as stop,
    ):
        codistill.train(config)
    assert stop.value.signal_number == (signal.SIGTERM if step % 2 else signal.SIGINT)
    run = Path(small_config.run.folder) / "run"
    state, _ = checkpoint.load_newest_checkpoint(run / "checkpoints")
    assert state is not None
    assert 4 * state["progress"]["epoch"] + state["progress"]["step"] == step
    assert not (run / "results.json").exists()
    assert codistill.resume(run) == run
    assert_same_run(run, finished)
    assert codistill.resume(run) == run  # A finished run is left as it is.


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
from codistill import atomic
from codistill.config.parsing import load_config
from codistill.training.experiment import train, resume

writes, fatal = 0, int(sys.argv[2])
original = Path.replace

def replace_or_die(self, target):
    global writes
    writes += "step-" in str(target)
    if writes == fatal and "step-" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, target)

Path.replace = replace_or_die
train(load_config(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("fatal", [1, 3])
def test_a_kill_while_saving_loses_nothing(
    small_config: Config, finished: Path, tmp_path: Path, fatal: int
) -> None:
    saved = yaml.safe_load((finished / "config.yaml").read_text())
    saved["run"] = {"folder": small_config.run.folder, "name": "killed"}
    config_file = tmp_path / "config.yaml"
    config_file.write_text(yaml.safe_dump(saved))
    process = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(config_file), str(fatal)],
        capture_output=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    run = Path(small_config.run.folder) / "killed"
    assert len(list((run / "checkpoints").glob(".*.tmp"))) == 1
    codistill.resume(run)
    assert not list(run.rglob(".*.tmp"))
    assert_same_run(run, finished)


def test_the_newest_good_checkpoint_is_found(
    small_config: Config, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(load_config(finished / "config.yaml"), run=small_config.run)
    with signal_at(9, signal.SIGINT, monkeypatch), pytest.raises(Interrupted):
        codistill.train(config)
    run = Path(small_config.run.folder) / "run"
    newest = run / "checkpoints" / "step-000000009.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    codistill.resume(run)
    assert f"{newest}: cannot be read" in capsys.readouterr().out
    assert_same_run(run, finished)


def test_unreadable_checkpoints_do_not_start_a_run_again(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with signal_at(9, signal.SIGINT, monkeypatch), pytest.raises(Interrupted):
        codistill.train(small_config)
    run = Path(small_config.run.folder) / "run"
    logged = (run / "metrics.jsonl").read_bytes()
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be read, nor can any other checkpoint"):
        codistill.resume(run)
    assert (run / "metrics.jsonl").read_bytes() == logged


def test_the_best_students_of_an_epoch_survive_a_stop_before_they_are_written(
    small_config: Config, finished: Path
) -> None:
    config = replace(load_config(finished / "config.yaml"), run=small_config.run)
    original = Trainer.deliver_best

    def deliver_best(self: Trainer) -> None:
        if self.progress.epoch == 2:
            raise KeyboardInterrupt
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "deliver_best", deliver_best)
        with pytest.raises(KeyboardInterrupt):
            codistill.train(config)
    run = Path(small_config.run.folder) / "run"
    codistill.resume(run)
    assert_same_run(run, finished)


def test_a_run_goes_on_where_its_data_were_moved(
    small_config: Config, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(load_config(finished / "config.yaml"), run=small_config.run)
    folder = tmp_path / "before"
    shutil.copytree(str(config.data.root), folder)
    with signal_at(6, signal.SIGINT, monkeypatch), pytest.raises(Interrupted):
        codistill.train(replace(config, data=replace(config.data, root=str(folder))))
    folder.rename(tmp_path / "after")
    moved = Path(small_config.run.folder).parent / "moved"
    (Path(small_config.run.folder) / "run").rename(moved)
    with pytest.raises(SystemExit, match="2"):
        main(["resume", str(moved)])
    with pytest.raises(SystemExit, match="2"):
        main(["resume", str(moved), "--optimizer.lr=1"])
    with pytest.raises(SystemExit, match="0"):
        main(["resume", str(moved), "--data.root", str(tmp_path / "after")])
    assert_same_run(moved, finished)


def test_a_run_is_never_overwritten(finished: Path) -> None:
    before = student_files(finished)
    with pytest.raises(InputError, match=r"exists already; continue it with 'codistill resume"):
        codistill.train(load_config(finished / "config.yaml"))
    assert student_files(finished) == before


def test_two_processes_cannot_train_one_run(finished: Path) -> None:
    script = f"""
import fcntl, sys
lock = open({str(finished / ".lock")!r}, "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match="another process is training this run"):
            codistill.resume(finished)
        other.communicate("")


def test_a_loss_that_is_not_finite_stops_the_run(small_config: Config) -> None:
    config = replace(small_config, optimizer=replace(small_config.optimizer, lr=1e30))
    with pytest.raises(
        DivergedError, match=r"step \d+ of epoch \d: the loss is not finite: \w+ of S\d is (nan|inf)"
    ):
        codistill.train(config)
    run = Path(small_config.run.folder) / "run"
    assert not (run / "results.json").exists()


def test_weights_that_are_not_finite_are_not_saved(small_config: Config) -> None:
    original = Trainer.finish_epoch

    def finish_epoch(self: Trainer) -> None:
        if self.progress.epoch == 1:
            with torch.no_grad():
                self.ensemble.get_parameter("students.S2.head.weight")[0, 0] = torch.nan
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "finish_epoch", finish_epoch)
        with pytest.raises(DivergedError, match="step 4 of epoch 2: the weights of S2 are not finite"):
            codistill.train(small_config)
    run = Path(small_config.run.folder) / "run"
    state, _ = checkpoint.load_newest_checkpoint(run / "checkpoints")
    assert state is not None
    assert state["progress"]["epoch"] == 1
    assert all(value.isfinite().all() for value in state["ensemble"].values())


def test_a_checkpoint_of_another_run_is_refused(
    small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with signal_at(5, signal.SIGINT, monkeypatch), pytest.raises(Interrupted):
        codistill.train(small_config)
    run = Path(small_config.run.folder) / "run"
    state, _ = checkpoint.load_newest_checkpoint(run / "checkpoints")
    assert state is not None
    del state["ensemble"]["students.S2.head.weight"]
    checkpoint.save_checkpoint(run / "checkpoints", state, step=6, keep=9)
    with pytest.raises(InputError, match=r"its checkpoint is not of this run: .*S2\.head\.weight") as error:
        codistill.resume(run)
    assert "\n" not in str(error.value)


def test_double_precision_is_kept(small_config: Config) -> None:
    config = replace(small_config, training=replace(small_config.training, precision="64-true", epochs=1))
    run = codistill.train(config)
    assert torch.get_default_dtype() == torch.float32
    student = load_student(run, 2, "last")
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float64}
    table = evaluate(run).table()
    row = next(line for line in table.splitlines() if line.startswith("| S2 "))
    assert f"{100 * results(run)['students']['S2']['last']['test_accuracy']:.2f}" in row


def test_changed_data_are_noticed(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with signal_at(5, signal.SIGINT, monkeypatch), pytest.raises(Interrupted):
        codistill.train(small_config)
    assert small_config.data.root is not None
    next((Path(small_config.data.root) / "train" / "cat").iterdir()).unlink()
    with pytest.raises(InputError, match="the data have changed"):
        codistill.resume(Path(small_config.run.folder) / "run")


def test_a_baseline_starts_where_its_student_does_and_sees_its_batches(small_config: Config) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    first: dict[str, dict[str, torch.Tensor]] = {}
    original = Trainer.train_step

    def train_step(self: Trainer, batch: Any, phase: Any) -> dict[str, float]:
        name = str(self.config.run.name)
        first.setdefault(name, {key: value.clone() for key, value in self.ensemble.state_dict().items()})
        seen.setdefault(name, []).append(batch.images.clone())
        return original(self, batch, phase)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_step)
        codistill.train(named(small_config, "ensemble"))
        run = codistill.train(named(baseline(small_config, 3), "alone"))
    assert set(first["alone"]) < set(first["ensemble"])
    assert all(torch.equal(value, first["ensemble"][name]) for name, value in first["alone"].items())
    assert len(seen["alone"]) == len(seen["ensemble"]) == 12
    assert all(torch.equal(*pair) for pair in zip(seen["alone"], seen["ensemble"], strict=True))
    records = metrics(run)
    assert records[0]["train"]["loss"] == records[0]["train"]["label/S3"]
    assert results(run)["students"].keys() == {"S3"}
    full = results(run.parent / "ensemble")["students"]["S3"]
    alone = results(run)["students"]["S3"]
    assert {key: alone[key] for key in ("parameters", "relative_size_percent", "macs")} == {
        key: full[key] for key in ("parameters", "relative_size_percent", "macs")
    }


def stem(state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [value for name, value in state.items() if name.startswith("stem.")]


def test_pretraining_trains_stem_and_s1_alone_then_a_frozen_stem_keeps_still(small_config: Config) -> None:
    states: list[dict[str, torch.Tensor]] = []
    original = Trainer.finish_epoch

    def finish_epoch(self: Trainer) -> None:
        states.append({name: value.clone() for name, value in self.ensemble.state_dict().items()})
        original(self)

    training = replace(small_config.training, pretraining_epochs=1, epochs=2, freeze_stem=True)
    config = replace(
        small_config, training=training, schedule=replace(small_config.schedule, warmup_epochs=0)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "finish_epoch", finish_epoch)
        run = codistill.train(config)
    config = load_config(run / "config.yaml")
    initial = setup.build_ensemble(config, load_data(config.data)).state_dict()
    pretrained, joined, last = states
    assert all(
        torch.equal(pretrained[name], initial[name]) for name in initial if name.startswith("students.S2")
    )
    assert not any(torch.equal(*pair) for pair in zip(stem(pretrained)[:2], stem(initial)[:2], strict=True))
    assert all(torch.equal(*pair) for pair in zip(stem(last), stem(pretrained), strict=True))
    assert not torch.equal(joined["students.S2.head.weight"], initial["students.S2.head.weight"])
    records = metrics(run)
    assert [record["phase"] for record in records] == ["pretraining", "joint", "joint"]
    assert records[0]["train"].keys() == {"loss", "label/S1"}
    assert records[0]["validation"].keys() == {"S1"}
    alone = codistill.train(named(baseline(config, 2), "alone"))
    assert [record["epoch"] for record in metrics(alone)] == [2, 3]


def test_without_validation_only_the_last_epoch_is_reported(small_config: Config) -> None:
    config = replace(small_config, data=replace(small_config.data, validation_fraction=0.0))
    run = codistill.train(config)
    assert all("best" not in student for student in results(run)["students"].values())
    assert delivered_names(run, "best") == []
    assert load_student(run, 2).name == "S2"
    assert metrics(run)[0]["images"] == 48


@pytest.mark.parametrize(
    "schedule",
    [
        "plateau",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("cosine", "exponential", "constant")),
    ],
)
def test_every_schedule_goes_on_bit_for_bit(
    small_config: Config, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(
        small_config,
        model=replace(small_config.model, num_students=1),
        schedule=replace(small_config.schedule, name=schedule, patience=0, decay_epochs=1),
    )
    reference = codistill.train(named(config, "whole"))
    with signal_at(10, signal.SIGINT, monkeypatch), pytest.raises(Interrupted):
        codistill.train(named(config, "parts"))
    run = codistill.resume(reference.parent / "parts")
    assert_same_run(run, reference)
    rates = [record["learning_rate"] for record in metrics(run)]
    assert len(set(rates)) == {"constant": 1, "plateau": len(set(rates))}.get(schedule, 3)


@pytest.mark.slow
def test_streamed_images_train_to_the_same_bits(small_config: Config, finished: Path) -> None:
    config = replace(load_config(finished / "config.yaml"), run=replace(small_config.run, name="streamed"))
    assert_same_run(codistill.train(replace(config, data=replace(config.data, memory_gib=0.0))), finished)


def test_evaluate_repeats_the_reported_accuracies(finished: Path) -> None:
    table = evaluate(finished).table()
    for name, student in results(finished)["students"].items():
        row = next(line for line in table.splitlines() if line.startswith(f"| {name} "))
        for variant in ("last", "best"):
            assert f"{100 * student[variant]['test_accuracy']:.2f}" in row


def test_load_student_refuses_what_is_not_there(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no student S4: choose one of S1, S2, S3, teacher"):
        load_student(finished, 4)
    with pytest.raises(InputError, match="holds no students"):
        load_student(tmp_path, 1)
