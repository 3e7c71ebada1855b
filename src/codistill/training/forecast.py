"""What a run will need, measured on a copy before its first step: memory and time."""

import copy
import time
from typing import Literal

import torch
from torch import Tensor, nn

from codistill.data.loaders import Batch
from codistill.models.cost import count_parameters, saved_bytes
from codistill.models.ensemble import Ensemble
from codistill.training.step import make_engine

SAMPLE_IMAGES = 8
LONG_ENOUGH = 0.25
"""Seconds of a trial step that tell the speed."""


def forecast_memory(ensemble: Ensemble, objective: nn.Module, batch: Batch, *, moments: int) -> int:
    """Return the bytes a step will hold: parameters, gradients, the optimiser's moments, activations.

    The activations are those that a forward pass saves for the backward pass, of some images of `batch`,
    scaled to all.
    """
    ensemble, objective = copy.deepcopy(ensemble), copy.deepcopy(objective)
    images = min(len(batch.labels), SAMPLE_IMAGES)

    def forward() -> Tensor:
        loss: Tensor = objective(ensemble(batch.images[:images]), batch.labels[:images])["loss"]
        return loss

    parameters = [*ensemble.parameters(), *objective.parameters()]
    activations = saved_bytes(forward, parameters)
    numbers = count_parameters(ensemble) + count_parameters(objective)
    return numbers * parameters[0].element_size() * (2 + moments) + activations * len(batch.labels) // images


def forecast_step_seconds(
    engine: Literal["eager", "parallel"],
    ensemble: Ensemble,
    objective: nn.Module,
    batch: Batch,
    *,
    threads: int,
) -> float:
    """Return the seconds of one step on `batch`.

    Parts of the batch are tried, each twice as large as the one before, until one takes long enough to
    tell; its time is scaled to the whole batch.
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

    whole = len(batch.labels)
    size = min(8, whole)
    try:
        measure(size)  # The first step of a size also chooses and compiles kernels.
        seconds = measure(size)
        while size < whole and seconds < LONG_ENOUGH:
            size = min(2 * size, whole)
            measure(size)
            seconds = measure(size)
    finally:
        trial.close()
    return seconds * whole / size
