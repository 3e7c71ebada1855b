"""Predictions and accuracy."""

import pytest
import torch
from torch import Tensor

from codistill.data.loaders import Batch
from codistill.models.ensemble import StudentOutput
from codistill.training.evaluate import accuracy, member_logits, predict
from codistill.training.step import EagerEngine
from tiny import tiny_batch, tiny_ensemble, with_statistics


def test_predictions_are_the_largest_logits_in_order() -> None:
    def logits(images: Tensor) -> dict[str, Tensor]:
        flat = images.flatten(1)
        return member_logits({"S1": StudentOutput(flat, ()), "S2": StudentOutput(-3 * flat, ())})

    images = torch.tensor([[1.0, 5.0, 2.0], [9.0, 0.0, 1.0], [0.0, 1.0, 2.0]])[:, :, None, None]
    labels = torch.tensor([1, 0, 0])
    batches = [Batch(images[:2], labels[:2]), Batch(images[2:], labels[2:])]

    found, predictions = predict(logits, batches)

    assert found.tolist() == [1, 0, 0]
    # The teacher's mean logits are -1 times the image.
    assert {name: part.tolist() for name, part in predictions.items()} == {
        "S1": [1, 0, 2],
        "S2": [0, 1, 0],
        "teacher": [0, 1, 0],
    }


def test_one_student_has_no_teacher() -> None:
    assert list(member_logits({"S4": StudentOutput(torch.zeros(2, 3), ())})) == ["S4"]


def test_the_size_of_batches_does_not_matter_in_evaluation_mode() -> None:
    ensemble = with_statistics(tiny_ensemble(dtype=torch.float64)).eval()
    images, labels = tiny_batch(12, dtype=torch.float64)
    engine = EagerEngine(ensemble)

    names = list(ensemble.descriptions)
    results = []
    for size in (1, 5, 12):
        parts = zip(images.split(size), labels.split(size), strict=True)
        batches = [Batch(*part) for part in parts]
        results.append(predict(lambda part: member_logits(engine.outputs(part, names)), batches))

    for found, predictions in results:
        assert torch.equal(found, labels)
        for name, part in predictions.items():
            assert torch.equal(part, results[0][1][name])


@pytest.mark.parametrize(
    ("predictions", "labels", "share"),
    [([1, 2, 3], [1, 2, 3], 1.0), ([1, 2, 0], [1, 0, 3], 1 / 3), ([0], [1], 0)],
)
def test_accuracy_is_the_share_that_is_right(predictions: list[int], labels: list[int], share: float) -> None:
    assert accuracy(torch.tensor(predictions), torch.tensor(labels)) == share
