"""Which runs may be compared: ensembles with the baselines that were trained under the same conditions."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codistill.config.data import DOWNLOADABLE
from codistill.errors import InputError
from codistill.results import formatting
from codistill.results.records import RunRecord

# How a run is computed and stored, not what is computed.
EXECUTION = frozenset(
    {
        "data.download",
        "data.memory_gib",
        "data.workers",
        "training.engine",
        "training.device",
        "training.processes",
        "training.threads",
        "training.checkpoint_minutes",
        "training.keep_checkpoints",
    }
)
# What a baseline has of its own.
METHOD = ("model.students", "objective.", "training.stem_gradient", "training.freeze_stem")


@dataclass(frozen=True)
class Pairs:
    """Ensembles by seed, and the baselines of their students by number of the student and seed."""

    ensembles: Mapping[int, RunRecord]
    baselines: Mapping[tuple[int, int], RunRecord]


def pair(runs: Sequence[RunRecord]) -> Pairs:
    """Return the runs in pairs, whatever their order; more than one student makes a run an ensemble.

    Raises `InputError` if there is no ensemble, if a baseline has no ensemble of its seed and student, if two
    runs take one place, or if runs differ in anything but the seed of ensembles, the method of a baseline,
    and how they were computed; the message names each differing entry and both values.
    """
    ensembles: dict[int, RunRecord] = {}
    for run in (run for run in runs if len(run.students) > 1):
        first = next(iter(ensembles.values()), run)
        _refuse_differences(run, _conditions(run) | _method(run), first, _conditions(first) | _method(first))
        if run.seed in ensembles:
            raise InputError(
                f"{run.path} and {ensembles[run.seed].path} both have seed {run.seed}: give one of them"
            )
        ensembles[run.seed] = run
    if not ensembles:
        raise InputError("an ensemble is needed: none of the runs given trained more than one student")
    baselines: dict[tuple[int, int], RunRecord] = {}
    for run in (run for run in runs if len(run.students) == 1):
        student = run.students[0]
        if run.seed not in ensembles:
            seeds = formatting.listing(sorted(ensembles))
            raise InputError(f"{run.path} has seed {run.seed}, and the ensembles given have seed {seeds}")
        ensemble = ensembles[run.seed]
        _refuse_differences(run, _conditions(run), ensemble, _conditions(ensemble))
        _check_baseline(run, ensemble)
        if (student, run.seed) in baselines:
            raise InputError(
                f"{run.path} and {baselines[student, run.seed].path} are both the baseline of S{student} "
                f"with seed {run.seed}: give one of them"
            )
        baselines[student, run.seed] = run
    return Pairs(dict(sorted(ensembles.items())), baselines)


def _check_baseline(run: RunRecord, ensemble: RunRecord) -> None:
    student = run.students[0]
    if student not in ensemble.students:
        raise InputError(f"{run.path} is a baseline of S{student}, which {ensemble.path} does not train")
    entries = _flat(run.config)
    for name, own in (("objective.label_weight", 1), ("training.freeze_stem", False)):
        if entries.get(name, own) != own:
            raise InputError(
                f"{run.path} is no baseline: its {name} is {_text(entries[name])},"
                f" a baseline's is {_text(own)}"
            )


def _conditions(run: RunRecord) -> dict[str, Any]:
    """Return all that must be the same for a difference to come from the method."""
    results = run.results
    conditions = {
        "the count of training images": results.train_images,
        "the count of validation images": results.validation_images,
        "the count of test images": results.test_images,
        "the list of classes": list(results.classes),
    }
    conditions |= {
        name: value
        for name, value in _flat(run.config).items()
        if name != "seed" and name not in EXECUTION and not name.startswith(("run.", *METHOD))
    }
    # Runs from before there was a choice are of networks that have the small stem alone.
    conditions.setdefault("model.stem", "small")
    root = conditions.get("data.root")
    # Elsewhere the folder says which images they are; of these sources it only says where they lie.
    in_name_only = root is None or conditions.get("data.source") in DOWNLOADABLE
    conditions["data.root"] = None if in_name_only else os.path.normpath(str(root))
    return conditions


def _method(run: RunRecord) -> dict[str, Any]:
    entries = {name: value for name, value in _flat(run.config).items() if name.startswith(METHOD)}
    return entries | {"model.students": list(run.students)}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config's entries by dotted name."""
    flat: dict[str, Any] = {}
    for section, content in config.items():
        if isinstance(content, Mapping):
            flat |= {f"{section}.{name}": value for name, value in content.items()}
        else:
            flat[section] = content
    return flat


def _refuse_differences(
    run: RunRecord, ours: dict[str, Any], other: RunRecord, theirs: dict[str, Any]
) -> None:
    absent = object()
    differing = [
        f"{name} is {_text(ours[name]) if name in ours else 'absent'} against "
        f"{_text(theirs[name]) if name in theirs else 'absent'}"
        for name in ours | theirs
        if ours.get(name, absent) != theirs.get(name, absent)
    ]
    if differing:
        raise InputError(f"{run.path} cannot be compared with {other.path}: {'; '.join(differing)}")


def _text(value: object) -> str:
    """Return a value as YAML and JSON spell it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"
