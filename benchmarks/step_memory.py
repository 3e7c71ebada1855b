"""Memory and time of one training step, with the network, students and batch of a config.

    python benchmarks/step_memory.py [CONFIG.yaml] [--section.key value …]

Prints the peak of the process's memory before and after the step, in GiB, and the step's seconds. Run it once
with --training.gradient_checkpointing true and once without, each in a process of its own.
"""

import resource
import sys
import time
from pathlib import Path

import torch

from codistill.config import SOURCES, completed
from codistill.config.parsing import make_parser, parse_config
from codistill.models.catalog import feature_channels
from codistill.models.ensemble import Ensemble
from codistill.models.ladder import describe_students
from codistill.models.recompute import recompute_units
from codistill.objectives.paper import PaperObjective
from codistill.training.optimizer import make_optimizer
from codistill.training.step import choose_engine, make_engine


def peak_gib() -> float:
    """Return the most memory that this process has held, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # What getrusage says there also counts the process that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def main() -> None:
    """Take one step and print what it took."""
    config = completed(parse_config(sys.argv[1:], make_parser("profile", "Memory and time of one step.")))
    facts = SOURCES[config.data.source]
    if facts.num_classes is None or facts.channels is None or facts.image_size is None:
        sys.exit(f"data.source must be one whose shape is known beforehand, not {config.data.source}")
    size = (facts.image_size, facts.image_size)
    students = describe_students(
        config.model, in_channels=facts.channels, num_classes=facts.num_classes, image_size=size
    )
    ensemble = Ensemble(students, seed=config.seed).to(memory_format=torch.channels_last)
    if config.training.gradient_checkpointing:
        recompute_units(ensemble.students)
    channels = {name: feature_channels(each) for name, each in students.items()}
    objective = PaperObjective(config.objective, channels, seed=config.seed)
    optimizer = make_optimizer(
        config.optimizer, ensemble.parameters(), objective.parameters(), config.objective.adapter_lr_scale
    )
    threads = config.training.threads or torch.get_num_threads()
    engine = choose_engine(
        config.training.engine,
        device=torch.device("cpu"),
        students=len(students),
        threads=threads,
        draws_random_numbers=ensemble.draws_random_numbers,
    )
    step = make_engine(engine, ensemble, threads=threads)
    torch.manual_seed(config.seed)
    images = torch.randn(config.training.batch_size, facts.channels, *size)
    labels = torch.randint(facts.num_classes, (len(images),))
    built = peak_gib()
    begin = time.perf_counter()
    terms = step.gradients(
        images.to(memory_format=torch.channels_last),
        labels,
        objective=objective,
        names=list(students),
        senders=list(students),
    )
    optimizer.step()
    seconds = time.perf_counter() - begin
    step.close()
    checkpointing = "with" if config.training.gradient_checkpointing else "without"
    print(
        f"{config.model.name}, {len(students)} students, {len(images)} images, engine {engine},"
        f" {threads} threads, {checkpointing} gradient checkpointing: peak {peak_gib():.2f} GiB"
        f" ({built:.2f} when built), {seconds:.1f} s, loss {terms['loss'].item():.6f}"
    )


if __name__ == "__main__":
    main()
