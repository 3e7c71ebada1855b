"""What the students learn from: the section `objective`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from codistill.config.problems import Problem, in_range


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The weights of the paper's three terms (its α, β, γ and T)."""

    label_weight: float = 0.7
    """α: weight of the cross entropy with the labels."""

    feature_weight: float = 0.15
    """β: weight of the squared difference from the pseudo teacher's feature maps."""

    distillation_weight: float = 0.15
    """γ: weight of the divergence from the ensemble teacher, the mean of all students' logits."""

    label_loss: str = "CrossEntropyLoss"
    """Class of torch.nn that compares logits with labels."""

    label_loss_arguments: dict[str, Any] | None = None
    """What it is called with: {label_smoothing: 0.1}; none: torch's defaults."""

    feature_loss: str = "MSELoss"
    """Class of torch.nn that compares feature maps with the pseudo teacher's."""

    feature_loss_arguments: dict[str, Any] | None = None
    """As `label_loss_arguments`."""

    temperature: float = 2.0
    """T: softens the ensemble teacher's and the students' predictions."""

    feature_match: Literal["adapter", "channel_mean"] = "adapter"
    """How maps of unlike channel counts are compared: by a learned 1×1 convolution, or by channel means."""

    adapter_lr_scale: float = 0.5
    """Learning rate of the adapters as a multiple of the students' (0.5 in the authors' code)."""

    def problems(self) -> Iterator[Problem]:
        """Yield everything in this section that cannot be used."""
        for name in ("label_weight", "feature_weight", "distillation_weight", "adapter_lr_scale"):
            yield from in_range(self, name, low=0)
        yield from in_range(self, "temperature", above=0)
        for name in ("label_loss", "feature_loss"):
            if not re.fullmatch(r"[A-Z]\w{0,60}", getattr(self, name)):
                yield name, f"must be the name of a class of torch.nn, not {getattr(self, name)!r}"
        if self.label_weight == self.feature_weight == self.distillation_weight == 0:
            yield (
                "label_weight",
                "must be above 0 where the other two weights are 0: nothing would be learned",
            )


def labels_alone(config: ObjectiveConfig) -> ObjectiveConfig:
    """Return the objective of a baseline and of pretraining: the loss with the labels, with weight 1."""
    return replace(config, label_weight=1.0, feature_weight=0.0, distillation_weight=0.0)
