"""Initial weights from a wide network that was trained before: S1 takes it whole, the others its slices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codistill.config import ModelConfig
from codistill.errors import InputError, one_line
from codistill.models.catalog import StudentDescription
from codistill.models.ensemble import Ensemble, load_tensors
from codistill.models.networks import weights_of

S1 = "students.S1."


def start_from_pretrained(
    ensemble: Ensemble, config: ModelConfig, pseudo_teacher: StudentDescription, *, seed: int
) -> str:
    """Give every student the slices of a trained wide network's weights, and say where they are from.

    A classifier for another number of classes is left as it is drawn; a first convolution for colours takes
    the sum over them where the images are grey.

    Args:
        ensemble: The students, freshly drawn.
        config: Says which weights.
        pseudo_teacher: S1, whether or not it is among them.
        seed: The ensemble's.

    Raises:
        InputError: The weights cannot be read, or are not this network's.
    """
    source, weights = _read(config, pseudo_teacher)
    whole = Ensemble({"S1": pseudo_teacher}, seed=seed)
    fresh = _load_whole(whole, weights, source)
    wide = {
        name.removeprefix(S1): tensor for name, tensor in whole.state_dict().items() if name.startswith(S1)
    }
    ensemble.stem.load_state_dict(whole.stem.state_dict())
    for name, student in ensemble.students.items():
        description = ensemble.descriptions[name]
        narrow = student.state_dict()
        state = description.network.branch_state(description.widths, wide, narrow)
        state |= {part: narrow[part] for part in fresh}
        load_tensors(student, state)
    names = sorted(_library_name(f"{S1}{name}", pseudo_teacher) for name in fresh)
    drawn = f", {', '.join(names)} drawn anew" if fresh else ""
    return f"{source}{drawn}"


def _read(config: ModelConfig, pseudo_teacher: StudentDescription) -> tuple[str, Mapping[str, Tensor]]:
    source = config.weights or (f"torchvision:{config.name}" if config.is_in_catalog else config.name)
    file = Path(source).expanduser()
    if config.weights is None or (source.startswith(("timm:", "torchvision:")) and not file.exists()):
        cut = pseudo_teacher.cut
        return source, weights_of(
            source,
            in_channels=pseudo_teacher.in_channels,
            num_classes=pseudo_teacher.num_classes,
            image_size=cut.image_size if cut else None,
        )
    try:
        if file.suffix == ".safetensors":
            return source, load_file(file)
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise InputError(f"model.weights {source}: cannot be read: {one_line(error)}") from None
    except Exception as error:  # Whatever a torn or foreign file makes torch raise.
        raise InputError(
            f"model.weights {source}: is no file of weights alone, .safetensors or .pth:"
            f" {one_line(error)[:200]}"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(map(torch.is_tensor, content.values())):
        raise InputError(f"model.weights {source}: holds no weights by name")
    return source, {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _load_whole(whole: Ensemble, weights: Mapping[str, Tensor], source: str) -> set[str]:
    """Load stem and S1, and return the names in S1's branch of what stays freshly drawn."""
    description = whole.descriptions["S1"]
    state, fresh, problems = whole.state_dict(), set(), []
    for name, own in state.items():
        given = weights.get(name)
        library_name = _library_name(name, description)
        if given is None:
            given = weights.get(library_name)
        if given is None:
            if not name.endswith("num_batches_tracked"):
                problems.append(f"{library_name} is missing")
        elif given.shape == own.shape:
            state[name] = given.to(own.dtype)
        elif _is_grey_first_layer(name, own, given):
            state[name] = given.sum(dim=1, keepdim=True).to(own.dtype)
        elif (
            name.startswith(S1)
            and own.shape[1:] == given.shape[1:]
            and own.ndim <= 2
            and len(own) == description.num_classes
        ):
            fresh.add(name.removeprefix(S1))
        else:
            problems.append(f"{library_name} is {list(given.shape)} instead of {list(own.shape)}")
    if problems:
        stem = "; model.stem imagenet may be meant" if description.stem == "small" else ""
        raise InputError(
            f"model.weights {source}: are not those of {description.architecture}: {len(problems)} tensors do"
            f" not fit, the first: {problems[0]}{stem if len(problems) == 1 else ''}"
        )
    load_tensors(whole, state)
    return fresh


def _library_name(name: str, description: StudentDescription) -> str:
    """Return what a tensor of stem and S1 is called in the network that it is a part of."""
    if description.cut is None:
        return name.removeprefix(S1).removeprefix("stem.")
    if name.startswith(S1):
        return name.removeprefix(f"{S1}network.")
    _, number, rest = name.split(".", 2)
    return f"{description.cut.stem[int(number)]}.{rest}"


def _is_grey_first_layer(name: str, own: Tensor, given: Tensor) -> bool:
    return (
        name.startswith("stem.")
        and own.ndim == given.ndim == 4
        and own.shape[1] == 1
        and given.shape[1] == 3
        and own.shape[0] == given.shape[0]
        and own.shape[2:] == given.shape[2:]
    )
