"""The terms of the paper's objective, as pure functions.

Source: Walawalkar, Shen, Savvides, "Online Ensemble Model Compression using Knowledge Distillation",
ECCV 2020, section 3. Its equations print a sum over the batch, a squared L2 norm and no T² factor; its
authors' code takes the mean over the batch, the mean over all elements and T². We follow the code.

Shapes: B batch, K classes, C channels, H height, W width.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def distillation_kl(logits_BK: Tensor, teacher_logits_BK: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(softmax(z_T / T) ‖ softmax(z / T)), the mean over the batch (the paper's third term).

    The teacher gets no gradient. Both sides are log-softmax, so logits of any finite size stay finite.
    Logits of fewer than 32 bits are compared in 32: the difference of two roundings would drown the term.
    """
    student = F.log_softmax(_at_least_float32(logits_BK) / temperature, dim=1)
    teacher = F.log_softmax(_at_least_float32(teacher_logits_BK.detach()) / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def feature_difference(
    loss: Callable[[Tensor, Tensor], Tensor], features_BCHW: Tensor, teacher_features_BCHW: Tensor
) -> Tensor:
    """Return the loss between two maps of one shape; the paper's is the mean squared error (second term).

    The teacher gets no gradient.
    """
    return loss(features_BCHW, teacher_features_BCHW.detach())


def channel_mean_difference(
    loss: Callable[[Tensor, Tensor], Tensor], features_BCHW: Tensor, teacher_features_BCHW: Tensor
) -> Tensor:
    """Return the loss between two maps' means over channels, each [B, 1, H, W].

    The authors' code does this where its `Adaptation_use` is off: it compares maps of unlike channel
    counts without an adapter. The teacher gets no gradient.
    """
    return feature_difference(
        loss, features_BCHW.mean(dim=1, keepdim=True), teacher_features_BCHW.mean(dim=1, keepdim=True)
    )


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.element_size() < 4 else tensor
