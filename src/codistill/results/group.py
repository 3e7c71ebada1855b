"""What a sweep or a set of baselines says: one row for each combination of what varied, over seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from codistill.config.model import TEACHER
from codistill.errors import InputError
from codistill.results import formatting
from codistill.results.records import RunRecord, Which, read_group, read_run, unfinished
from codistill.results.spread import Spread, spread_of
from codistill.tables import markdown_table


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """One combination of values; accuracies in percent on the test images, over seeds."""

    values: Mapping[str, Any]
    seeds: tuple[int, ...]
    students: Mapping[str, Spread]
    """S1 … SN as far as they were trained."""

    teacher: Spread | None
    mean: Spread | None
    """Over seeds, the mean of an ensemble's students, or of all N baselines."""

    weighted: Spread | None
    """Over seeds, the paper's Σ accuracy_j · j/N, j = 1 … N; none where not all N students are trained."""


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """A group's finished runs in a table, and those that are missing; plain data."""

    folder: str
    kind: Literal["sweep", "baseline"]
    parameters: tuple[str, ...]
    """Dotted names of what varies besides the seed."""

    which: Which
    rows: tuple[GroupRow, ...]
    missing: tuple[str, ...]
    """Runs that are not in the table: the folder and why, in words."""

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as JSON can hold it."""
        return asdict(self)

    def table(self) -> str:
        """Return a Markdown table with what is needed to read it above and below."""
        names = sorted({name for row in self.rows for name in row.students}, key=lambda name: int(name[1:]))
        averages = {
            name: [getattr(row, name) for row in self.rows]
            for name in (TEACHER, "mean", "weighted")
            if any(getattr(row, name) for row in self.rows)
        }
        rows = [
            [
                *(_text(row.values[name]) for name in self.parameters),
                str(len(row.seeds)),
                *(formatting.spread(row.students.get(name)) for name in names),
                *(formatting.spread(column[index]) for column in averages.values()),
            ]
            for index, row in enumerate(self.rows)
        ]
        headers = [*self.parameters, "seeds", *names, *averages]
        epoch = "last epoch" if self.which == "last" else "best epoch on the validation images"
        lines = [f"{self.folder}: accuracy in % on the test images, which only report, at the {epoch}.", ""]
        lines += [markdown_table(rows, headers, text_columns=())] if rows else ["No run is finished."]
        lines.append("")
        if any(len(row.seeds) > 1 for row in self.rows):
            lines.append("±: standard deviation over seeds.")
        if "weighted" in averages:
            lines.append(formatting.WEIGHTED)
        return "\n".join(lines + [f"Missing: {reason}" for reason in self.missing]).rstrip()


def summarise_group(path: str | Path) -> GroupSummary:
    """Return a table of the group in this folder; runs that are not finished are listed as missing.

    Rows stand in the order in which the runs do. The baselines of one combination share a row, one student
    each. The best epoch on the validation images is shown where every finished run has it, else the last.
    Raises `InputError` if the folder is no group, a run is damaged, or two take one place.
    """
    path = Path(path)
    group = read_group(path)
    aside = {"seed"} if group.kind == "sweep" else {"seed", "model.students"}
    parameters = tuple(name for name in group.parameters if name not in aside)
    combinations: dict[str, tuple[dict[str, Any], list[RunRecord]]] = {}
    missing = []
    for member in group.runs:
        if problem := unfinished(path / member.name):
            missing.append(f"{member.name} {problem}")
            continue
        values = {name: member.values[name] for name in parameters}
        combinations.setdefault(json.dumps(values), (values, []))[1].append(read_run(path / member.name))
    finished = [run for _, runs in combinations.values() for run in runs]
    which: Which = "best" if finished and all(run.has_best for run in finished) else "last"
    return GroupSummary(
        folder=str(path),
        kind=group.kind,
        parameters=parameters,
        which=which,
        rows=tuple(_row(values, runs, which) for values, runs in combinations.values()),
        missing=tuple(missing),
    )


def _row(values: Mapping[str, Any], runs: Sequence[RunRecord], which: Which) -> GroupRow:
    accuracies: dict[str, dict[int, float]] = {}
    for run in runs:
        for name in run.results.students:
            by_seed = accuracies.setdefault(name, {})
            if run.seed in by_seed:
                raise InputError(
                    f"{run.path} is a second run of {name} with seed {run.seed} and {dict(values)}"
                )
            by_seed[run.seed] = run.accuracy(name, which)
    teacher = accuracies.pop(TEACHER, {})
    students = {j: accuracies[f"S{j}"] for j in sorted(int(name[1:]) for name in accuracies)}
    seeds = tuple(sorted({run.seed for run in runs}))
    complete = [seed for seed in seeds if all(seed in by_seed for by_seed in students.values())]
    num_students = runs[0].num_students
    means = [sum(by_seed[seed] for by_seed in students.values()) / len(students) for seed in complete]
    weighted = [sum(j * by_seed[seed] for j, by_seed in students.items()) / num_students for seed in complete]
    all_trained = len(students) == num_students > 1 and bool(complete)
    return GroupRow(
        values=values,
        seeds=seeds,
        students={f"S{j}": spread_of(list(by_seed.values())) for j, by_seed in students.items()},
        teacher=spread_of(list(teacher.values())) if teacher else None,
        # An ensemble may be of some students; baselines of some are a set that still has gaps.
        mean=spread_of(means) if all_trained or teacher else None,
        weighted=spread_of(weighted) if all_trained else None,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
