"""The two questions of the authors' evaluator: who came how far, and by how much it beats its baseline.

Theirs takes each model's highest accuracy on the test images, whichever epoch that was: what is reported
has then chosen itself. Here a run's best epoch on validation images is reported, or the last where there are
none; the highest stands beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codistill.config.model import TEACHER
from codistill.errors import InputError
from codistill.results.run_files import read_config, read_results
from codistill.tables import markdown_table


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far one model of a run came; accuracies in percent on the test images.

    Args:
        accuracy: At the epoch that is reported.
        epoch: That epoch, from 1.
        highest: Of all epochs that were tested, with the epoch; `None` where none was on the way.
    """

    accuracy: float
    epoch: int
    highest: tuple[float, int] | None


@dataclass(frozen=True, kw_only=True)
class Standings:
    """How far a run came: every model's standing, which epoch that is of, and why."""

    run: Path
    models: dict[str, Standing]
    why: str


def standings(run: str | Path) -> Standings:
    """Return how far a run came; raises `InputError` if there is no run, or nothing was tested yet."""
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: is no run folder: it has no config.yaml")
    read_config(run / "config.yaml")
    curves = _test_curves(run / "metrics.jsonl")
    highest = {name: max((value, -epoch) for epoch, value in curve.items()) for name, curve in curves.items()}
    if not (run / "results.json").is_file():
        if not curves:
            raise InputError(f"{run}: is not finished, and no epoch has been tested yet")
        models = {
            name: Standing(accuracy=curve[max(curve)], epoch=max(curve), highest=_seen(highest[name]))
            for name, curve in curves.items()
        }
        return Standings(run=run, models=models, why="the last that was tested; the run is not finished")
    results = read_results(run / "results.json").students
    chosen = {name: student.best for name, student in results.items()}
    has_best = all(chosen.values())
    models = {}
    for name, student in results.items():
        evaluation = (student.best if has_best else None) or student.last
        models[name] = Standing(
            accuracy=100 * evaluation.test_accuracy,
            epoch=evaluation.epoch,
            highest=_seen(highest[name]) if name in highest else None,
        )
    why = (
        "the best on the validation images"
        if has_best
        else "the last: no validation images could choose another (data.validation_fraction)"
    )
    return Standings(run=run, models=models, why=why)


def framework_table(run: str | Path) -> str:
    """Return mode 1: each student's accuracy, and its gain over S1 and over the teacher in percent."""
    found = standings(run)
    if TEACHER not in found.models:
        raise InputError(f"{run}: is a baseline, which has no ensemble: give the run of an ensemble")
    first, teacher = found.models.get("S1"), found.models[TEACHER]
    rows = [
        [
            name,
            f"{model.accuracy:.3f}",
            str(model.epoch),
            _gain(model, first) if name != TEACHER else "",
            _gain(model, teacher) if name != TEACHER else "",
            *_highest(model),
        ]
        for name, model in sorted(found.models.items(), key=lambda item: item[0] != TEACHER)
    ]
    headers = [
        "model",
        "accuracy %",
        "epoch",
        "gain over S1 %",
        "gain over teacher %",
        "highest %",
        "its epoch",
    ]
    return _page(f"{found.run}\nEpoch: {found.why}.", markdown_table(rows, headers), found)


def baseline_table(run: str | Path, baselines: Sequence[str | Path]) -> str:
    """Return mode 2: each baseline against the ensemble's student, 100 · (ensemble - baseline) / baseline.

    Raises:
        InputError: A run is none of these, two are of one student, or the ensemble lacks it.
    """
    found = standings(run)
    if TEACHER not in found.models:
        raise InputError(f"{run}: is a baseline, which has no ensemble: give the run of an ensemble")
    alone: dict[str, Standings] = {}
    for path in baselines:
        baseline = standings(path)
        if TEACHER in baseline.models:
            raise InputError(f"{path}: is an ensemble, where the run of a baseline is needed")
        (name,) = baseline.models
        if name in alone:
            raise InputError(f"{path}: is a second baseline of {name}, beside {alone[name].run}")
        if name not in found.models:
            raise InputError(f"{path}: is a baseline of {name}, which is not in {run}")
        alone[name] = baseline
    rows = []
    for name, baseline in sorted(alone.items(), key=lambda item: int(item[0][1:])):
        own, other = baseline.models[name], found.models[name]
        rows.append(
            [
                name,
                f"{own.accuracy:.3f}",
                f"{other.accuracy:.3f}",
                _gain(other, own),
                str(own.epoch),
                str(other.epoch),
                baseline.run.name,
            ]
        )
    headers = ["student", "baseline %", "ensemble %", "gain %", "epoch", "epoch in ensemble", "baseline run"]
    reasons = {f"Epoch of {each.run}: {each.why}." for each in (found, *alone.values())}
    return "\n".join([*sorted(reasons), "", markdown_table(rows, headers, text_columns=(0, 6))])


def _page(head: str, table: str, found: Standings) -> str:
    lines = [head, "", table]
    if any(model.highest for model in found.models.values()):
        lines += [
            "",
            "Highest: of all epochs that were tested, as the authors' evaluator reports; it flatters.",
        ]
    return "\n".join(lines)


def _gain(model: Standing, over: Standing | None) -> str:
    if over is None or over.accuracy == 0:
        return "—"
    return f"{100 * (model.accuracy - over.accuracy) / over.accuracy:.3f}"


def _highest(model: Standing) -> tuple[str, str]:
    return (f"{model.highest[0]:.3f}", str(model.highest[1])) if model.highest else ("—", "—")


def _seen(found: tuple[float, int]) -> tuple[float, int]:
    return found[0], -found[1]


def _test_curves(file: Path) -> dict[str, dict[int, float]]:
    """Return each model's accuracies in percent by epoch; a torn last line does not count."""
    curves: dict[str, dict[int, float]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file}: cannot be read") from None
    for line in lines:
        try:
            record = json.loads(line)
            tested = record.get("test") or {}
            for name, value in tested.get("accuracy", {}).items():
                curves.setdefault(name, {})[int(record["epoch"])] = 100 * float(value)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            break
    return curves
