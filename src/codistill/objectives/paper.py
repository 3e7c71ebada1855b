"""The paper's objective: labels, the ensemble teacher's logits, the pseudo teacher's feature maps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from codistill.config import ObjectiveConfig
from codistill.models.ensemble import StudentOutput, mean_logits
from codistill.objectives.chosen_losses import feature_loss, label_loss
from codistill.objectives.losses import channel_mean_difference, distillation_kl, feature_difference
from codistill.randomness import derive_seed

PSEUDO_TEACHER = "S1"


class PaperObjective(nn.Module):
    """L = α Σ_j CE + β Σ_{j>1} Σ_b MSE + γ Σ_j KL (Walawalkar et al. 2020, section 3.4).

    j = 1 … N are the students S1 … SN, b the blocks. Sums run over students, means over the batch. With one
    student it is α · CE exactly. The adapters are 1×1 convolutions with bias from a student's channels to
    S1's; they live here, never in a student. CE and MSE stand for the losses that the config names.

    Args:
        config: Weights, temperature and the way maps are compared.
        feature_channels: Channels of each student's maps, by name.
        seed: Seed of the adapters' initial weights.
    """

    def __init__(
        self, config: ObjectiveConfig, feature_channels: Mapping[str, Sequence[int]], *, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.label_loss, self.feature_loss = label_loss(config), feature_loss(config)
        self.adapters = nn.ModuleDict()
        if PSEUDO_TEACHER not in feature_channels or config.feature_weight == 0:
            return
        if config.feature_match == "channel_mean":
            return
        wide = feature_channels[PSEUDO_TEACHER]
        with torch.random.fork_rng(devices=[]):
            for name, narrow in feature_channels.items():
                if name != PSEUDO_TEACHER:
                    torch.manual_seed(derive_seed(seed, "adapter", name))
                    self.adapters[name] = nn.ModuleList(
                        nn.Conv2d(*channels, kernel_size=1) for channels in zip(narrow, wide, strict=True)
                    )

    def forward(self, outputs: Mapping[str, StudentOutput], labels: Tensor) -> dict[str, Tensor]:
        """Return `loss`, a scalar to be differentiated, and every term of every student, detached.

        The terms are named `label/S1`, `feature/S2`, `distillation/S1` …, before their weights.
        """
        config = self.config
        terms = {f"label/{name}": self.label_loss(output.logits, labels) for name, output in outputs.items()}
        loss = config.label_weight * _total(terms)
        if config.feature_weight > 0 and PSEUDO_TEACHER in outputs and len(outputs) > 1:
            teacher_maps = outputs[PSEUDO_TEACHER].features
            feature_terms = {
                f"feature/{name}": self.feature_term(name, output.features, teacher_maps)
                for name, output in outputs.items()
                if name != PSEUDO_TEACHER
            }
            loss = loss + config.feature_weight * _total(feature_terms)
            terms |= feature_terms
        if config.distillation_weight > 0 and len(outputs) > 1:
            teacher_logits = mean_logits(outputs)
            distillation_terms = {
                f"distillation/{name}": distillation_kl(output.logits, teacher_logits, config.temperature)
                for name, output in outputs.items()
            }
            loss = loss + config.distillation_weight * _total(distillation_terms)
            terms |= distillation_terms
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def feature_term(self, name: str, maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
        """Return Σ_b MSE(A_jb(f_jb), sg(f_1b)) of one student, a scalar."""
        pairs = zip(maps, teacher_maps, strict=True)
        if self.config.feature_match == "channel_mean":
            return torch.stack(
                [channel_mean_difference(self.feature_loss, own, teacher) for own, teacher in pairs]
            ).sum()
        adapters = self.adapters[name]
        assert isinstance(adapters, nn.ModuleList)
        return torch.stack(
            [
                feature_difference(self.feature_loss, adapter(own), teacher)
                for adapter, (own, teacher) in zip(adapters, pairs, strict=True)
            ]
        ).sum()


def _total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
