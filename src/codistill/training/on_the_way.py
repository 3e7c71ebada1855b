"""What a run learns of its students on the way, and chooses nothing by: accuracies in training and in tests.

Shapes: B batch, K classes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codistill.models.ensemble import StudentOutput
from codistill.training.evaluate import member_logits
from codistill.training.step import Objective

if TYPE_CHECKING:
    from codistill.training.loop import Trainer

ACCURACY = "accuracy/"
"""How the terms begin that are no losses."""


def counting(objective: Objective) -> Objective:
    """Return an objective that also says, beside its losses, which share of the batch each member has right.

    The terms are named `accuracy/S1` … `accuracy/teacher`; no engine has to know of them.
    """

    def counted(outputs: Mapping[str, StudentOutput], labels: Tensor) -> dict[str, Tensor]:
        result = objective(outputs, labels)
        with torch.no_grad():
            shares = {
                f"{ACCURACY}{name}": (logits_BK.argmax(dim=1) == labels).to(result["loss"].dtype).mean()
                for name, logits_BK in member_logits(outputs).items()
            }
        return result | shares

    return counted


def losses_of(terms: Mapping[str, float]) -> dict[str, float]:
    """Return the terms that are losses."""
    return {name: value for name, value in terms.items() if not name.startswith(ACCURACY)}


def accuracies_of(terms: Mapping[str, float]) -> dict[str, float]:
    """Return the accuracies among the terms, by member."""
    return {name.removeprefix(ACCURACY): value for name, value in terms.items() if name.startswith(ACCURACY)}


def test_members(trainer: "Trainer") -> dict[str, Any]:
    """Return every member's accuracy on the test images and the objective's losses, means over the images."""
    trainer.ensemble.eval()
    sums: dict[str, float] = {}
    right: dict[str, int] = {}
    images = 0
    for batch in trainer.data.test_batches(trainer.fabric.device, trainer.dtype):
        trainer.stop_if_asked()
        outputs = trainer.engine.outputs(batch.images, trainer.phase.students)
        with torch.no_grad(), trainer.autocast():
            terms = trainer.objective(outputs, batch.labels)
        values = torch.stack(list(terms.values())).double().tolist()
        for name, value in zip(terms, values, strict=True):
            sums[name] = sums.get(name, 0.0) + value * len(batch.labels)
        for name, logits_BK in member_logits(outputs).items():
            hits = (logits_BK.argmax(dim=1) == batch.labels).sum().item()
            right[name] = right.get(name, 0) + int(hits)
        images += len(batch.labels)
    return {
        "accuracy": {name: count / images for name, count in right.items()},
        "loss": {name: total / images for name, total in sums.items()},
    }
