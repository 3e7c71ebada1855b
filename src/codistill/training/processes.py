"""Device, precision and processes, through Lightning Fabric; what processes exchange in a step.

There is no wrapper around the modules: its hooks would see nothing of a step that is cut. One flat
all-reduce after the stem's backward pass averages gradients, running statistics and losses, so every process
holds the same state after every step, and any of them may save it.
"""

import logging
from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from codistill.config import TrainingConfig
from codistill.data.loaders import Share
from codistill.errors import InputError


def launch(config: TrainingConfig) -> Fabric:
    """Start the processes and return the handle on them.

    Raises:
        InputError: The device is not there, or there are too few of it.
    """
    # Which process is which is nothing a user asked for.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if config.device == "mps" and config.precision == "64-true":
        raise InputError("training.precision 64-true: Apple GPUs have no numbers of 64 bits; use 32-true")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device cuda: torch finds no CUDA device here; use cpu or auto")
    if config.device == "mps" and not torch.backends.mps.is_available():
        raise InputError("training.device mps: torch finds no Apple GPU here; use cpu or auto")
    on_cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    if on_cuda and config.processes > torch.cuda.device_count():
        raise InputError(
            f"training.processes {config.processes}: there are {torch.cuda.device_count()} CUDA devices here"
        )
    fabric = Fabric(
        accelerator=config.device,
        devices=config.processes,
        strategy="ddp" if config.processes > 1 else "auto",
        precision=config.precision,
    )
    fabric.launch()
    return fabric


def share_of(fabric: Fabric) -> Share:
    """Return which part of every batch this process takes."""
    return Share(rank=fabric.global_rank, processes=fabric.world_size)


def broadcast_state(fabric: Fabric, modules: Sequence[nn.Module]) -> None:
    """Give every process the first one's weights and statistics."""
    if fabric.world_size == 1:
        return
    for module in modules:
        for tensor in module.state_dict().values():
            tensor.copy_(fabric.broadcast(tensor))


def average(
    fabric: Fabric, modules: Sequence[nn.Module], terms: dict[str, float], *, weight: float, stop: int
) -> tuple[dict[str, float], int]:
    """Average gradients, running statistics and losses over processes; return the losses and the stop.

    Args:
        fabric: The processes.
        modules: Whose gradients and statistics are averaged, in place.
        terms: This process's named losses, the same names everywhere.
        weight: This process's images as a multiple of the mean; its gradients carry it already.
        stop: A signal's number or 0; the highest of any process is returned.
    """
    if fabric.world_size == 1:
        return terms, stop
    gradients = [
        parameter.grad
        for module in modules
        for parameter in module.parameters()
        if parameter.grad is not None
    ]
    statistics = [
        buffer for module in modules for buffer in module.buffers() if torch.is_floating_point(buffer)
    ]
    parts = [*gradients, *statistics]
    device = parts[0].device
    stops = torch.zeros(fabric.world_size, dtype=parts[0].dtype, device=device)
    stops[fabric.global_rank] = stop * fabric.world_size
    losses = torch.tensor([weight * value for value in terms.values()], dtype=parts[0].dtype, device=device)
    flat = torch.cat([part.reshape(-1) for part in (*parts, stops, losses)])
    averaged = fabric.all_reduce(flat, reduce_op="mean")
    assert isinstance(averaged, Tensor)
    sizes = [part.numel() for part in (*parts, stops, losses)]
    *new_parts, all_stops, all_losses = averaged.split(sizes)
    for part, new in zip(parts, new_parts, strict=True):
        part.copy_(new.view_as(part))
    means = dict(zip(terms, all_losses.tolist(), strict=True))
    return means, round(all_stops.max().item())
