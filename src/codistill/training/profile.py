"""What every student of a config will cost, and a step of all of them, before any training."""

from dataclasses import replace
from typing import Any

import torch

from codistill.config import SOURCES, Config, check, completed
from codistill.config.model import TEACHER
from codistill.config.objective import labels_alone
from codistill.data.loaders import Batch
from codistill.models.catalog import StudentDescription, feature_channels
from codistill.models.cost import activation_bytes, count_macs, measure_latency, student_costs
from codistill.models.ensemble import Classifier, Ensemble, refuse_small_images
from codistill.models.ladder import describe_students
from codistill.models.recompute import recompute_units
from codistill.objectives.paper import PSEUDO_TEACHER, PaperObjective
from codistill.tables import markdown_table
from codistill.training.forecast import forecast_step_seconds
from codistill.training.run import processor_name
from codistill.training.step import choose_engine


def profile(config: Config) -> str:
    """Return a table of every student's size, cost, memory and latency for one image, and a step's cost.

    Shape and classes come from what is known of the source, or from its files where only they can tell.

    Raises:
        InputError: The config, or the data it names, cannot be used.
    """
    config = completed(check(config))
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    num_classes, shape = _classes_and_shape(config)
    facts: Any = {"in_channels": shape[0], "num_classes": num_classes, "image_size": shape[1:]}
    students = describe_students(config.model, **facts)
    pseudo_teacher = describe_students(replace(config.model, students=(1,)), **facts)["S1"]
    refuse_small_images(pseudo_teacher, *shape[1:])
    costs = student_costs(students, pseudo_teacher, shape)
    ensemble = Ensemble(students, seed=config.seed).to(memory_format=torch.channels_last)
    checkpointing = config.training.gradient_checkpointing
    if checkpointing:
        recompute_units(ensemble.students)
    images = torch.zeros(1, *shape).to(memory_format=torch.channels_last)
    rows = []
    for name, cost in costs.items():
        members = list(students) if name == TEACHER else [name]
        median, slow = measure_latency(Classifier(ensemble.selected(members)), images)
        activations = activation_bytes(
            {member: students[member] for member in members}, shape, checkpointing=checkpointing
        )
        rows.append(
            [
                name,
                f"{cost.parameters:,}",
                f"{cost.relative_size_percent:.2f}",
                f"{cost.macs:,}",
                f"{activations / 2**20:.2f}",
                f"{1000 * median:.2f}",
                f"{1000 * slow:.2f}",
            ]
        )
    headers = [
        "student",
        "parameters",
        "size %",
        "MACs",
        "activations MiB",
        "latency ms",
        "90th percentile ms",
    ]
    table = markdown_table(rows, headers)
    channels, height, width = shape
    return (
        f"{config.model.name}, {num_classes} classes, images {channels}×{height}×{width}\n\n{table}\n\n"
        "Activations: what training holds for each image of a batch, in 32 bits"
        f"{', with gradient checkpointing' if checkpointing else ''}.\n"
        f"Latency: one image, {torch.get_num_threads()} thread(s) of {processor_name()},"
        f" torch {torch.__version__}.\n{_step_cost(config, ensemble, pseudo_teacher, shape)}"
    )


def _step_cost(
    config: Config, ensemble: Ensemble, pseudo_teacher: StudentDescription, shape: tuple[int, int, int]
) -> str:
    """Say what a step of the ensemble costs, as a multiple of a step of the wide network on the labels."""
    wide = Ensemble({PSEUDO_TEACHER: pseudo_teacher}, seed=config.seed).to(memory_format=torch.channels_last)
    with torch.device("meta"):
        macs, wide_macs = (
            count_macs(Classifier(Ensemble(network.descriptions)), shape) for network in (ensemble, wide)
        )
    threads = torch.get_num_threads()
    engine = choose_engine(
        config.training.engine,
        device=torch.device("cpu"),
        students=len(ensemble.students),
        threads=threads,
        draws_random_numbers=ensemble.draws_random_numbers,
    )
    size = config.training.batch_size
    generator = torch.Generator().manual_seed(config.seed)
    batch = Batch(
        images=torch.randn(size, *shape, generator=generator).to(memory_format=torch.channels_last),
        labels=torch.randint(0, pseudo_teacher.num_classes, (size,), generator=generator),
    )
    seconds, wide_seconds = (
        forecast_step_seconds(
            engine if network is ensemble else "eager",
            network,
            PaperObjective(
                objective,
                {name: feature_channels(student) for name, student in network.descriptions.items()},
            ),
            batch,
            threads=threads,
        )
        for network, objective in ((ensemble, config.objective), (wide, labels_alone(config.objective)))
    )
    return (
        f"Step: the ensemble takes {macs / wide_macs:.2f} times the MACs of {PSEUDO_TEACHER} alone and,"
        f" measured once, {seconds / wide_seconds:.2f} times its time ({seconds:.2f} s against"
        f" {wide_seconds:.2f} s for {size} images, engine {engine})."
    )


def _classes_and_shape(config: Config) -> tuple[int, tuple[int, int, int]]:
    facts, data_config = SOURCES[config.data.source], config.data.completed()
    num_classes, size = facts.num_classes or data_config.num_classes, data_config.image_size
    if num_classes is not None and facts.channels is not None and size is not None:
        return num_classes, (3 if data_config.grey_to_rgb else facts.channels, size, size)
    from codistill.data.sources import load_source

    data = load_source(config.data)
    height, width, channels = data.train.images.image_shape
    return len(data.classes), (3 if config.data.grey_to_rgb else channels, height, width)
