"""What a run will need, measured on a copy before its first step: memory and time."""

import copy
import time
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from codistill.data.loaders import Batch
from codistill.models.cost import count_parameters
from codistill.models.ensemble import Ensemble
from codistill.training.step import make_engine


def forecast_memory(
    ensemble: Ensemble, objective: nn.Module, batch: Batch, *, batch_size: int, moments: int
) -> int:
    """Return the bytes a step will hold: parameters, gradients, the optimiser's moments, activations.

    The activations are those that a forward pass saves for the backward pass of `batch`, scaled to
    `batch_size` images.
    """
    ensemble, objective = copy.deepcopy(ensemble), copy.deepcopy(objective)
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = ensemble(batch.images)
        loss: Tensor = objective(outputs, batch.labels)["loss"]
    parameters = [*ensemble.parameters(), *objective.parameters()]
    element = parameters[0].element_size()
    numbers = count_parameters(ensemble) + count_parameters(objective)
    weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    activations = sum(size for pointer, size in saved.items() if pointer not in weights)
    del loss
    return numbers * element * (2 + moments) + activations * batch_size // len(batch.labels)


def forecast_step_seconds(
    engine: Literal["eager", "parallel"],
    ensemble: Ensemble,
    objective: nn.Module,
    batch: Batch,
    *,
    batch_size: int,
    threads: int,
) -> float:
    """Return the seconds of one step of `batch_size` images.

    A step of `batch` and one of a quarter of it are timed after a warm-up; the line through both gives what
    a step costs apart from its images.
    """
    ensemble, objective = copy.deepcopy(ensemble), copy.deepcopy(objective)
    trial = make_engine(engine, ensemble, threads=threads)
    names = list(ensemble.descriptions)

    def measure(size: int) -> float:
        begin = time.perf_counter()
        trial.gradients(
            batch.images[:size], batch.labels[:size], objective=objective, names=names, senders=names
        )
        if batch.images.is_cuda:
            torch.cuda.synchronize(batch.images.device)
        return time.perf_counter() - begin

    large = len(batch.labels)
    small = max(2, large // 4)
    try:
        measure(large)
        few, many = measure(small), measure(large)
    finally:
        trial.close()
    per_image = max(0.0, (many - few) / max(1, large - small))
    return many + per_image * (batch_size - large)
