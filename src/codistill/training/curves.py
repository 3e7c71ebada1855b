"""Accuracies and losses over epochs, as pictures and arrays, under the names that the authors' code has.

Their validation set is the test set, so what is called so holds the tests on the way: one number for each
tested epoch. Training curves have one for each epoch in which all students train. Accuracies are in percent.
"""

import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codistill.atomic import write_atomically
from codistill.config.model import TEACHER

TERMS = {"label": "Normal", "feature": "Intermmediate", "distillation": "KL"}
"""The objective's terms, and what they are called in file names."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart."""
DASHES = ("-", "--", "-.", ":")
PAUSE = 60
"""Seconds from one drawing to the next."""

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity over epochs.

    Args:
        name: As file names have it.
        title: What stands above the picture.
        unit: Of its values.
        training: In each epoch.
        tests: In each tested epoch.
        arrays: Beginnings of the arrays' names in training and in tests; `None`: no arrays.
    """

    name: str
    title: str
    unit: str
    training: Sequence[float]
    tests: Sequence[float]
    arrays: tuple[str, str] | None


def write_curves(run: Path, *, pictures: bool, finished: bool) -> None:
    """Write the arrays, and the pictures where they are wanted, of a run's metrics.jsonl over what was there.

    Pictures take a second, so those of a run that goes on are drawn once a minute.
    """
    records = _joint_records(run / "metrics.jsonl")
    if not records:
        return
    tested = [record for record in records if "test" in record]
    arrays, plots = run / "Accuracy_arrays", run / "Plots"
    for folder in (arrays / "Training", arrays / "Validation", *([plots] if pictures else [])):
        folder.mkdir(parents=True, exist_ok=True)
    epochs = [record["epoch"] for record in records]
    tested_epochs = [record["epoch"] for record in tested]
    accuracies = list(_accuracies(records, tested))
    overview = plots / "Accuracy_comparision_all.png"
    is_old = not overview.exists() or time.time() - overview.stat().st_mtime > PAUSE
    draws = pictures and (finished or is_old)
    for curve in (*accuracies, *_losses(records, tested)):
        if curve.arrays:
            _save(arrays / "Training" / f"{curve.arrays[0]}{curve.name}.npy", curve.training)
            if tested:
                _save(arrays / "Validation" / f"{curve.arrays[1]}{curve.name}.npy", curve.tests)
        kind = "Accuracy" if curve.unit == "%" else "Loss"
        lines = {"training images": (epochs, curve.training), "test images": (tested_epochs, curve.tests)}
        if draws:
            _draw(plots / f"{kind}_comparision_{curve.name}.png", curve.title, curve.unit, lines)
    if tested and len(accuracies) == 1:
        _save(arrays / "Validation" / "Student_Valid_Accuracies.npy", accuracies[0].tests)
    if not draws:
        return
    where = "test" if tested else "training"
    lines = {
        curve.title.removeprefix("Accuracy of "): (tested_epochs, curve.tests)
        if tested
        else (epochs, curve.training)
        for curve in accuracies
    }
    _draw(overview, f"Accuracy on the {where} images", "%", lines)


def _accuracies(records: Sequence[Record], tested: Sequence[Record]) -> Iterator[Curve]:
    for member in records[0]["train_accuracy"]:
        yield Curve(
            name=_name(member),
            title=f"Accuracy of {member}",
            unit="%",
            training=[100 * record["train_accuracy"][member] for record in records],
            tests=[100 * record["test"]["accuracy"][member] for record in tested],
            arrays=("Train_Accuracy_for_", "Valid_Accuracies_for_"),
        )


def _losses(records: Sequence[Record], tested: Sequence[Record]) -> Iterator[Curve]:
    """Yield the whole loss, each student's with the labels, and each term summed over students."""
    training, tests = [record["train"] for record in records], [record["test"]["loss"] for record in tested]
    terms = {"loss": ("Overall_Loss", "Loss of all students, weighted")}
    terms |= {
        name: (_name(name.partition("/")[2]), f"Loss of {name.partition('/')[2]} with the labels")
        for name in training[0]
        if name.startswith("label/")
    }
    for name, (file, title) in terms.items():
        yield Curve(
            name=file,
            title=title,
            unit="loss",
            training=[record[name] for record in training],
            tests=[record[name] for record in tests],
            arrays=("Train_loss_for_", "Val_loss_for_"),
        )
    for term, file in TERMS.items():
        names = [name for name in training[0] if name.startswith(f"{term}/")]
        if names:
            yield Curve(
                name=f"Total_{file}_Loss",
                title=f"{term.capitalize()} term, sum over students",
                unit="loss, unweighted",
                training=[sum(record[name] for name in names) for record in training],
                tests=[sum(record[name] for name in names) for record in tests],
                arrays=None,
            )


def _joint_records(file: Path) -> list[Record]:
    """Return the records of the epochs in which all students train; a torn last line does not count."""
    records = []
    for line in file.read_bytes().splitlines() if file.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if record["phase"] == "joint":
            records.append(record)
    return records


def _name(member: str) -> str:
    return "Combined_Teacher" if member == TEACHER else f"Student_{member.removeprefix('S')}"


def _save(path: Path, values: Sequence[float]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype=np.float64), allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def _draw(
    path: Path, title: str, unit: str, lines: Mapping[str, tuple[Sequence[int], Sequence[float]]]
) -> None:
    """Draw lines, each a label with its epochs and values; those without values are left out."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place, (label, (epochs, values)) in enumerate(lines.items()):
        if values:
            axes.plot(
                epochs,
                values,
                DASHES[place % len(DASHES)],
                color=COLOURS[place % len(COLOURS)],
                marker="o" if len(values) < 40 else "",
                label=label,
            )
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
