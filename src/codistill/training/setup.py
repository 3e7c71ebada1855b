"""What stands between a config and its first step: what it names is there, chosen and built."""

from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric

from codistill.config import Config
from codistill.data.loaders import Data
from codistill.errors import InputError
from codistill.models.catalog import StudentDescription
from codistill.models.cost import StudentCost, student_costs
from codistill.models.ensemble import Ensemble, refuse_small_images
from codistill.models.ladder import describe_students
from codistill.models.networks import OwnNetwork, admit, import_network
from codistill.models.pretrained import start_from_pretrained
from codistill.models.recompute import recompute_units
from codistill.objectives.chosen_losses import feature_loss, label_loss
from codistill.training.optimizer import refuse_unusable_optimizer
from codistill.training.schedule import make_schedule
from codistill.training.step import choose_engine


def refuse_unusable_classes(config: Config, data: Data | None = None, processes: int = 1) -> None:
    """Raise `InputError` unless torch has the optimiser, schedule and losses, and takes their arguments.

    Args:
        config: What names them.
        data: What they will see, where that is known, which decides some arguments.
        processes: That share each batch.
    """
    refuse_unusable_optimizer(config.optimizer)
    make_schedule(
        config, 1 if data is None else data.batches_per_epoch(config.training.batch_size, processes)
    )
    weight = getattr(label_loss(config.objective), "weight", None)
    feature_loss(config.objective)
    if data is not None and weight is not None and len(weight) != len(data.classes):
        raise InputError(
            f"objective.label_loss_arguments.weight must have {len(data.classes)} numbers, one a class,"
            f" not {len(weight)}"
        )


def with_network(config: Config, model: OwnNetwork | None) -> Config:
    """Return the config with the name of a network that is given instead of a name."""
    if model is None:
        if config.model.is_own:
            import_network(config.model.name)
        return config
    name = admit(model, config.model.name if config.model.is_own else None)
    return replace(config, model=replace(config.model, name=name))


def with_execution(config: Config, fabric: Fabric) -> Config:
    """Return the config with device and threads chosen, as the run keeps them."""
    threads = config.training.threads or torch.get_num_threads()
    # Even where nothing changes: once set, torch counts alike in a run and in its continuation.
    torch.set_num_threads(threads)
    device: Any = fabric.device.type
    return replace(config, training=replace(config.training, device=device, threads=threads))


def with_engine(config: Config, fabric: Fabric, ensemble: Ensemble) -> Config:
    """Return the config with the engine chosen for these students, as the run keeps it."""
    assert config.training.threads is not None
    engine = choose_engine(
        config.training.engine,
        device=fabric.device,
        students=len(ensemble.students),
        threads=config.training.threads,
        draws_random_numbers=ensemble.draws_random_numbers,
    )
    return replace(config, training=replace(config.training, engine=engine))


def build_ensemble(config: Config, data: Data, *, resumed: bool = False) -> Ensemble:
    """Return the stem and all trained students with their initial weights.

    Args:
        config: The run's.
        data: What they will see.
        resumed: Whether a checkpoint's weights replace the initial ones, which need not be read then.

    Raises:
        InputError: The images are too small, or students are too many, for the network.
    """
    shape = data.preprocessing
    students = describe_students(
        config.model,
        in_channels=shape.channels,
        num_classes=len(data.classes),
        image_size=(shape.height, shape.width),
    )
    refuse_small_images(next(iter(students.values())), shape.height, shape.width)
    ensemble = Ensemble(students, seed=config.seed)
    if config.model.init == "pretrained" and not resumed:
        ensemble.origin = start_from_pretrained(
            ensemble, config.model, _pseudo_teacher(config, data), seed=config.seed
        )
    if config.training.gradient_checkpointing:
        recompute_units(ensemble.students)
    return ensemble


def costs_of(config: Config, data: Data, ensemble: Ensemble) -> dict[str, StudentCost]:
    """Return what every student, and the ensemble teacher, costs on these data."""
    shape = data.preprocessing
    return student_costs(
        ensemble.descriptions,
        _pseudo_teacher(config, data),
        (shape.channels, shape.height, shape.width),
    )


def _pseudo_teacher(config: Config, data: Data) -> StudentDescription:
    """Describe S1, whether or not it is trained."""
    shape = data.preprocessing
    return describe_students(
        replace(config.model, students=(1,)),
        in_channels=shape.channels,
        num_classes=len(data.classes),
        image_size=(shape.height, shape.width),
    )["S1"]
