"""Two gloo processes take steps on their shares; each writes what it holds to the folder it is given.

Run as a script by test_processes.py: Fabric starts the second process by running it again.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codistill.config import ObjectiveConfig, TrainingConfig
from codistill.objectives.paper import PaperObjective
from codistill.training.processes import average, broadcast_state, launch, share_of
from codistill.training.step import make_engine
from tiny import WIDTHS, tiny_batch, tiny_ensemble, with_statistics

STEPS = (7, 6, 5)
"""Images in each step, over all processes: an odd number is shared unevenly."""


def main(folder: Path) -> None:
    fabric = launch(TrainingConfig(device="cpu", processes=2, precision="64-true"))
    rank, world = fabric.global_rank, fabric.world_size
    # Whatever a process starts from, it goes on with the first one's.
    ensemble = with_statistics(tiny_ensemble(seed=rank, dtype=torch.float64), seed=rank)
    objective = PaperObjective(ObjectiveConfig(), WIDTHS, seed=rank).double()
    broadcast_state(fabric, [ensemble, objective])
    ensemble.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([*ensemble.parameters(), *objective.parameters()], 0.1, momentum=0.9)
    engine = make_engine("parallel", ensemble, threads=2, autocast=fabric.autocast)
    names = list(ensemble.descriptions)

    def step(images: torch.Tensor, labels: torch.Tensor, stop: int) -> tuple[dict[str, float], int]:
        share = share_of(fabric)
        own_images, own_labels = (part[share.rank :: share.processes] for part in (images, labels))
        weight = len(own_labels) * world / len(labels)
        result = engine.gradients(
            own_images, own_labels, objective=objective, names=names, senders=names, scale=weight
        )
        terms = {name: term.item() for name, term in result.items()}
        return average(fabric, [ensemble, objective], terms, weight=weight, stop=stop)

    # Batch norm's own statistics would differ between a share and the whole: evaluation mode has none.
    ensemble.eval()
    seen = []
    for number, count in enumerate(STEPS):
        terms, stop = step(
            *tiny_batch(count, seed=number, dtype=torch.float64), 15 if rank == number == 1 else 0
        )
        gradients = {
            name: parameter.grad.clone()
            for module in (ensemble, objective)
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }
        seen.append({"terms": terms, "stop": stop, "gradients": gradients})
        optimizer.step()
        optimizer.zero_grad()
    weights = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}

    # In training mode every process holds the same statistics after a step: their mean.
    ensemble.train()
    before = {name: buffer.clone() for name, buffer in ensemble.named_buffers()}
    images, labels = tiny_batch(8, seed=9, dtype=torch.float64)
    step(images, labels, 0)
    after = {name: buffer.clone() for name, buffer in ensemble.named_buffers()}
    engine.close()
    torch.save(
        {"seen": seen, "weights": weights, "before": before, "after": after}, folder / f"rank{rank}.pt"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
