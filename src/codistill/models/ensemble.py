"""The stem and the students on it, as one module; and what is delivered of it.

Students meet only in their outputs. Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.models.catalog import StudentDescription, build_branch, build_stem
from codistill.randomness import derive_seed


class StudentOutput(NamedTuple):
    """What a student shows of itself: logits [B, K] and feature maps, each [B, C_b, H_b, W_b]."""

    logits: Tensor
    features: tuple[Tensor, ...]


class Ensemble(nn.Module):
    """A full-width stem and students S1 … SN, each a branch on it.

    Every part is initialised from a seed of its own, so a student starts from the same weights whoever
    else is there.

    Args:
        descriptions: Name of each student, and how to build it.
        seed: Seed of the initial weights.
    """

    def __init__(self, descriptions: Mapping[str, StudentDescription], *, seed: int = 0) -> None:
        super().__init__()
        if not descriptions:
            raise ValueError("an ensemble needs at least one student")
        self.descriptions = dict(descriptions)
        self.origin = ""  # Where pretrained weights are from.
        # Branches are built on the CPU from its generator, whatever device they go to.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "stem"))
            self.stem = build_stem(next(iter(descriptions.values())))
            self.students = nn.ModuleDict()
            for name, description in descriptions.items():
                torch.manual_seed(derive_seed(seed, "student", name))
                self.students[name] = build_branch(description)

    def forward(self, images: Tensor) -> dict[str, StudentOutput]:
        """Return every student's output for normalised images [B, C, H, W]."""
        stem_output = self.stem(images)
        return {name: StudentOutput(*student(stem_output)) for name, student in self.students.items()}

    @property
    def draws_random_numbers(self) -> bool:
        """Whether a student draws random numbers when it is trained."""
        return any(description.draws_random_numbers for description in self.descriptions.values())

    def selected(self, names: Iterable[str]) -> "Ensemble":
        """Return an ensemble of the named students; stem and students are this one's, not copies."""
        descriptions = {name: self.descriptions[name] for name in names}
        with torch.device("meta"):
            selection = Ensemble(descriptions)
        selection.stem = self.stem
        selection.students = nn.ModuleDict({name: self.students[name] for name in descriptions})
        return selection


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a state that holds tensors alone; what a module notes beside them is taken as its own.

    Some networks of torchvision ask for the version of a state, which no file of tensors holds.

    Raises:
        RuntimeError: A tensor is missing, unknown, or of another shape.
    """
    state = module.state_dict()
    if state.keys() != tensors.keys():
        raise RuntimeError(f"other tensors are expected: {sorted(state.keys() ^ tensors.keys())[0]}")
    state.update(tensors)
    module.load_state_dict(state)


def refuse_small_images(description: StudentDescription, height: int, width: int) -> None:
    """Raise `InputError` if nothing of images of so many pixels would be left at the end of the network."""
    with torch.device("meta"), torch.no_grad():
        network = Ensemble({"S1": description})
        try:
            network(torch.empty(2, description.in_channels, height, width))
        except RuntimeError:
            raise InputError(
                f"images of {height}×{width} pixels are too small for {description.architecture} with the"
                f" {description.stem} stem"
            ) from None


def mean_logits(outputs: Mapping[str, StudentOutput]) -> Tensor:
    """Return the ensemble teacher's logits z_T = mean_j z_j, [B, K] (paper, section 3.3)."""
    return torch.stack([output.logits for output in outputs.values()]).mean(dim=0)


class Classifier(nn.Module):
    """What is delivered: the stem with one student, or with all of them as the ensemble teacher.

    It runs alone, without the objective or the trainer. Its logits are the mean of its students'.

    Args:
        ensemble: The stem and the students that are delivered.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, K] for normalised images [B, C, H, W]."""
        return mean_logits(self.ensemble(images))
