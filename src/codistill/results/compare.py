"""What learning together was worth: an ensemble's students against the same students trained alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from codistill.config.model import TEACHER
from codistill.errors import InputError
from codistill.results import formatting
from codistill.results.pairing import Pairs, pair
from codistill.results.records import RunRecord, Which, read_runs
from codistill.results.spread import Spread, bootstrap_interval, spread_of
from codistill.tables import markdown_table

Verdict = Literal["better", "worse", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Ensemble minus baseline, paired by seed."""

    points: Spread
    """Absolute gain in percentage points."""

    relative_percent: Spread | None
    """100 · (ensemble - baseline) / baseline; none where a baseline is 0."""

    interval: tuple[float, float] | None
    """Where there is one pair, the bootstrap 95 % interval of the gain over test images, in points."""

    verdict: Verdict
    """unclear unless the interval excludes 0, or with several seeds |mean| exceeds the deviation."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One student, the ensemble teacher, or an average; accuracies in percent, MACs for one image."""

    name: str
    parameters: int | None
    relative_size_percent: float | None
    macs: int | None
    baseline: Spread | None
    ensemble: Spread
    gain: Gain | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ensembles and baselines side by side; plain data."""

    model: str
    source: str
    epochs: int
    test_images: int
    seeds: tuple[int, ...]
    which: Which
    rows: tuple[Row, ...]
    """S1 … SN, then teacher, mean, and weighted where all N students were trained."""

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON can hold it."""
        return asdict(self)

    def table(self) -> str:
        """Return a Markdown table with what is needed to read it above and below."""
        headers = [
            "student",
            "parameters",
            "size %",
            "MACs",
            "baseline %",
            "ensemble %",
            "gain",
            "relative %",
            "",
        ]
        rows = [
            [
                row.name,
                formatting.count(row.parameters),
                formatting.percent(row.relative_size_percent),
                formatting.macs(row.macs),
                formatting.spread(row.baseline),
                formatting.spread(row.ensemble),
                _gain_text(row.gain),
                formatting.spread(row.gain.relative_percent, sign=True) if row.gain else formatting.NONE,
                row.gain.verdict if row.gain else "",
            ]
            for row in self.rows
        ]
        return "\n".join(
            [self._title(), "", markdown_table(rows, headers, text_columns=(0, 8)), "", *self._legend()]
        )

    def _title(self) -> str:
        epoch = "last epoch" if self.which == "last" else "best epoch on the validation images"
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {formatting.listing(self.seeds)}"
        return (
            f"{self.model} on {self.source}, {self.epochs} epoch{'s' if self.epochs > 1 else ''}, {seeds}: "
            f"accuracy on {self.test_images:,} test images, which only report, at the {epoch}."
        )

    def _legend(self) -> list[str]:
        gains = {row.name: row.gain for row in self.rows if row.gain}
        lines = []
        if any(gain.interval for gain in gains.values()):
            lines.append(
                "gain: percentage points, in brackets the paired bootstrap 95 % interval over the test "
                "images of one seed; unclear where it includes 0. It says nothing of other seeds."
            )
        if any(gain.interval is None for gain in gains.values()):
            lines.append(
                "gain: percentage points paired by seed, mean ± standard deviation; "
                "unclear where its mean is within one standard deviation of 0."
            )
        if any(row.name == "weighted" for row in self.rows):
            lines.append(formatting.WEIGHTED)
        fewer = [name for name, gain in gains.items() if gain.points.n < len(self.seeds)]
        lines += [
            f"{name}: baseline and gain of {gains[name].points.n} of {len(self.seeds)} seeds."
            for name in fewer
        ]
        return lines


def compare(runs: Sequence[RunRecord | str | Path], which: Which | None = None) -> Comparison:
    """Compare ensembles with the baselines of their students, given in any order as folders or as records.

    A folder may be a group's, which stands for all its runs. `which` epoch's accuracies are compared is by
    default "best" if every run has it, else "last". Raises `InputError` for runs that cannot be compared
    (see `pair`) and for a best epoch that a run lacks.
    """
    records = [
        record for run in runs for record in ([run] if isinstance(run, RunRecord) else read_runs([run]))
    ]
    pairs = pair(records)
    if which is None:
        which = "best" if all(record.has_best for record in records) else "last"
    first = next(iter(pairs.ensembles.values()))
    rows = [_row(f"S{student}", pairs, which, {student: 1}, 1) for student in first.students]
    rows.append(_teacher(pairs, which))
    rows.append(_row("mean", pairs, which, dict.fromkeys(first.students, 1), len(first.students)))
    if len(first.students) == first.num_students:
        rows.append(_row("weighted", pairs, which, {j: j for j in first.students}, first.num_students))
    return Comparison(
        model=str(first.config["model"].get("name")),
        source=str(first.config.get("data", {}).get("source")),
        epochs=first.results.epochs,
        test_images=first.results.test_images,
        seeds=tuple(pairs.ensembles),
        which=which,
        rows=tuple(rows),
    )


def _teacher(pairs: Pairs, which: Which) -> Row:
    result = next(iter(pairs.ensembles.values())).results.students[TEACHER]
    return Row(
        name=TEACHER,
        parameters=result.parameters,
        relative_size_percent=result.relative_size_percent,
        macs=result.macs,
        baseline=None,
        ensemble=spread_of([run.accuracy(TEACHER, which) for run in pairs.ensembles.values()]),
        gain=None,
    )


def _row(name: str, pairs: Pairs, which: Which, weights: Mapping[int, int], divisor: int) -> Row:
    """Return the row of Σ weight · accuracy / divisor over students: one student is such a sum, too."""
    ensemble, baseline = {}, {}
    for seed, run in pairs.ensembles.items():
        ensemble[seed] = sum(w * run.accuracy(f"S{j}", which) for j, w in weights.items()) / divisor
        alone = {j: pairs.baselines[j, seed] for j in weights if (j, seed) in pairs.baselines}
        if len(alone) == len(weights):
            baseline[seed] = sum(w * alone[j].accuracy(f"S{j}", which) for j, w in weights.items()) / divisor
    result = next(iter(pairs.ensembles.values())).results.students.get(name)
    return Row(
        name=name,
        parameters=result.parameters if result else None,
        relative_size_percent=result.relative_size_percent if result else None,
        macs=result.macs if result else None,
        baseline=spread_of(list(baseline.values())) if baseline else None,
        ensemble=spread_of(list(ensemble.values())),
        gain=_gain(ensemble, baseline, pairs, which, weights, divisor) if baseline else None,
    )


def _gain(
    ensemble: Mapping[int, float],
    baseline: Mapping[int, float],
    pairs: Pairs,
    which: Which,
    weights: Mapping[int, int],
    divisor: int,
) -> Gain:
    points = spread_of([ensemble[seed] - alone for seed, alone in baseline.items()])
    interval = None
    if points.deviation is None:
        low, high = _interval(pairs, which, weights, seed=next(iter(baseline)))
        interval = (100 * low / divisor, 100 * high / divisor)
        clear = low > 0 or high < 0
    else:
        clear = abs(points.mean) > points.deviation
    verdict: Verdict = "unclear" if not clear else "better" if points.mean > 0 else "worse"
    relative = None
    if all(baseline.values()):
        relative = spread_of([100 * (ensemble[seed] - alone) / alone for seed, alone in baseline.items()])
    return Gain(points=points, relative_percent=relative, interval=interval, verdict=verdict)


def _interval(pairs: Pairs, which: Which, weights: Mapping[int, int], seed: int) -> tuple[float, float]:
    """Return the bootstrap interval of Σ weight · (right in the ensemble - right alone), in shares."""
    together = pairs.ensembles[seed]
    labels = together.labels()
    differences = np.zeros(len(labels), dtype=np.int64)
    for j, weight in weights.items():
        alone = pairs.baselines[j, seed]
        if not np.array_equal(alone.labels(), labels):
            raise InputError(
                f"{alone.path} and {together.path} were tested on different images: their labels differ"
            )
        right_together = together.predictions(f"S{j}", which) == labels
        right_alone = alone.predictions(f"S{j}", which) == labels
        differences += weight * (right_together.astype(np.int64) - right_alone.astype(np.int64))
    return bootstrap_interval(differences)


def _gain_text(gain: Gain | None) -> str:
    if gain is None or gain.interval is None:
        return formatting.spread(gain.points, sign=True) if gain else formatting.NONE
    low, high = gain.interval
    return f"{formatting.signed(gain.points.mean)} [{formatting.signed(low)}, {formatting.signed(high)}]"
