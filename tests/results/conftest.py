"""Run folders as plain files, the way the trainer leaves them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from codistill.config import Config, ModelConfig, baseline

PARAMETERS = {1: 1000, 2: 630, 3: 356, 4: 155, 5: 40}

MakeRun = Callable[..., Path]
MakeGroup = Callable[..., Path]


def correct_images(percent: float, images: int) -> np.ndarray:
    """Return which images are right, shape [images]: the first ones."""
    return np.arange(images) < round(images * percent / 100)


def result(number: int, last: float, best: float | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "parameters": PARAMETERS[number],
        "relative_size_percent": PARAMETERS[number] / 10,
        "macs": PARAMETERS[number] * 100_000,
        "last": {"epoch": 30, "test_accuracy": last},
    }
    if best is not None:
        entry["best"] = {"epoch": 20, "validation_accuracy": 0.5, "test_accuracy": best}
    return entry


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a finished run.

    `right` gives for each trained student, and last for the teacher of several, its accuracy in percent or
    which test images it has right. `changes` are config entries by dotted name. The best epoch, where there
    is one, has the same predictions as the last.
    """

    def make(
        name: str,
        right: Sequence[float | np.ndarray],
        *,
        student: int | None = None,
        changes: dict[str, Any] | None = None,
        best: bool = True,
        images: int = 1000,
        classes: Sequence[str] = ("cat", "dog"),
    ) -> Path:
        num_students = 5 if student else len(right) - 1
        config = Config(model=ModelConfig(num_students=num_students))
        if student:
            config = baseline(config, student)
        content = json.loads(json.dumps(asdict(config)))
        for dotted, value in (changes or {}).items():
            section, _, key = dotted.rpartition(".")
            (content[section] if section else content)[key] = value
        labels = np.arange(images, dtype=np.int64) % 2
        tensors, students = {"labels": labels}, {}
        numbers = [student] if student else [*range(1, num_students + 1), None]
        for number, given in zip(numbers, right, strict=True):
            correct = given if isinstance(given, np.ndarray) else correct_images(given, images)
            key = f"S{number}" if number else "teacher"
            accuracy = float(np.mean(correct))
            students[key] = result(number or 1, accuracy, accuracy if best else None)
            for which in ("last", "best") if best else ("last",):
                tensors[f"{which}/{key}"] = np.where(correct, labels, 1 - labels)
        path = tmp_path / name
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(yaml.safe_dump(content))
        save_file(tensors, path / "predictions.safetensors")
        results = {
            "train_images": 900,
            "validation_images": 100 if best else 0,
            "test_images": images,
            "classes": list(classes),
            "seconds": 12.5,
            "epochs": 30,
            "students": students,
        }
        (path / "results.json").write_text(json.dumps(results))
        return path

    return make


@pytest.fixture
def make_group(tmp_path: Path) -> MakeGroup:
    """Return a function that writes group.json beside runs that are or are not there."""

    def make(name: str, kind: str, parameters: list[str], runs: dict[str, dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        content = {
            "kind": kind,
            "parameters": parameters,
            "runs": [{"name": run, "values": values} for run, values in runs.items()],
        }
        (path / "group.json").write_text(json.dumps(content))
        return path

    return make
