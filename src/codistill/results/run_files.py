"""The plain files of a run folder, checked as they are read: config.yaml and results.json."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from codistill.errors import InputError, one_line


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One student's weights at one epoch, tested; accuracies are shares from 0 to 1."""

    epoch: int
    test_accuracy: float
    validation_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class StudentResult:
    """Size and accuracy of one student, stem included; MACs are for one image."""

    parameters: int
    relative_size_percent: float
    macs: int
    last: Evaluation
    best: Evaluation | None


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """The content of results.json: image counts, class names, training seconds and all students."""

    train_images: int
    validation_images: int
    test_images: int
    classes: tuple[str, ...]
    seconds: float
    epochs: int
    students: Mapping[str, StudentResult]
    """S1 … SN as far as they were trained, and the teacher where they were several."""


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the JSON object in this file; raises `InputError` naming the file if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is torn or damaged, it must be JSON: {one_line(error)}") from None
    if not isinstance(content, dict):
        refuse(path, "its content", "an object", content)
    return content


def refuse(path: Path, name: str, allowed: str, value: object) -> NoReturn:
    """Raise the `InputError` for an entry of a file that is missing or not what is allowed."""
    found = "missing" if value is None else f"{value!r:.60}"
    raise InputError(f"{path}: {name} must be {allowed}, it is {found}: unknown format")


def read_config(path: Path) -> Mapping[str, Any]:
    """Return the complete config of a run; raises `InputError` naming the file if it is none."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is torn or damaged, it must be YAML: {one_line(error)}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        refuse(path, "its content", "a mapping with a section model", config)
    _count(path, config, "seed")
    _count(path, config["model"], "num_students", "model.", low=1)
    students = config["model"].get("students")
    if students is not None and not (
        isinstance(students, list) and all(isinstance(n, int) for n in students)
    ):
        refuse(path, "model.students", "a list of numbers", students)
    return config


def read_results(path: Path) -> RunResults:
    """Return the content of results.json; raises `InputError` naming the file and entry if it is none."""
    content = read_json(path)
    classes, students = content.get("classes"), content.get("students")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        refuse(path, "classes", "a list of names", classes)
    if not isinstance(students, dict) or not students:
        refuse(path, "students", "an object with an entry for each student", students)
    return RunResults(
        train_images=_count(path, content, "train_images"),
        validation_images=_count(path, content, "validation_images"),
        test_images=_count(path, content, "test_images", low=1),
        classes=tuple(classes),
        seconds=_number(path, content, "seconds"),
        epochs=_count(path, content, "epochs"),
        students={name: _student(path, entry, f"students.{name}") for name, entry in students.items()},
    )


def _student(path: Path, entry: Any, where: str) -> StudentResult:
    if not isinstance(entry, dict):
        refuse(path, where, "an object", entry)
    best = entry.get("best")
    return StudentResult(
        parameters=_count(path, entry, "parameters", f"{where}."),
        relative_size_percent=_number(path, entry, "relative_size_percent", f"{where}."),
        macs=_count(path, entry, "macs", f"{where}."),
        last=_evaluation(path, entry.get("last"), f"{where}.last", validated=False),
        best=None if best is None else _evaluation(path, best, f"{where}.best", validated=True),
    )


def _evaluation(path: Path, entry: Any, where: str, *, validated: bool) -> Evaluation:
    if not isinstance(entry, dict):
        refuse(path, where, "an object", entry)
    return Evaluation(
        epoch=_count(path, entry, "epoch", f"{where}."),
        test_accuracy=_number(path, entry, "test_accuracy", f"{where}.", high=1),
        validation_accuracy=(
            _number(path, entry, "validation_accuracy", f"{where}.", high=1) if validated else None
        ),
    )


def _count(path: Path, mapping: Mapping[str, Any], key: str, where: str = "", low: int = 0) -> int:
    value = mapping.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        refuse(path, f"{where}{key}", f"a whole number of at least {low}", value)
    return value


def _number(
    path: Path, mapping: Mapping[str, Any], key: str, where: str = "", high: float = math.inf
) -> float:
    value = mapping.get(key)
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= high:
        refuse(
            path, f"{where}{key}", "a number of at least 0" + (" and at most 1" if high == 1 else ""), value
        )
    return float(value)
