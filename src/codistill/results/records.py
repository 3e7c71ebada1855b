"""Finished runs, read from their folders as data: JSON, YAML and safetensors, nothing that could execute."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from codistill.config.model import TEACHER
from codistill.errors import InputError, one_line
from codistill.results.run_files import RunResults, read_config, read_json, read_results, refuse

Which = Literal["last", "best"]
"""Whose weights were tested: those of the last epoch, or of the best epoch on the validation images."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A finished run; its predictions are read when they are asked for."""

    path: Path
    config: Mapping[str, Any]
    results: RunResults

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        return int(self.config["seed"])

    @property
    def num_students(self) -> int:
        """N, the students of the full ensemble, also where fewer were trained."""
        return int(self.config["model"]["num_students"])

    @property
    def students(self) -> tuple[int, ...]:
        """Numbers of the students that were trained, counted from 1."""
        return tuple(int(name[1:]) for name in self.results.students if name != TEACHER)

    @property
    def has_best(self) -> bool:
        """Whether validation images chose a best epoch for every student."""
        return all(student.best is not None for student in self.results.students.values())

    def accuracy(self, name: str, which: Which) -> float:
        """Return the test accuracy in percent of S1 … SN or the teacher.

        Raises `InputError` where there is no best epoch.
        """
        student = self.results.students[name]
        evaluation = student.last if which == "last" else student.best
        if evaluation is None:
            raise InputError(
                f"{self.path} has no best epoch for {name}: without validation images there is only the last"
            )
        return 100 * evaluation.test_accuracy

    def labels(self) -> NDArray[np.int64]:
        """Return the classes of the test images, shape [test_images]; raises `InputError` if unreadable."""
        return self._tensor("labels")

    def predictions(self, name: str, which: Which) -> NDArray[np.int64]:
        """Return the classes predicted for the test images, shape [test_images].

        Raises `InputError` if they cannot be read or are not those whose accuracy results.json states.
        """
        predicted = self._tensor(f"{which}/{name}")
        share = float(np.mean(predicted == self.labels()))
        if abs(100 * share - self.accuracy(name, which)) > 50 / self.results.test_images:
            raise InputError(
                f"{self.path / 'predictions.safetensors'}: {which}/{name} is right for {share:.4f} of "
                f"the images, results.json says {self.accuracy(name, which) / 100:.4f}: they must agree"
            )
        return predicted

    def _tensor(self, key: str) -> NDArray[np.int64]:
        path = self.path / "predictions.safetensors"
        try:
            with safe_open(path, framework="numpy") as file:
                tensor = np.asarray(file.get_tensor(key))
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: it holds the run's predictions for the test images"
            ) from None
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read as safetensors with a tensor {key!r}: {one_line(error)}"
            ) from None
        if tensor.dtype != np.int64 or tensor.shape != (self.results.test_images,):
            raise InputError(
                f"{path}: {key} must be int64 of shape [{self.results.test_images}], "
                f"not {tensor.dtype} of shape {list(tensor.shape)}"
            )
        return tensor


def read_run(path: str | Path) -> RunRecord:
    """Return the finished run in this folder; raises `InputError` if it is none, unfinished or damaged."""
    path = Path(path)
    if is_group(path):
        raise InputError(f"{path} holds a group of runs: give the folder of one of them")
    if not path.is_dir() or not (path / "config.yaml").exists():
        lacking = "has no config.yaml" if path.is_dir() else "is no folder"
        raise InputError(f"{path} {lacking}: give the folder of a run")
    if problem := unfinished(path):
        raise InputError(f"{path} {problem}")
    config = read_config(path / "config.yaml")
    results = read_results(path / "results.json")
    numbers = config["model"].get("students") or range(1, config["model"]["num_students"] + 1)
    names = [f"S{number}" for number in numbers]
    if len(names) > 1:
        names.append(TEACHER)
    if sorted(results.students) != sorted(names):
        raise InputError(
            f"{path / 'results.json'} has results of {', '.join(results.students)}, "
            f"config.yaml asks for {', '.join(names)}"
        )
    return RunRecord(
        path=path,
        config=config,
        results=replace(results, students={name: results.students[name] for name in names}),
    )


@dataclass(frozen=True, kw_only=True)
class GroupMember:
    """One run of a group: the name of its folder and the values it was given, by dotted name."""

    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The content of group.json: runs that one command started, and the dotted names that vary."""

    kind: Literal["sweep", "baseline"]
    parameters: tuple[str, ...]
    runs: tuple[GroupMember, ...]


def is_group(path: Path) -> bool:
    """Say whether this folder holds a group of runs."""
    return (path / "group.json").exists()


def read_group(path: Path) -> Group:
    """Return what the group in this folder consists of; raises `InputError` if it is none or damaged."""
    if not is_group(path):
        raise InputError(f"{path} is not the folder of a sweep or of all baselines: it has no group.json")
    file = path / "group.json"
    content = read_json(file)
    kind, parameters, runs = (content.get(key) for key in ("kind", "parameters", "runs"))
    if kind not in ("sweep", "baseline"):
        refuse(file, "kind", "sweep or baseline", kind)
    if not isinstance(parameters, list) or not all(isinstance(name, str) for name in parameters):
        refuse(file, "parameters", "a list of dotted names", parameters)
    if not isinstance(runs, list):
        refuse(file, "runs", "a list", runs)
    members = tuple(_member(file, run, parameters) for run in runs)
    return Group(kind=kind, parameters=tuple(parameters), runs=members)


def _member(file: Path, run: Any, parameters: list[str]) -> GroupMember:
    name, values = (run.get("name"), run.get("values")) if isinstance(run, dict) else (None, None)
    # A plain name alone: a group must not reach outside its folder.
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        refuse(file, "a run's name", "the name of a folder beside it", name)
    if not isinstance(values, dict) or not set(parameters) <= set(values):
        refuse(file, f"the values of {name}", f"an object with {', '.join(parameters)}", values)
    return GroupMember(name=name, values=values)


def unfinished(path: Path) -> str | None:
    """Say what is missing of the run in this folder, in words that follow its name; none: it is finished.

    results.json is the last file that a run writes.
    """
    if not (path / "config.yaml").exists():
        return "has not been started"
    if not (path / "results.json").exists():
        return f"is not finished: `codistill resume {path}` finishes it"
    return None


def read_runs(paths: Iterable[str | Path]) -> list[RunRecord]:
    """Return the runs in these folders, in order, a group's in the group's order.

    Raises `InputError` if a folder is neither, or a run is not finished or damaged.
    """
    runs = []
    for path in map(Path, paths):
        folders = [path / member.name for member in read_group(path).runs] if is_group(path) else [path]
        runs += [read_run(folder) for folder in folders]
    return runs
