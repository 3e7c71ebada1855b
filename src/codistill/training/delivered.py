"""The models a run delivers: found in its folder, and evaluated on any data of the same classes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from codistill.config import SOURCES, DataConfig, completed
from codistill.config.model import TEACHER
from codistill.config.parsing import load_config
from codistill.data.images import LabelledImages
from codistill.data.loaders import Data, plain_batches
from codistill.data.preprocessing import Preprocessing
from codistill.data.sources import load_source
from codistill.errors import InputError, one_line
from codistill.models.ensemble import Ensemble, load_tensors
from codistill.models.ladder import describe_students
from codistill.models.networks import OwnNetwork, admit, refuse_unknown
from codistill.models.student_file import DeliveredModel, load_model, save_model
from codistill.tables import markdown_table
from codistill.training.checkpoint import load_kept
from codistill.training.display import TITLES
from codistill.training.evaluate import accuracy, predict
from codistill.training.run import require_run

Variant = Literal["last", "best"]


def load_student(
    run: str | Path,
    student: int | str,
    variant: Variant | None = None,
    *,
    model: OwnNetwork | None = None,
) -> DeliveredModel:
    """Return a student of a run, or its ensemble teacher, as a model that stands alone.

    It is in evaluation mode, takes normalised images [B, C, H, W] and gives logits [B, K]; its
    `preprocessing` turns bytes into such images, its `classes` name the logits.

    Args:
        run: The run folder.
        student: 3 or "S3", or "teacher" for the mean of all students' logits.
        variant: "best" on validation or "last" epoch; `None` takes best where there is one.
        model: The run's network, where it is one of your own: no folder makes codistill import code.

    Raises:
        InputError: There is no such run or student, or its files cannot be read.
    """
    folder = Path(run) / "students"
    variants: tuple[Variant, ...] = ("best", "last") if variant is None else (variant,)
    name = f"S{student}" if isinstance(student, int) else student
    for candidate in variants:
        if (folder / candidate / f"{name}.json").is_file():
            return load_model(folder / candidate / name, model)
    found = delivered_names(run, variants[0]) or delivered_names(run, variants[-1])
    if not found:
        raise InputError(
            f"{run}: holds no students ({' or '.join(variants)}): it is no run folder or trains still"
        )
    raise InputError(f"{run}: has no student {name}: choose one of {', '.join(found)}")


def deliver(members: Ensemble, name: str, data: Data, folder: Path) -> None:
    """Write the stem and these students as the model `name`, with the classes and preprocessing of `data`."""
    folder.mkdir(exist_ok=True)
    model = DeliveredModel(members, name=name, classes=data.classes, preprocessing=data.preprocessing)
    save_model(model, folder / name)


def delivered_names(run: str | Path, variant: Variant) -> list[str]:
    """Return the names of a run's delivered models, S1 … SN, then teacher."""
    names = [file.stem for file in (Path(run) / "students" / variant).glob("*.json")]
    return sorted(names, key=lambda name: (not name.startswith("S"), len(name), name))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The accuracy of a run's delivered models.

    Args:
        run: The run folder.
        images: How many images were tested.
        source: Which images.
        accuracies: For last and best, or for "epoch 31", each model's share of right predictions, by name.
    """

    run: Path
    images: int
    source: str
    accuracies: dict[str, dict[str, float]]

    def table(self) -> str:
        """Return the accuracies in percent, a row for each model, as a Markdown table."""
        columns = list(self.accuracies.values())
        rows = [
            [name, *(f"{100 * column[name]:.2f}" if name in column else "—" for column in columns)]
            for name in columns[0]
        ]
        headers = ["student", *(TITLES.get(which, f"test %, after {which}") for which in self.accuracies)]
        return f"{self.run} on {self.images:,} images of {self.source}\n\n{markdown_table(rows, headers)}"


def evaluate(
    run: str | Path,
    data: DataConfig | None = None,
    *,
    all_images: bool = False,
    epoch: int | None = None,
    student: int | str | None = None,
    model: OwnNetwork | None = None,
) -> Evaluation:
    """Test all delivered models of a run in one pass, or its students as they were after an epoch.

    Args:
        run: The run folder.
        data: The images, whose classes must be the run's, by name and in order; `None`: the run's own.
            Pictures are brought to the models' size unless `data.image_size` says otherwise.
        all_images: Test on the training images of `data` as well.
        epoch: An epoch whose checkpoint is kept (`training.test_interval`), counted with those of
            pretraining; `None`: what the run delivers.
        student: 3 or "S3", or "teacher"; `None`: all.
        model: The run's network, where it is one of your own.

    Raises:
        InputError: The run has no students, or the images do not fit them.
    """
    run = Path(run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = _delivered(run, model) if epoch is None else _kept(run, epoch, model)
    if not found:
        raise InputError(f"{run}: holds no students yet: 'codistill resume {run}' finishes it")
    models = {key: each.to(device) for key, each in _of_student(run, found, student).items()}
    first = next(iter(models.values()))
    size = first.preprocessing.height
    data = completed(load_config(run / "config.yaml")).data if data is None else data
    if SOURCES[data.source].pictures and data.image_size is None and size == first.preprocessing.width:
        data = replace(data, image_size=size)
    source = load_source(data)
    parts = [source.train, source.test] if all_images else [source.test]
    _refuse_unlike(first, source.classes, parts)
    dtype = next(first.parameters()).dtype

    def logits(images: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return {f"{variant}/{name}": each(images) for (variant, name), each in models.items()}

    batches = itertools.chain.from_iterable(
        plain_batches(
            part,
            first.preprocessing,
            batch_size=data.evaluation_batch_size,
            workers=data.workers,
            device=device,
            dtype=dtype,
        )
        for part in parts
    )
    labels, predictions = predict(logits, batches)
    accuracies: dict[str, dict[str, float]] = {}
    for variant, name in models:
        accuracies.setdefault(variant, {})[name] = accuracy(predictions[f"{variant}/{name}"], labels)
    place = f" in {data.root}" if data.root else ""
    return Evaluation(run=run, images=len(labels), source=f"{data.source}{place}", accuracies=accuracies)


Models = dict[tuple[str, str], DeliveredModel]
"""Models by what they are of, last, best or an epoch, and by name."""


def _delivered(run: Path, model: OwnNetwork | None) -> Models:
    variants: tuple[Variant, ...] = ("last", "best")
    return {
        (variant, name): load_student(run, name, variant, model=model)
        for variant in variants
        for name in delivered_names(run, variant)
    }


def _kept(run: Path, epoch: int, model: OwnNetwork | None) -> Models:
    """Return the students and the teacher of a run as they were after an epoch."""
    config = load_config(require_run(run) / "config.yaml")
    if model is not None:
        admit(model, config.model.name)
    elif config.model.is_own:
        refuse_unknown(config.model.name)
    state = load_kept(run, epoch)
    try:
        classes = tuple(state["data"]["classes"])
        preprocessing = Preprocessing.from_dict(state["data"]["preprocessing"])
        students = describe_students(
            config.model,
            in_channels=preprocessing.channels,
            num_classes=len(classes),
            image_size=(preprocessing.height, preprocessing.width),
        )
        ensemble = Ensemble(students)
        load_tensors(ensemble, state["ensemble"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{run}: its checkpoint of epoch {epoch} is not of this run: {one_line(error)}"
        ) from None
    members = {name: [name] for name in students} | ({TEACHER: list(students)} if len(students) > 1 else {})
    return {
        (f"epoch {epoch}", name): DeliveredModel(
            ensemble.selected(names), name=name, classes=classes, preprocessing=preprocessing
        ).eval()
        for name, names in members.items()
    }


def _of_student(run: Path, models: Models, student: int | str | None) -> Models:
    if student is None:
        return models
    name = f"S{student}" if str(student).isdecimal() else str(student)
    chosen = {key: model for key, model in models.items() if key[1] == name}
    if not chosen:
        there = ", ".join(dict.fromkeys(member for _, member in models))
        raise InputError(f"{run}: has no student {student}: choose one of {there}")
    return chosen


def _refuse_unlike(model: DeliveredModel, classes: Sequence[str], parts: Sequence[LabelledImages]) -> None:
    if tuple(classes) != model.classes:
        raise InputError(
            f"the data's classes are not those of {model.name}:"
            f" {_few(classes)} instead of {_few(model.classes)}"
        )
    expected = model.preprocessing
    for part in parts:
        height, width, channels = part.images.image_shape
        # Grey pictures are colour pictures too.
        if (height, width) != (expected.height, expected.width) or channels not in (1, expected.channels):
            raise InputError(
                f"the images are {height} × {width} × {channels}, {model.name} takes"
                f" {expected.height} × {expected.width} × {expected.channels} (height × width × channels)"
            )


def _few(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:5])
    return f"{len(classes)} ({shown}{', …' if len(classes) > 5 else ''})"
