"""Losses of torch by name: those that compare what they are given, and the reasons why others do not."""

from typing import Any

import pytest
import torch
from torch import nn

from codistill.config import ObjectiveConfig
from codistill.errors import InputError
from codistill.models.catalog import feature_channels
from codistill.objectives.chosen_losses import feature_loss, label_loss
from codistill.objectives.paper import PaperObjective
from tiny import tiny_batch, tiny_ensemble


def terms_of(config: ObjectiveConfig) -> dict[str, torch.Tensor]:
    ensemble = tiny_ensemble()
    images, labels = tiny_batch()
    channels = {name: feature_channels(each) for name, each in ensemble.descriptions.items()}
    objective = PaperObjective(config, channels)
    result: dict[str, torch.Tensor] = objective(ensemble(images), labels)
    return result


@pytest.mark.parametrize(
    ("name", "arguments", "loss"),
    [
        ("CrossEntropyLoss", {"label_smoothing": 0.2}, nn.CrossEntropyLoss(label_smoothing=0.2)),
        ("CrossEntropyLoss", {"weight": [1, 2, 3, 4]}, nn.CrossEntropyLoss(torch.tensor([1.0, 2, 3, 4]))),
        ("CrossEntropyLoss", {"reduction": "sum"}, nn.CrossEntropyLoss(reduction="sum")),
        ("MultiMarginLoss", None, nn.MultiMarginLoss()),
    ],
)
def test_a_label_loss_is_torchs(name: str, arguments: dict[str, Any] | None, loss: nn.Module) -> None:
    config = ObjectiveConfig(label_loss=name, label_loss_arguments=arguments, feature_weight=0.0)
    images, labels = tiny_batch()
    outputs = tiny_ensemble()(images)

    terms = terms_of(config)

    for name, output in outputs.items():
        assert terms[f"label/{name}"] == loss(output.logits, labels)


@pytest.mark.parametrize("name", ["L1Loss", "SmoothL1Loss", "HuberLoss"])
def test_a_feature_loss_is_torchs(name: str) -> None:
    config = ObjectiveConfig(feature_loss=name, feature_match="channel_mean")
    images, _ = tiny_batch()
    outputs = tiny_ensemble()(images)

    terms = terms_of(config)

    for student in ("S2", "S3"):
        pairs = zip(outputs[student].features, outputs["S1"].features, strict=True)
        expected = sum(getattr(nn, name)()(own.mean(1), full.mean(1)).item() for own, full in pairs)
        assert terms[f"feature/{student}"].item() == pytest.approx(expected, rel=1e-6)


def test_the_defaults_are_the_papers() -> None:
    assert isinstance(label_loss(ObjectiveConfig()), nn.CrossEntropyLoss)
    assert isinstance(feature_loss(ObjectiveConfig()), nn.MSELoss)


@pytest.mark.parametrize(
    ("setting", "name", "arguments", "message"),
    [
        (
            "label_loss",
            "CrossEntropy",
            None,
            "has no 'CrossEntropy'; did you mean CrossEntropyLoss?",
        ),
        ("label_loss", "Linear", None, "has no 'Linear'"),
        ("label_loss", "NLLLoss", None, "NLLLoss takes log-probabilities; CrossEntropyLoss takes logits"),
        ("label_loss", "MSELoss", None, "MSELoss takes no logits [B, K] and labels [B]"),
        ("label_loss", "BCEWithLogitsLoss", None, "BCEWithLogitsLoss takes no logits [B, K] and labels [B]"),
        ("label_loss", "CrossEntropyLoss", {"label_smoothin": 1}, "did you mean label_smoothing?"),
        ("label_loss", "CrossEntropyLoss", {"label_smoothing": "1"}, "must be a number for CrossEntropyLoss"),
        ("label_loss", "CrossEntropyLoss", {"weight": 3}, "weight must be a list of numbers or null"),
        (
            "label_loss",
            "CrossEntropyLoss",
            {"weight": [1]},
            "weight must have a number for each class",
        ),
        (
            "label_loss",
            "CrossEntropyLoss",
            {"reduction": "none"},
            "reduction must be mean or sum",
        ),
        ("label_loss", "CrossEntropyLoss", {"reduce": True}, "reduce is no argument of CrossEntropyLoss"),
        ("feature_loss", "KLDivLoss", None, "use MSELoss, L1Loss, SmoothL1Loss or HuberLoss"),
        ("feature_loss", "PoissonNLLLoss", None, "is not lowest where two maps are equal; use MSELoss"),
        ("feature_loss", "TripletMarginLoss", None, "TripletMarginLoss does not take two maps"),
        ("feature_loss", "HuberLoss", {"delta": -1}, "objective.feature_loss"),
    ],
)
def test_what_does_not_compare_is_refused(
    setting: str, name: str, arguments: dict[str, Any] | None, message: str
) -> None:
    config = ObjectiveConfig(**{setting: name, f"{setting}_arguments": arguments})  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        {"label_loss": label_loss, "feature_loss": feature_loss}[setting](config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
