"""One experiment: all sections together, and the experiments derived from it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from codistill.config.data import DataConfig
from codistill.config.kinds import admits, allowed_values, setting_types, shown
from codistill.config.model import LARGEST_SMALL_IMAGE, ModelConfig
from codistill.config.objective import ObjectiveConfig, labels_alone
from codistill.config.problems import Problem, in_range
from codistill.config.training import OptimizerConfig, RunConfig, ScheduleConfig, TrainingConfig
from codistill.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the result of a run."""

    seed: int = 0
    """Seed of initial weights, order of images and augmentation."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def problems(self) -> Iterator[Problem]:
        """Yield everything that cannot be used, each with its dotted name."""
        wrong_types = list(self._wrong_types())
        yield from wrong_types
        if wrong_types:
            return  # Ranges of such values have no meaning.
        yield from in_range(self, "seed", low=0)
        for section in ("data", "model", "objective", "optimizer", "schedule", "training", "run"):
            for name, message in getattr(self, section).problems():
                yield f"{section}.{name}", message
        students = self.model.students
        without_s1 = students is not None and 1 not in students and not list(self.model.problems())
        if self.training.stem_gradient == "pseudo_teacher" and without_s1:
            yield "training.stem_gradient", "pseudo_teacher needs S1 among model.students"
        if self.objective.feature_weight and without_s1:
            yield (
                "objective.feature_weight",
                "must be 0 without S1 among model.students, whose maps it compares",
            )
        if (
            self.model.stem == "auto"
            and self.model.has_imagenet_stem
            and self.data.completed().image_size is None
        ):
            yield (
                "model.stem",
                f"must be imagenet or small for {self.model.name}, or data.image_size given: only the files"
                f" of {self.data.source} tell how large its images are",
            )
        if self.schedule.name in ("plateau", "ReduceLROnPlateau") and self.data.validation_fraction == 0:
            yield (
                "schedule.name",
                f"{self.schedule.name} needs validation images: data.validation_fraction above 0",
            )
        if self.schedule.warmup_epochs >= self.training.epochs:
            yield "schedule.warmup_epochs", f"must be below training.epochs, {self.training.epochs}"

    def _wrong_types(self) -> Iterator[Problem]:
        for name, kind in setting_types(Config):
            value: Any = self
            for part in name.split("."):
                value = getattr(value, part)
            if not admits(kind, value):
                yield name, f"must be {allowed_values(kind)}, not {shown(value)}"


def check(config: Config) -> Config:
    """Return the config, or raise an `InputError` that names all that is wrong with it."""
    problems = [f"{name} {message}" for name, message in config.problems()]
    if problems:
        raise InputError("; ".join(problems))
    return config


def completed(config: Config) -> Config:
    """Return the config with what its source and images decide written out, so that a saved one says all."""
    return replace(config, data=config.data.completed(), model=replace(config.model, stem=_stem(config)))


def _stem(config: Config) -> Literal["auto", "imagenet", "small", "own"]:
    if config.model.stem != "auto":
        return config.model.stem
    if not config.model.is_in_catalog:
        return "own"
    if not config.model.has_imagenet_stem:
        return "small"
    size = config.data.completed().image_size
    if size is None:
        return "auto"
    return "small" if size <= LARGEST_SMALL_IMAGE else "imagenet"


def baseline(config: Config, student: int) -> Config:
    """Return the experiment that trains the stem and one student of `config` alone on the labels.

    Cross entropy has weight 1 and the stem always learns from the student; data, schedule and budget stay,
    and so does the seed, so that the student starts from the weights and sees the batches that it has in
    the ensemble. Only S1 takes part in pretraining, so only S1's baseline has those epochs; the others'
    batches still start where they start in the ensemble.
    """
    allowed = config.model.trained_students
    if student not in allowed:
        names = ", ".join(str(number) for number in allowed)
        raise InputError(f"student {student} is not in this ensemble: choose one of {names}")
    return replace(
        config,
        model=replace(config.model, students=(student,)),
        objective=labels_alone(config.objective),
        training=replace(config.training, stem_gradient="all", freeze_stem=False, engine="auto"),
    )
