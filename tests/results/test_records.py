import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from codistill.errors import InputError
from codistill.results.records import read_group, read_run, read_runs
from codistill.results.run_files import Evaluation

MakeRun = Callable[..., Path]
MakeGroup = Callable[..., Path]


def message_of(call: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    return message


def change_results(run: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = json.loads((run / "results.json").read_text())
    change(content)
    (run / "results.json").write_text(json.dumps(content))
    return run


def test_ensemble_is_read(make_run: MakeRun) -> None:
    run = read_run(make_run("run", [90, 80.5, 91], changes={"seed": 7}))
    assert run.seed == 7
    assert run.students == (1, 2)
    assert run.num_students == 2
    assert run.config["optimizer"]["lr"] == 0.1
    assert run.results.classes == ("cat", "dog")
    assert run.results.seconds == 12.5
    assert list(run.results.students) == ["S1", "S2", "teacher"]
    assert run.results.students["S2"].parameters == 630
    assert run.results.students["S2"].last == Evaluation(
        epoch=30, test_accuracy=0.805, validation_accuracy=None
    )
    assert run.accuracy("S2", "best") == 80.5
    right = run.predictions("S2", "last") == run.labels()
    assert right.tolist() == [True] * 805 + [False] * 195


def test_students_come_in_order_whatever_the_file_has(make_run: MakeRun) -> None:
    path = make_run("run", [90, 80, 91])
    change_results(path, lambda c: c.update(students=dict(reversed(c["students"].items()))))
    assert list(read_run(path).results.students) == ["S1", "S2", "teacher"]


def test_baseline_is_read(make_run: MakeRun) -> None:
    run = read_run(make_run("run", [70], student=5, best=False))
    assert run.students == (5,)
    assert run.num_students == 5
    assert not run.has_best
    assert "S5: without validation images there is only the last" in message_of(
        lambda: run.accuracy("S5", "best")
    )


def test_group_is_expanded_in_its_order(make_run: MakeRun, make_group: MakeGroup) -> None:
    single = make_run("single", [90, 80, 91])
    group = make_group("group", "sweep", ["seed"], {"seed=1": {"seed": 1}, "seed=0": {"seed": 0}})
    for seed in (0, 1):
        make_run(f"group/seed={seed}", [90, 80, 91], changes={"seed": seed})
    names = [run.path.name for run in read_runs([group, single])]
    assert names == ["seed=1", "seed=0", "single"]


def test_places_that_are_no_run(tmp_path: Path, make_group: MakeGroup) -> None:
    assert (
        message_of(lambda: read_run(tmp_path / "x"))
        == f"{tmp_path / 'x'} is no folder: give the folder of a run"
    )
    assert "has no config.yaml: give the folder of a run" in message_of(lambda: read_run(tmp_path))
    group = make_group("group", "sweep", ["seed"], {"seed=0": {"seed": 0}})
    assert "holds a group of runs" in message_of(lambda: read_run(group))
    assert "group/seed=0 is no folder" in message_of(lambda: read_runs([group]))
    assert "has no group.json" in message_of(lambda: read_group(tmp_path))


def test_unfinished_run_says_how_to_finish_it(make_run: MakeRun) -> None:
    path = make_run("run", [90, 80, 91])
    (path / "results.json").unlink()
    assert (
        message_of(lambda: read_run(path)) == f"{path} is not finished: `codistill resume {path}` finishes it"
    )


def test_every_torn_results_file_is_refused(make_run: MakeRun) -> None:
    path = make_run("run", [90, 80, 91])
    whole = (path / "results.json").read_bytes()
    for length in range(0, len(whole), 7):
        (path / "results.json").write_bytes(whole[:length])
        assert f"{path / 'results.json'} is torn or damaged, it must be JSON" in message_of(
            lambda: read_run(path)
        )


def test_deeply_nested_results_are_refused(make_run: MakeRun) -> None:
    path = make_run("run", [90, 80, 91])
    (path / "results.json").write_text("[" * 100_000)
    assert "torn or damaged" in message_of(lambda: read_run(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("test_images"), "test_images must be a whole number of at least 1, it is missing"),
        (lambda c: c.update(epochs=-1), "epochs must be a whole number of at least 0, it is -1"),
        (
            lambda c: c.update(train_images=True),
            "train_images must be a whole number of at least 0, it is True",
        ),
        (lambda c: c.update(seconds=float("nan")), "seconds must be a number of at least 0, it is nan"),
        (lambda c: c.update(classes="cat"), "classes must be a list of names, it is 'cat'"),
        (
            lambda c: c.update(students=[]),
            "students must be an object with an entry for each student, it is []",
        ),
        (lambda c: c["students"].update(S2=3), "students.S2 must be an object, it is 3"),
        (lambda c: c["students"]["S2"].pop("last"), "students.S2.last must be an object, it is missing"),
        (
            lambda c: c["students"]["S1"]["best"].update(test_accuracy=90),
            "students.S1.best.test_accuracy must be a number of at least 0 and at most 1, it is 90",
        ),
    ],
)
def test_unknown_format_is_refused(make_run: MakeRun, change: Callable[..., Any], message: str) -> None:
    path = change_results(make_run("run", [90, 80, 91]), change)
    assert message_of(lambda: read_run(path)) == f"{path / 'results.json'}: {message}: unknown format"


def test_results_must_be_those_of_the_config(make_run: MakeRun) -> None:
    path = change_results(make_run("run", [90, 80, 91]), lambda c: c["students"].pop("S2"))
    assert "has results of S1, teacher, config.yaml asks for S1, S2, teacher" in message_of(
        lambda: read_run(path)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: [", "is torn or damaged, it must be YAML"),
        ("- 1", "its content must be a mapping with a section model"),
        ("model: {num_students: 5}", "seed must be a whole number of at least 0, it is missing"),
        ("{seed: 0, model: {num_students: 0}}", "model.num_students must be a whole number of at least 1"),
        (
            "{seed: 0, model: {num_students: 5, students: 5}}",
            "model.students must be a list of numbers, it is 5",
        ),
        (
            "!!python/object/apply:os.abort []",
            "is torn or damaged, it must be YAML: could not determine a constructor",
        ),
    ],
)
def test_damaged_config_is_refused(make_run: MakeRun, text: str, message: str) -> None:
    path = make_run("run", [90, 80, 91])
    (path / "config.yaml").write_text(text)
    assert message in message_of(lambda: read_run(path))


def test_unreadable_predictions_are_refused_when_asked_for(make_run: MakeRun) -> None:
    path = make_run("run", [90, 80, 91])
    run, file = read_run(path), path / "predictions.safetensors"
    whole = file.read_bytes()
    for torn in (b"", whole[:5], whole[:200], whole[:-1], pickle.dumps({"labels": [1]})):
        file.write_bytes(torn)
        assert f"{file} cannot be read as safetensors with a tensor 'labels'" in message_of(run.labels)
    save_file({"labels": np.zeros(3, dtype=np.int64)}, file)
    assert "labels must be int64 of shape [1000], not int64 of shape [3]" in message_of(run.labels)
    save_file({"labels": np.zeros(1000, dtype=np.float32)}, file)
    assert "labels must be int64 of shape [1000], not float32 of shape [1000]" in message_of(run.labels)
    save_file({"labels": np.zeros(1000, dtype=np.int64)}, file)
    assert "with a tensor 'best/S1'" in message_of(lambda: run.predictions("S1", "best"))
    file.unlink()
    assert f"{file} is missing" in message_of(run.labels)


def test_predictions_of_another_run_are_refused(make_run: MakeRun) -> None:
    path, other = make_run("run", [90, 80, 91]), make_run("other", [90, 80.1, 91])
    (path / "predictions.safetensors").write_bytes((other / "predictions.safetensors").read_bytes())
    run = read_run(path)
    assert len(run.predictions("S1", "last")) == 1000
    assert "last/S2 is right for 0.8010 of the images, results.json says 0.8000" in message_of(
        lambda: run.predictions("S2", "last")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "other", "parameters": [], "runs": []}, "kind must be sweep or baseline, it is 'other'"),
        ({"kind": "sweep", "parameters": "seed", "runs": []}, "parameters must be a list of dotted names"),
        ({"kind": "sweep", "parameters": [], "runs": {}}, "runs must be a list, it is {}"),
        ({"kind": "sweep", "parameters": [], "runs": [{"name": "../x", "values": {}}]}, "it is '../x'"),
        ({"kind": "sweep", "parameters": [], "runs": [{"name": "..", "values": {}}]}, "it is '..'"),
        (
            {"kind": "sweep", "parameters": [], "runs": ["a"]},
            "a run's name must be the name of a folder beside it",
        ),
        (
            {"kind": "sweep", "parameters": ["seed"], "runs": [{"name": "a", "values": {}}]},
            "the values of a must be an object with seed, it is {}",
        ),
    ],
)
def test_damaged_group_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    (tmp_path / "group.json").write_text(json.dumps(content))
    assert message in message_of(lambda: read_group(tmp_path))


def test_nothing_here_imports_torch() -> None:
    code = (
        "import sys, codistill.results.compare, codistill.results.group; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_predictions_does_not_import_torch(make_run: MakeRun) -> None:
    code = (
        "import sys; from codistill.results.records import read_run; "
        "read_run(sys.argv[1]).predictions('S1', 'best'); sys.exit('torch' in sys.modules)"
    )
    path = make_run("run", [90, 80, 91])
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
