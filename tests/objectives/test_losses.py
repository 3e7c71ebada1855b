"""Every loss against its formula, in float64, and at its limits."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax
from torch import Tensor

from codistill.config import ObjectiveConfig
from codistill.objectives.chosen_losses import feature_loss, label_loss
from codistill.objectives.losses import channel_mean_difference, distillation_kl, feature_difference

cross_entropy = label_loss(ObjectiveConfig())
feature_mse = partial(feature_difference, feature_loss(ObjectiveConfig()))
channel_mean_mse = partial(channel_mean_difference, feature_loss(ObjectiveConfig()))

LOGITS = arrays(np.float64, (3, 4), elements=st.floats(-50, 50, width=32))
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0, 3.0, 20.0])


def logits(seed: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(5, 7, generator=generator, dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(LOGITS, TEMPERATURES)
def test_the_divergence_of_a_distribution_from_itself_is_zero(
    logits_BK: np.ndarray, temperature: float
) -> None:
    tensor = torch.from_numpy(logits_BK)

    assert distillation_kl(tensor, tensor.clone(), temperature).item() == 0
    assert distillation_kl(tensor + 7, tensor, temperature).item() == pytest.approx(0, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(LOGITS, LOGITS, TEMPERATURES)
def test_divergence_is_the_formulas(
    logits_BK: np.ndarray, teacher_BK: np.ndarray, temperature: float
) -> None:
    log_q = log_softmax(logits_BK / temperature, axis=1)
    log_p = log_softmax(teacher_BK / temperature, axis=1)
    expected = temperature**2 * np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))

    given_ = distillation_kl(torch.from_numpy(logits_BK), torch.from_numpy(teacher_BK), temperature)

    assert given_.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert given_.item() >= -1e-9


def test_the_gradient_keeps_its_size_at_high_temperature() -> None:
    """Why T² is there: as T grows, the gradient tends to that of ½ Σ_k (z_k - z_Tk)² / K, centred logits."""
    own, teacher = logits(0).requires_grad_(), logits(1)

    (gradient,) = torch.autograd.grad(distillation_kl(own, teacher, 1e5), own)

    difference = (own - own.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(gradient, difference.detach() / own.numel(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_enormous_logits_give_finite_losses_and_gradients(size: float, dtype: torch.dtype) -> None:
    own = torch.tensor([[size, -size, 0.0], [0.0, 0.0, size]], dtype=dtype).requires_grad_()
    teacher = torch.tensor([[-size, size, 0.0], [0.0, 0.0, size]], dtype=dtype)

    for loss in (distillation_kl(own, teacher, 2.0), cross_entropy(own, torch.tensor([1, 0]))):
        (gradient,) = torch.autograd.grad(loss, own)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        assert loss > size / 4


def test_half_precision_logits_are_compared_in_float32() -> None:
    own, teacher = logits(0).bfloat16(), logits(1).bfloat16()
    close = own.double() + 0.05 * logits(2)

    for other in (teacher, close.bfloat16()):
        expected = distillation_kl(own.double(), other.double(), 2.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            given_ = distillation_kl(own, other, 2.0)
        assert given_.dtype == torch.float32
        assert given_.item() == pytest.approx(expected.item(), rel=1e-4)


def test_cross_entropy_is_the_mean_surprise() -> None:
    own, labels = logits(3), torch.tensor([0, 6, 3, 3, 1])

    expected = -log_softmax(own.numpy(), axis=1)[np.arange(5), labels.numpy()].mean()

    assert cross_entropy(own, labels).item() == pytest.approx(expected, rel=1e-12)


def maps(seed: int, channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, 3, 5, generator=generator, dtype=torch.float64)


def test_feature_difference_is_the_mean_over_all_elements() -> None:
    own, teacher = maps(0, 4), maps(1, 4)

    assert feature_mse(own, own.clone()).item() == 0
    assert feature_mse(own, teacher).item() == pytest.approx(
        np.square(own.numpy() - teacher.numpy()).sum() / (2 * 4 * 3 * 5), rel=1e-12
    )


def test_channel_means_of_unlike_channel_counts() -> None:
    own, teacher = maps(0, 4), maps(1, 7)

    expected = np.square(own.numpy().mean(1) - teacher.numpy().mean(1)).mean()

    assert channel_mean_mse(own, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert channel_mean_mse(own, own[:, [3, 1, 0, 2]]).item() == pytest.approx(0, abs=1e-30)


def test_teachers_get_no_gradient_and_students_do() -> None:
    for loss, own, teacher in (
        (lambda a, b: distillation_kl(a, b, 2.0), logits(0), logits(1)),
        (feature_mse, maps(0, 4), maps(1, 4)),
        (channel_mean_mse, maps(0, 4), maps(1, 7)),
    ):
        own, teacher = own.requires_grad_(), teacher.requires_grad_()
        loss(own, teacher).backward()
        assert teacher.grad is None
        assert own.grad is not None
        assert own.grad.abs().max() > 0
