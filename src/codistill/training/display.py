"""What a person sees while a run trains: a bar on a terminal, a line an epoch elsewhere."""

import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from codistill.config.model import TEACHER
from codistill.models.cost import StudentCost
from codistill.tables import markdown_table

STEPS_BEFORE_CORRECTION = 20
TITLES = {"last": "test %, last epoch", "best": "test %, best on validation"}


class Display:
    """Prints the progress of one run.

    Args:
        silent: Print nothing, as all processes but the first do.
    """

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent
        self._bar: tqdm[Any] | None = None
        self._measured: list[float] = []

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if not self.silent:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def costs(self, costs: Mapping[str, StudentCost]) -> None:
        """Print parameters, relative size and multiply-accumulates of every student."""
        rows = [
            [name, f"{cost.parameters:,}", f"{cost.relative_size_percent:.2f}", f"{cost.macs:,}"]
            for name, cost in costs.items()
            if name != TEACHER
        ]
        headers = ["student", "parameters", "size %", "MACs"]
        self.say(markdown_table(rows, headers))

    def forecast(self, step_seconds: float, steps_left: float, how: str = "estimated") -> None:
        """Print the expected end, given the seconds of a step and the steps that are left."""
        self.say(f"expected end {_clock(step_seconds * steps_left)} ({step_seconds:.3g} s a step, {how})")

    def begin_epoch(self, title: str, *, steps: int, done: int) -> None:
        """Show a bar of `steps` steps, `done` of them behind us, where output is a terminal."""
        if not self.silent and sys.stderr.isatty():
            self._bar = tqdm(
                total=steps, initial=done, desc=title, unit="step", dynamic_ncols=True, leave=False
            )

    def step(self, terms: Mapping[str, float], images: int, seconds: float, steps_left: float) -> None:
        """Move the bar by a step; after 20 steps print the expected end once more, from their median."""
        self._measured.append(seconds)
        if len(self._measured) == STEPS_BEFORE_CORRECTION:
            self.forecast(statistics.median(self._measured), steps_left, "measured over 20 steps")
        if self._bar is not None:
            self._bar.set_postfix_str(f"{_summary(terms)}, {images / seconds:.0f} images/s", refresh=False)
            self._bar.update()

    def end_epoch(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def epoch_line(self, record: Mapping[str, Any], epochs: int) -> None:
        """Print an epoch in one line: loss, validation accuracies, speed."""
        accuracies = _percent(record["validation"])
        tested = _percent(record["test"]["accuracy"]) if "test" in record else ""
        speed = record["images"] / max(record["seconds"]["training"], 1e-9)
        self.say(
            f"epoch {record['epoch']}/{epochs} loss {record['train']['loss']:.4f}"
            + (f" validation % {accuracies}" if accuracies else "")
            + (f" test % {tested}" if tested else "")
            + f" lr {record['learning_rate']:.3g} {speed:.0f} images/s"
        )


def results_table(results: Mapping[str, Any]) -> str:
    """Return the table that ends a run: size, cost and test accuracy of every student."""
    students = results["students"]
    variants = [name for name in ("last", "best") if all(name in row for row in students.values())]
    rows = [
        [
            name,
            f"{row['parameters']:,}",
            f"{row['relative_size_percent']:.2f}",
            f"{row['macs']:,}",
            *(f"{100 * row[variant]['test_accuracy']:.2f}" for variant in variants),
        ]
        for name, row in students.items()
    ]
    headers = ["student", "parameters", "size %", "MACs", *(TITLES[variant] for variant in variants)]
    return markdown_table(rows, headers)


def _percent(accuracies: Mapping[str, float]) -> str:
    return " ".join(f"{name} {100 * value:.2f}" for name, value in accuracies.items())


def _summary(terms: Mapping[str, float]) -> str:
    """Return the loss, and each kind of term summed over students."""
    kinds: dict[str, float] = {}
    for name, value in terms.items():
        kind = name.partition("/")[0]
        kinds[kind] = kinds.get(kind, 0.0) + value
    return " ".join(f"{kind} {value:.3f}" for kind, value in kinds.items())


def _clock(seconds: float) -> str:
    end = time.localtime(time.time() + seconds)
    form = "%H:%M:%S" if seconds < 43_200 else "%Y-%m-%d %H:%M"
    return f"{time.strftime(form, end)}, in {_duration(seconds)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
