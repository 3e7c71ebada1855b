"""Time of one training step: our engines, a stand-in for the authors' step, and the wide network alone.

    python benchmarks/step.py [--networks A,B] [--students 5] [--batches 128] [--rounds 7] [--all] [--json F]

Each case times its arms in turn, round after round, so that whatever else the machine does meets all of them.
A step is forward, losses, backward and the optimiser, on images that are there already.

- original: the authors' step as far as it takes time: eager, NCHW, students one after another, Adam.
- eager, parallel: codistill's engines, channels last, with the optimiser of the default config.
- wide alone: S1 on the labels, eager, channels last, all threads.

overhead = time of the ensemble ÷ (time of the wide network alone × ratio of their multiply-accumulates): 1 is
what the arithmetic costs. The share of the peak is that arithmetic, three times the forward pass, against a
large matrix product.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from codistill.config import ModelConfig, ObjectiveConfig, OptimizerConfig
from codistill.config.objective import labels_alone
from codistill.errors import InputError
from codistill.models.catalog import feature_channels
from codistill.models.cost import count_macs
from codistill.models.ensemble import Classifier, Ensemble
from codistill.models.ladder import describe_students
from codistill.objectives.paper import PaperObjective
from codistill.tables import markdown_table
from codistill.training.optimizer import make_optimizer
from codistill.training.run import processor_name
from codistill.training.step import make_engine

SIZES = {"resnet18": 64, "efficientnet_b0": 64}
"""Pixels of the images where they are not 32."""
ALL = ("cifar_resnet20", "cifar_resnet110", "densenet_bc_k12", "resnet18", "efficientnet_b0")
CLASSES = 100
ORIGINAL = OptimizerConfig(name="adam", lr=1e-3, weight_decay=1e-5)


class Arm:
    """One way to take a step, ready to be timed."""

    def __init__(
        self,
        engine: str,
        model: ModelConfig,
        size: int,
        batch: int,
        *,
        layout: torch.memory_format,
        optimizer: OptimizerConfig,
        objective: ObjectiveConfig,
        device: torch.device,
    ) -> None:
        facts: Any = {"in_channels": 3, "num_classes": CLASSES, "image_size": (size, size)}
        students = describe_students(model, **facts)
        with torch.device("meta"):
            self.macs = count_macs(Classifier(Ensemble(students)), (3, size, size))
        self.ensemble = Ensemble(students).to(device).to(memory_format=layout)
        channels = {name: feature_channels(each) for name, each in students.items()}
        self.objective = PaperObjective(objective, channels).to(device).to(memory_format=layout)
        self.optimizer = make_optimizer(
            optimizer, self.ensemble.parameters(), self.objective.parameters(), 0.5
        )
        if self.ensemble.draws_random_numbers and engine == "parallel":
            raise InputError("its students draw random numbers")
        self.engine = make_engine(engine, self.ensemble, threads=torch.get_num_threads())  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, size, size, generator=generator)
        self.images = images.to(device).to(memory_format=layout)
        self.labels = torch.randint(0, CLASSES, (batch,), generator=generator).to(device)
        self.names = list(students)

    def step(self) -> float:
        """Take a step and return its seconds."""
        begin = time.perf_counter()
        terms = self.engine.gradients(
            self.images, self.labels, objective=self.objective, names=self.names, senders=self.names
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        terms["loss"].item()  # Waits for the device.
        return time.perf_counter() - begin


def measure_case(name: str, students: int, batch: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Return the times of all arms of one case, or the reason why it does not fit."""
    size = SIZES.get(name, 32)
    model = ModelConfig(name=name, num_students=students, stem="small")
    plain, paper = torch.contiguous_format, ObjectiveConfig()
    last = torch.channels_last
    kinds: dict[str, tuple[str, ModelConfig, torch.memory_format, OptimizerConfig, ObjectiveConfig]] = {
        "original": ("eager", model, plain, ORIGINAL, paper),
        "eager": ("eager", model, last, OptimizerConfig(), paper),
        "parallel": ("parallel", model, last, OptimizerConfig(), paper),
        "wide alone": ("eager", replace(model, num_students=1), last, OptimizerConfig(), labels_alone(paper)),
    }
    arms: dict[str, Arm] = {}
    missing = {}
    for arm, (engine, config, layout, optimizer, objective) in kinds.items():
        try:
            arms[arm] = Arm(
                engine,
                config,
                size,
                batch,
                layout=layout,
                optimizer=optimizer,
                objective=objective,
                device=device,
            )
            arms[arm].step()  # Chooses and compiles kernels.
        except (InputError, MemoryError, RuntimeError) as error:
            missing[arm] = str(error)[:200]
            arms.pop(arm, None)
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(rounds):
        for arm, each in arms.items():
            times[arm].append(each.step())
    ratio = arms["eager"].macs / arms["wide alone"].macs
    return {
        "network": name,
        "students": students,
        "batch": batch,
        "pixels": size,
        "rounds": rounds,
        "macs": arms["eager"].macs,
        "macs_of_wide": arms["wide alone"].macs,
        "seconds": times,
        "missing": missing,
        "overhead": {
            arm: statistics.median(times[arm]) / (statistics.median(times["wide alone"]) * ratio)
            for arm in arms
            if arm != "wide alone"
        },
    }


def measure_peak(device: torch.device) -> dict[str, float]:
    """Return what the machine can do at most, as measured: GFLOP/s of a matrix product, GB/s of a copy."""
    size = 2048 if device.type == "cpu" else 8192
    one, other = (torch.randn(size, size, device=device) for _ in range(2))
    source = torch.zeros(2**26 if device.type == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    flops = 2 * size**3 / best(lambda: one @ other)
    copied = 2 * source.nbytes / best(lambda: target.copy_(source))
    return {"gflop_per_second": flops / 1e9, "gigabytes_per_second": copied / 1e9}


def table(cases: list[dict[str, Any]], peak: dict[str, float]) -> str:
    """Return a row for each case and arm."""
    rows = []
    for case in cases:
        original = case["seconds"].get("original")
        for arm, seconds in case["seconds"].items():
            median = statistics.median(seconds)
            macs = case["macs_of_wide" if arm == "wide alone" else "macs"]
            rate = 2 * 3 * macs * case["batch"] / median / 1e9
            # Of each round by itself: a machine that slows down meets both arms.
            ratios = [a / b for a, b in zip(original, seconds, strict=True)] if original else []
            overhead = case["overhead"].get(arm)
            rows.append(
                [
                    f"{case['network']}, {case['pixels']} px",
                    str(case["students"]),
                    str(case["batch"]),
                    arm,
                    f"{median:.3f}",
                    f"{min(seconds):.3f}–{max(seconds):.3f}",
                    f"{case['batch'] / median:.0f}",
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
                    if ratios
                    else "—",
                    f"{overhead:.2f}" if overhead else "",
                    f"{100 * rate / peak['gflop_per_second']:.0f}",
                ]
            )
        rows += [
            [f"{case['network']}", str(case["students"]), str(case["batch"]), arm, reason, *[""] * 5]
            for arm, reason in case["missing"].items()
        ]
    headers = [
        "network",
        "N",
        "batch",
        "arm",
        "s/step",
        "range",
        "images/s",
        "× original",
        "overhead",
        "% of peak",
    ]
    return markdown_table(rows, headers, text_columns=(0, 3))


def main() -> None:
    """Measure the cases that the command line names."""
    parser = argparse.ArgumentParser(description="Time of one training step.")
    parser.add_argument("--networks", default="cifar_resnet20,cifar_resnet110")
    parser.add_argument("--students", default="5")
    parser.add_argument("--batches", default="128")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--all", action="store_true", help="the whole grid")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    networks = ALL if options.all else options.networks.split(",")
    counts = [1, 3, 5] if options.all else [int(each) for each in options.students.split(",")]
    batches = [128, 512] if options.all else [int(each) for each in options.batches.split(",")]
    peak = measure_peak(device)
    cases = [
        measure_case(name, count, batch, options.rounds, device)
        for name in networks
        for count in counts
        for batch in batches
    ]
    machine = torch.cuda.get_device_name() if device.type == "cuda" else processor_name()
    print(
        f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}, {options.rounds} rounds;"
        f" peak {peak['gflop_per_second']:.0f} GFLOP/s, {peak['gigabytes_per_second']:.1f} GB/s\n"
    )
    print(table(cases, peak))
    if options.json:
        content = {
            "machine": machine,
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "peak": peak,
            "cases": cases,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
