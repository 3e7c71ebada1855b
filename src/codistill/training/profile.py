"""What every student of a config will cost, before any training."""

import torch
from tabulate import tabulate

from codistill.config import SOURCES, Config, check, completed
from codistill.models.catalog import describe_students
from codistill.models.cost import measure_latency, student_costs
from codistill.models.ensemble import Classifier, Ensemble
from codistill.training.run import processor_name


def profile(config: Config) -> str:
    """Return a table of every student's parameters, multiply-accumulates and latency for one image.

    Shape and classes come from what is known of the source, or from its files where only they can tell.

    Raises:
        InputError: The config, or the data it names, cannot be used.
    """
    config = completed(check(config))
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    num_classes, shape = _classes_and_shape(config)
    students = describe_students(config.model, in_channels=shape[0], num_classes=num_classes)
    pseudo_teacher = describe_students(
        type(config.model)(name=config.model.name, narrow_blocks=config.model.narrow_blocks, num_students=1),
        in_channels=shape[0],
        num_classes=num_classes,
    )["S1"]
    costs = student_costs(students, pseudo_teacher, shape)
    ensemble = Ensemble(students, seed=config.seed)
    images = torch.zeros(1, *shape).to(memory_format=torch.channels_last)
    rows = []
    for name, cost in costs.items():
        members = list(students) if name == "teacher" else [name]
        median, slow = measure_latency(Classifier(ensemble.selected(members)), images)
        rows.append(
            [
                name,
                f"{cost.parameters:,}",
                f"{cost.relative_size_percent:.2f}",
                f"{cost.macs:,}",
                f"{1000 * median:.2f}",
                f"{1000 * slow:.2f}",
            ]
        )
    headers = ["student", "parameters", "size %", "MACs", "latency ms", "90th percentile ms"]
    table = tabulate(
        rows, headers, tablefmt="pipe", disable_numparse=True, colalign=("left",) + ("right",) * 5
    )
    channels, height, width = shape
    return (
        f"{config.model.name}, {num_classes} classes, images {channels}×{height}×{width}\n\n{table}\n\n"
        f"Latency: one image, {torch.get_num_threads()} thread(s) of {processor_name()},"
        f" torch {torch.__version__}."
    )


def _classes_and_shape(config: Config) -> tuple[int, tuple[int, int, int]]:
    facts = SOURCES[config.data.source]
    if facts.num_classes is not None and facts.channels is not None and facts.image_size is not None:
        return facts.num_classes, (facts.channels, facts.image_size, facts.image_size)
    from codistill.data.sources import load_source

    data = load_source(config.data)
    height, width, channels = data.train.images.image_shape
    return len(data.classes), (channels, height, width)
