"""A delivered model to and from two files: weights as safetensors, everything else as JSON.

Nothing in either can execute.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from codistill.atomic import write_atomically
from codistill.config.model import NETWORKS
from codistill.data.preprocessing import Preprocessing
from codistill.errors import InputError, one_line
from codistill.models.catalog import StudentDescription
from codistill.models.ensemble import Classifier, Ensemble, load_tensors
from codistill.models.networks import OwnNetwork, admit

FORMAT = "codistill-model-1"
STUDENT_NAME = re.compile(r"S[1-9][0-9]{0,3}")


class DeliveredModel(Classifier):
    """A student, or the ensemble teacher, with all that is needed to use it.

    Args:
        ensemble: The stem and the students whose mean logits it gives.
        name: S1 … SN, or teacher.
        classes: Names of the classes, in the logits' order.
        preprocessing: From bytes to its input.
    """

    def __init__(
        self, ensemble: Ensemble, *, name: str, classes: tuple[str, ...], preprocessing: Preprocessing
    ) -> None:
        super().__init__(ensemble)
        self.name = name
        self.classes = classes
        self.preprocessing = preprocessing

    def predict(self, images_BHWC: Tensor) -> Tensor:
        """Return class probabilities [B, K] for images of bytes, uint8 [B, H, W, C].

        Raises:
            InputError: The images are no bytes, or not of the size and channels that the model takes.
        """
        expected = (self.preprocessing.height, self.preprocessing.width, self.preprocessing.channels)
        if images_BHWC.dtype != torch.uint8 or images_BHWC.ndim != 4 or images_BHWC.shape[1:] != expected:
            found = f"{str(images_BHWC.dtype).removeprefix('torch.')} {list(images_BHWC.shape)}"
            raise InputError(
                f"{self.name} takes images of bytes, uint8 [B, {', '.join(map(str, expected))}], not {found}"
            )
        with torch.inference_mode():
            parameter = next(self.parameters())
            images = self.preprocessing(images_BHWC.to(parameter.device), parameter.dtype)
            logits_BK: Tensor = self(images)
            return logits_BK.softmax(dim=1)


def save_model(model: DeliveredModel, path: Path) -> None:
    """Write `path`.safetensors and `path`.json, each whole or not at all."""
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.ensemble.state_dict().items()
    }
    write_atomically(_with_suffix(path, ".safetensors"), save(tensors))
    description = {
        "format": FORMAT,
        "name": model.name,
        "students": {name: student.as_dict() for name, student in model.ensemble.descriptions.items()},
        "classes": list(model.classes),
        "preprocessing": model.preprocessing.as_dict(),
    }
    write_atomically(_with_suffix(path, ".json"), (json.dumps(description, indent=1) + "\n").encode())


def load_model(path: Path, model: OwnNetwork | None = None) -> DeliveredModel:
    """Read a model from `path`.safetensors and `path`.json, in evaluation mode, on the CPU.

    Args:
        path: Without the suffixes.
        model: Its network, where it is one of the user's own: a file makes nothing be imported.

    Raises:
        InputError: A file is missing, torn, or not what `save_model` writes.
    """
    description_file, weights_file = _with_suffix(path, ".json"), _with_suffix(path, ".safetensors")
    contents = _read_description(description_file, model)
    try:
        tensors = load_file(weights_file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{weights_file}: holds no weights: {one_line(error)}") from None
    # Built without memory until the weights are known to fit: a description may claim any size.
    try:
        with torch.device("meta"):
            ensemble = Ensemble(contents.students)
    except InputError as error:
        raise InputError(f"{description_file}: {error}") from None
    expected = ensemble.state_dict()
    differing = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in expected or name not in tensors or not _alike(expected[name], tensors[name])
    )
    if differing:
        raise InputError(
            f"{weights_file}: holds no weights of {contents.name} as {description_file} describes it:"
            f" {len(differing)} tensors differ, the first is {differing[0]!r}"
        )
    if any(student.cut is not None for student in contents.students.values()):
        # Such a network may hold constants that no file holds.
        ensemble = Ensemble(contents.students)
    else:
        ensemble.to_empty(device="cpu")
    precision = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors.values()) else None
    load_tensors(ensemble.to(precision), tensors)
    model = DeliveredModel(
        ensemble, name=contents.name, classes=contents.classes, preprocessing=contents.preprocessing
    )
    return model.eval()


@dataclass(frozen=True)
class _Contents:
    name: str
    students: dict[str, StudentDescription]
    classes: tuple[str, ...]
    preprocessing: Preprocessing


def _read_description(file: Path, model: OwnNetwork | None) -> _Contents:
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no description of a model: {one_line(error)}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{file}: is no description of a model: its format must be {FORMAT}")
    try:
        contents = _Contents(
            name=_text(data, "name"),
            students=_students(data.get("students"), model),
            classes=_classes(data.get("classes")),
            preprocessing=Preprocessing.from_dict(_mapping(data, "preprocessing")),
        )
        _check_agreement(contents)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return contents


def _check_agreement(contents: _Contents) -> None:
    """Raise unless all students take the images that the preprocessing gives and tell the classes apart."""
    for name, student in contents.students.items():
        for what, number, wanted in (
            ("in_channels", student.in_channels, contents.preprocessing.channels),
            ("num_classes", student.num_classes, len(contents.classes)),
        ):
            if number != wanted:
                raise InputError(f"{what} of {name} must be {wanted}, not {number}")


def _alike(expected: Tensor, given: Tensor) -> bool:
    return (
        expected.shape == given.shape
        and expected.is_floating_point() == given.is_floating_point()
        and expected.is_complex() == given.is_complex()
    )


def _students(data: object, model: OwnNetwork | None) -> dict[str, StudentDescription]:
    if not isinstance(data, dict) or not data:
        raise InputError("students must name at least one student")
    for name in data:
        if not STUDENT_NAME.fullmatch(name):
            raise InputError(f"a student must be called S1, S2 and so on, not {name!r}")
    if model is not None:
        for network in {_mapping(data, name).get("architecture") for name in data}:
            if isinstance(network, str) and network not in NETWORKS:
                admit(model, network)
    return {name: StudentDescription.from_dict(_mapping(data, name)) for name in data}


def _classes(data: object) -> tuple[str, ...]:
    if not isinstance(data, list) or not data or not all(isinstance(name, str) for name in data):
        raise InputError("classes must be a list of names")
    return tuple(data)


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise InputError(f"{key} must be a mapping")
    return value


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise InputError(f"{key} must be text")
    return value


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
