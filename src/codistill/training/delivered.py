"""The models a run delivers: found in its folder, and evaluated on any data of the same classes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tabulate import tabulate

from codistill.config import DataConfig
from codistill.data.images import LabelledImages
from codistill.data.loaders import plain_batches
from codistill.data.sources import load_source
from codistill.errors import InputError
from codistill.models.ensemble import StudentOutput
from codistill.models.student_file import DeliveredModel, load_model
from codistill.training.display import TITLES
from codistill.training.evaluate import accuracy, predict

Variant = Literal["last", "best"]


def load_student(run: str | Path, student: int | str, variant: Variant | None = None) -> DeliveredModel:
    """Return a student of a run, or its ensemble teacher, as a model that stands alone.

    It is in evaluation mode, takes normalised images [B, C, H, W] and gives logits [B, K]; its
    `preprocessing` turns bytes into such images, its `classes` name the logits.

    Args:
        run: The run folder.
        student: 3 or "S3", or "teacher" for the mean of all students' logits.
        variant: "best" on validation or "last" epoch; `None` takes best where there is one.

    Raises:
        InputError: There is no such run or student, or its files cannot be read.
    """
    folder = Path(run) / "students"
    variants: tuple[Variant, ...] = ("best", "last") if variant is None else (variant,)
    name = f"S{student}" if isinstance(student, int) else student
    for candidate in variants:
        if (folder / candidate / f"{name}.json").is_file():
            return load_model(folder / candidate / name)
    found = delivered_names(run, variants[0]) or delivered_names(run, variants[-1])
    if not found:
        raise InputError(
            f"{run}: holds no students ({' or '.join(variants)}): it is no run folder or trains still"
        )
    raise InputError(f"{run}: has no student {name}: choose one of {', '.join(found)}")


def delivered_names(run: str | Path, variant: Variant) -> list[str]:
    """Return the names of a run's delivered models, S1 … SN, then teacher."""
    names = [file.stem for file in (Path(run) / "students" / variant).glob("*.json")]
    return sorted(names, key=lambda name: (not name.startswith("S"), len(name), name))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A delivered model's accuracy, 0 to 1, on so many images."""

    images: int
    accuracy: float


def evaluate_model(
    model: DeliveredModel, classes: Sequence[str], parts: Sequence[LabelledImages], *, workers: int
) -> Evaluation:
    """Return a delivered model's accuracy on images of the size, channels and classes that it knows.

    Raises:
        InputError: The images are of another shape or of other classes.
    """
    if tuple(classes) != model.classes:
        raise InputError(
            f"the data's classes are not those of {model.name}:"
            f" {_few(classes)} instead of {_few(model.classes)}"
        )
    expected = (model.preprocessing.height, model.preprocessing.width, model.preprocessing.channels)
    for part in parts:
        if part.images.image_shape != expected:
            raise InputError(
                f"the images are {_shape(part.images.image_shape)}, {model.name} takes {_shape(expected)}"
                " (height × width × channels)"
            )

    def outputs(batch: torch.Tensor) -> dict[str, StudentOutput]:
        with torch.inference_mode():
            return {model.name: StudentOutput(model(batch), ())}

    batches = itertools.chain.from_iterable(
        plain_batches(part, model.preprocessing, workers=workers, dtype=next(model.parameters()).dtype)
        for part in parts
    )
    labels, predictions = predict(outputs, batches)
    return Evaluation(images=len(labels), accuracy=accuracy(predictions[model.name], labels))


def evaluate_run(run: Path, data: DataConfig, *, all_images: bool = False) -> str:
    """Return a table of the accuracy of all delivered models of a run on the test images of `data`.

    Args:
        run: The run folder.
        data: The images; their classes must be the run's, by name and in order.
        all_images: Count the training images of `data` as well.

    Raises:
        InputError: The run has no students, or the images do not fit them.
    """
    source = load_source(data)
    parts = [source.train, source.test] if all_images else [source.test]
    columns: dict[Variant, dict[str, Evaluation]] = {}
    variants: tuple[Variant, ...] = ("last", "best")
    for variant in variants:
        names = delivered_names(run, variant)
        if names:
            models = [load_student(run, name, variant) for name in names]
            columns[variant] = {
                model.name: evaluate_model(model, source.classes, parts, workers=data.workers)
                for model in models
            }
    if not columns:
        raise InputError(f"{run}: holds no students yet: 'codistill resume {run}' finishes it")
    first = next(iter(columns.values()))
    rows = [
        [
            name,
            *(f"{100 * column[name].accuracy:.2f}" if name in column else "—" for column in columns.values()),
        ]
        for name in first
    ]
    headers = ["student", *(TITLES[variant] for variant in columns)]
    table = tabulate(
        rows, headers, tablefmt="pipe", disable_numparse=True, colalign=("left",) + ("right",) * len(columns)
    )
    images = next(iter(first.values())).images
    return f"{run} on {images:,} images of {data.source}{f' in {data.root}' if data.root else ''}\n\n{table}"


def _few(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:5])
    return f"{len(classes)} ({shown}{', …' if len(classes) > 5 else ''})"


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(str(number) for number in shape)
