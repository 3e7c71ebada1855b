"""Try networks of timm and torchvision outside the catalog, and list what comes of each.

    python benchmarks/other_networks.py [--size 64] [--students 3] [--limit 60] [NAME …] [--json FILE]

A network works if all its students are described, take two training steps together, and each, saved and read
back alone, gives the logits that it gives inside the ensemble. Otherwise codistill must have said in one line
why not. Anything else is a fault of codistill, and the exit status is 1.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from codistill.config import ModelConfig, ObjectiveConfig
from codistill.data.preprocessing import Preprocessing
from codistill.errors import InputError, one_line
from codistill.models.catalog import feature_channels
from codistill.models.cost import student_costs
from codistill.models.ensemble import Ensemble
from codistill.models.ladder import describe_students
from codistill.models.student_file import DeliveredModel, load_model, save_model
from codistill.objectives.paper import PaperObjective
from codistill.tables import markdown_table
from codistill.training.step import EagerEngine

NAMES = (
    *(f"torchvision:{name}" for name in ("alexnet", "vgg11_bn", "squeezenet1_1", "googlenet")),
    *(f"torchvision:{name}" for name in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")),
    *(f"torchvision:{name}" for name in ("mnasnet1_0", "shufflenet_v2_x1_0", "efficientnet_v2_s")),
    *(f"torchvision:{name}" for name in ("regnet_x_400mf", "regnet_y_400mf", "convnext_tiny")),
    *(f"torchvision:{name}" for name in ("swin_t", "vit_b_16")),
    *(f"timm:{name}" for name in ("convnext_atto", "convnextv2_atto", "mobilenetv4_conv_small")),
    *(f"timm:{name}" for name in ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224")),
    *(f"timm:{name}" for name in ("repvgg_a0", "resnetv2_50", "seresnet50", "res2net50_26w_4s")),
    *(f"timm:{name}" for name in ("cspresnet50", "dla34", "selecsls42b", "ese_vovnet19b_dw")),
    *(f"timm:{name}" for name in ("ghostnet_100", "rexnet_100", "lcnet_100", "mobileone_s0")),
    *(f"timm:{name}" for name in ("regnetz_005", "mixer_s32_224", "poolformer_s12", "fastvit_t8")),
    *(f"timm:{name}" for name in ("cait_xxs24_224", "swin_tiny_patch4_window7_224", "edgenext_xx_small")),
)
CLASSES = 10


def _give_up(*_: Any) -> None:
    raise TimeLimitError


class TimeLimitError(BaseException):
    """Not an Exception, so that nobody in between takes it for one."""


def try_network(name: str, *, size: int, students: int, folder: Path, limit: int) -> dict[str, Any]:
    """Return the outcome for one network: what works, or what codistill said."""
    began = time.perf_counter()
    outcome: dict[str, Any] = {"name": name, "works": False}
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(limit)
    try:
        outcome |= _sizes_and_steps(name, size=size, students=students, folder=folder)
    except InputError as error:
        outcome["says"] = str(error)
    except TimeLimitError:
        outcome["says"] = f"given up after {limit} s: its dependency graph takes torch-pruning longer"
    except Exception as error:  # What this command is for: codistill must have said so itself.
        outcome["fault"] = f"{type(error).__name__}: {one_line(error)}"
    finally:
        signal.alarm(0)
    return outcome | {"seconds": round(time.perf_counter() - began, 1)}


def _sizes_and_steps(name: str, *, size: int, students: int, folder: Path) -> dict[str, Any]:
    config = ModelConfig(name=name, num_students=students, stem="own")
    facts: Any = {"in_channels": 3, "num_classes": CLASSES, "image_size": (size, size)}
    descriptions = describe_students(config, **facts)
    s1 = describe_students(replace(config, students=(1,)), **facts)["S1"]
    costs = student_costs(descriptions, s1, (3, size, size))
    ensemble = Ensemble(descriptions)
    channels = {student: feature_channels(each) for student, each in descriptions.items()}
    objective = PaperObjective(ObjectiveConfig(), channels)
    engine = EagerEngine(ensemble)
    optimizer = torch.optim.SGD([*ensemble.parameters(), *objective.parameters()], lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, size, size, generator=generator)
    for _ in range(2):
        terms = engine.gradients(
            images, torch.tensor([0, 1]), objective=objective, names=list(channels), senders=list(channels)
        )
        if not torch.isfinite(terms["loss"]):
            raise ArithmeticError("the loss is not finite")
        optimizer.step()
        optimizer.zero_grad()
    _check_delivery(ensemble.eval(), images, folder)
    cut = s1.cut
    assert cut is not None
    return {
        "works": True,
        "stem_end": cut.stem[-1],
        "blocks": list(cut.blocks),
        "parameters": costs["S1"].parameters,
        "sizes_percent": [round(costs[student].relative_size_percent, 2) for student in descriptions],
        "macs_percent": [round(100 * costs[student].macs / costs["S1"].macs, 2) for student in descriptions],
    }


def _check_delivery(ensemble: Ensemble, images: torch.Tensor, folder: Path) -> None:
    """Raise unless every student, saved and read back, gives the logits that it gives in the ensemble."""
    size = images.shape[-1]
    preprocessing = Preprocessing(height=size, width=size, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    classes = tuple(map(str, range(CLASSES)))
    with torch.inference_mode():
        together = ensemble(images)
        for name, output in together.items():
            model = DeliveredModel(
                ensemble.selected([name]), name=name, classes=classes, preprocessing=preprocessing
            )
            save_model(model, folder / name)
            if not torch.equal(load_model(folder / name)(images), output.logits):
                raise ArithmeticError(f"{name} alone gives other logits")


def table(outcomes: list[dict[str, Any]]) -> str:
    """Return the outcomes as a Markdown table, in the order given."""
    rows = [
        [
            f"`{outcome['name']}`",
            "works" if outcome["works"] else "fault" if "fault" in outcome else "refused",
            f"{outcome['parameters'] / 1e6:.2f} M" if outcome["works"] else "—",
            " / ".join(f"{size:.1f}" for size in outcome["sizes_percent"][1:]) if outcome["works"] else "—",
            " / ".join(f"{share:.1f}" for share in outcome["macs_percent"][1:]) if outcome["works"] else "—",
            f"stem ends at `{outcome['stem_end']}`"
            if outcome["works"]
            else str(outcome.get("fault", outcome.get("says"))).partition("; name other points")[0],
        ]
        for outcome in outcomes
    ]
    headers = ["network", "outcome", "S1", "size of the others %", "their MACs %", "how, or why not"]
    return markdown_table(rows, headers)


def main() -> int:
    """Try the networks that are named, or all of the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--limit", type=int, default=60, help="seconds after which a network is given up")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    outcomes = []
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_network(
                name,
                size=arguments.size,
                students=arguments.students,
                folder=Path(folder),
                limit=arguments.limit,
            )
        print(f"{name}: {outcome['seconds']} s", file=sys.stderr)
        outcomes.append(outcome)
    works = sum(outcome["works"] for outcome in outcomes)
    faults = sum("fault" in outcome for outcome in outcomes)
    print(table(outcomes))
    print(
        f"\n{len(outcomes)} networks, {arguments.students} students, {arguments.size} pixels: {works} work,"
        f" {len(outcomes) - works - faults} are refused with the reason, {faults} are faults."
    )
    if arguments.json:
        record = {"torch": torch.__version__, "networks": outcomes}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
