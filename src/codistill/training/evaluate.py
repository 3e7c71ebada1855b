"""Accuracy of all students and the ensemble teacher in one pass, without gradients.

Batch norm uses its running statistics. Shapes: n images, B batch, K classes.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from codistill.config.model import TEACHER
from codistill.data.loaders import Batch
from codistill.models.ensemble import StudentOutput, mean_logits


def member_logits(outputs: Mapping[str, StudentOutput]) -> dict[str, Tensor]:
    """Return each student's logits [B, K] and, where there are several, the mean of all as `teacher`."""
    logits = {name: output.logits for name, output in outputs.items()}
    if len(outputs) > 1:
        logits[TEACHER] = mean_logits(outputs)
    return logits


def predict(
    logits: Callable[[Tensor], Mapping[str, Tensor]], batches: Iterable[Batch]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the labels and each model's predicted classes, int64 [n], on the CPU.

    Args:
        logits: From normalised images to the logits [B, K] of every model, by name; in evaluation mode.
        batches: Images and labels, in order.
    """
    labels: list[Tensor] = []
    predictions: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, logits_BK in logits(batch.images).items():
            predictions.setdefault(name, []).append(logits_BK.argmax(dim=1).cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(labels), {name: torch.cat(parts) for name, parts in predictions.items()}


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of predictions that equal their labels."""
    return (predictions == labels).double().mean().item()
