"""The fields of the authors' config files: what each admits, and what stands for one that is missing.

`configs/config_template.py` explains them; docs/from-boc-kd.md says what becomes of each.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codistill.config.boc_kd.literals import Entry
from codistill.config.kinds import admits, allowed_values, closest, shown
from codistill.errors import InputError


class _Needed:
    """Stands where a field has no default."""


NEEDED = _Needed()


@dataclass(frozen=True)
class Field:
    """What a field admits, and what it is where it is missing."""

    kind: Any
    default: Any = NEEDED


CLASS = {"name": Field(str)}
"""A class of torch: its name, and whatever else it is called with."""
LOSSES = ("train_cfg.criterion.L1", "train_cfg.criterion.L3")
"""Names, or classes with what they are called with."""
OPTIONAL = ("train_cfg.Loss_contribution", "train_cfg.scheduler")
"""Sections whose absence means something."""

FIELDS: dict[str, Any] = {
    "model": {
        "name": Field(str),
        "pretrained": Field(bool, False),
        "No_students": Field(int, 5),
        "No_blocks": Field(int, 3),
        "DataParallel": Field(bool, False),
        "Multi_GPU_replica": Field(bool, False),
        "Common_base_freeze": Field(bool, False),
        "Collective_Base_gradient": Field(bool, False),
        "gpu": Field(tuple[int, ...] | None, ()),
    },
    "dataset_cfg": {
        "id_cfg": {
            "root": Field(str),
            "name": Field(str),
            "num_classes": Field(int | None, None),
            "download": Field(bool, False),
        },
        "train_cfg": {
            "batch_size": Field(int),
            "shuffle": Field(bool, True),
            "num_workers": Field(int, 2),
        },
        "val_cfg": {
            "batch_size": Field(int, 250),
            "shuffle": Field(bool, False),
            "num_workers": Field(int, 2),
        },
    },
    "train_cfg": {
        "optimizer": CLASS,
        "criterion": {
            "L1": Field(str, "CrossEntropyLoss"),
            "L2": Field(str, "KL_Loss"),
            "L3": Field(str, "MSELoss"),
            "Adaptation_use": Field(bool, True),
            "contribution_ratios": Field(tuple[float, float, float], (0.7, 0.15, 0.15)),
        },
        "Loss_contribution": {
            "alpha": Field(float),
            "beta": Field(float),
            "gamma": Field(float),
        },
        "scheduler": CLASS,
        "teacher_pretraining": Field(bool, False),
        "pretraining_epochs": Field(int, 10),
        "KL_loss_temperature": Field(float, 3),
        "test_interval": Field(int, 10),
        "plot_accuracy_graphs": Field(bool, True),
        "epochs": Field(int),
        "training_store_root": Field(str, "../Model_storage"),
    },
    "Single_model_mode": Field(int | None, None),
    "Train_resume": Field(bool, False),
    "Validate_only": Field(bool, False),
    "Validate_student_no": Field(int | None, None),
    "Load_run_id": Field(str | None, None),
    "Load_Epoch": Field(int | None, None),
}


class Fields:
    """The checked fields of one file, by their dotted names.

    Args:
        file: Where they stand.
        entries: What it assigns.

    Raises:
        InputError: Fields are unknown, missing without a default, or of a wrong kind; all are named.
    """

    def __init__(self, file: Path, entries: Mapping[str, Entry]) -> None:
        self.file = file
        self._values: dict[str, Any] = {}
        self._lines: dict[str, int] = {}
        self.missing: dict[str, Any] = {}
        """What the template's values were taken for."""
        problems = list(self._read("", FIELDS, entries, None))
        if problems:
            raise InputError("; ".join(problems))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._values or any(known.startswith(f"{name}.") for known in self._values)

    def where(self, name: str) -> str:
        """Return the file and, where the field stands in it, the line."""
        return f"{self.file} line {self._lines[name]}" if name in self._lines else str(self.file)

    def arguments(self, name: str) -> dict[str, Any]:
        """Return what the class at `name` is called with."""
        start = f"{name}."
        return {
            path.removeprefix(start): value
            for path, value in self._values.items()
            if path.startswith(start) and path != f"{name}.name"
        }

    def _read(
        self, prefix: str, section: Mapping[str, Any], entries: Mapping[str, Entry], line: int | None
    ) -> Iterator[str]:
        """Take the fields of a section; yield what is wrong with them."""
        for name, entry in entries.items():
            path = f"{prefix}{name}"
            where = f"{self.file} line {entry.line}"
            spec = section.get(name)
            if path in LOSSES and isinstance(entry.value, dict):
                spec = CLASS
            if spec is None and section is not CLASS:
                yield f"{where}: {path} is no field{_hint(name, path, section)}"
            elif isinstance(spec, dict):
                if isinstance(entry.value, dict):
                    yield from self._read(f"{path}.", spec, entry.value, entry.line)
                else:
                    yield f"{where}: {path} must be dict(...), not {shown(entry.value)}"
            else:
                yield from self._take(path, spec, entry)
        place = str(self.file) if line is None else f"{self.file} line {line}"
        for name, spec in section.items():
            path = f"{prefix}{name}"
            if name in entries or path in OPTIONAL:
                continue
            if isinstance(spec, dict):
                yield from self._read(f"{path}.", spec, {}, line)
            elif spec.default is NEEDED:
                yield f"{place}: {path} is missing"
            else:
                self._values[path] = self.missing[path] = spec.default

    def _take(self, path: str, field: Field | None, entry: Entry) -> Iterator[str]:
        value = _as_tuple(entry.value)
        kind = Any if field is None else field.kind
        if isinstance(entry.value, dict) or not (
            _is_argument(value) if field is None else admits(kind, value)
        ):
            allowed = "a plain value" if field is None else _allowed(kind)
            yield f"{self.file} line {entry.line}: {path} must be {allowed}, not {_shown(entry.value)}"
            return
        self._values[path] = value
        self._lines[path] = entry.line


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _is_argument(value: Any) -> bool:
    return admits(dict[str, Any], {"value": value})


def _allowed(kind: Any) -> str:
    words = allowed_values(kind)
    return words.replace("null", "None").replace("true or false", "True or False")


def _shown(value: Any) -> str:
    return "dict(...)" if isinstance(value, dict) else "None" if value is None else shown(value)


def _hint(name: str, path: str, section: Mapping[str, Any]) -> str:
    """Name the field that was meant: one of that name elsewhere, or one like it."""
    everywhere = list(_paths("", FIELDS))
    elsewhere = [known for known in everywhere if known.rpartition(".")[2] == name]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    near = closest(name, section)
    if near:
        return f"; did you mean {path.removesuffix(name)}{near}?"
    far = closest(path, everywhere, 0.5)
    return (
        f"; did you mean {far}?"
        if far
        else f"; {path.removesuffix(name) or 'the file'} has {', '.join(section)}"
    )


def _paths(prefix: str, section: Mapping[str, Any]) -> Iterator[str]:
    for name, spec in section.items():
        yield f"{prefix}{name}"
        if isinstance(spec, dict):
            yield from _paths(f"{prefix}{name}.", spec)
