"""Accuracy of all students and the ensemble teacher in one pass, without gradients.

Batch norm uses its running statistics. Shapes: n images, B batch, K classes.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from codistill.data.loaders import Batch
from codistill.models.ensemble import StudentOutput, mean_logits

TEACHER = "teacher"


def predict(
    outputs: Callable[[Tensor], dict[str, StudentOutput]], batches: Iterable[Batch]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the labels and each member's predicted classes, int64 [n], on the CPU.

    The members are the students and, where there are several, `teacher`.

    Args:
        outputs: From normalised images to every student's output; in evaluation mode.
        batches: Images and labels, in order.
    """
    labels: list[Tensor] = []
    predictions: dict[str, list[Tensor]] = {}
    for batch in batches:
        students = outputs(batch.images)
        logits = {name: output.logits for name, output in students.items()}
        if len(students) > 1:
            logits[TEACHER] = mean_logits(students)
        for name, logits_BK in logits.items():
            predictions.setdefault(name, []).append(logits_BK.argmax(dim=1).cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(labels), {name: torch.cat(parts) for name, parts in predictions.items()}


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of predictions that equal their labels."""
    return (predictions == labels).double().mean().item()
