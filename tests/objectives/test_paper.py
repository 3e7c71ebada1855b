"""The paper's objective: its three terms together, who learns from them, and the adapters."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codistill.config import ObjectiveConfig
from codistill.models.catalog import feature_channels
from codistill.models.ensemble import StudentOutput, mean_logits
from codistill.objectives.chosen_losses import feature_loss, label_loss
from codistill.objectives.losses import channel_mean_difference, distillation_kl, feature_difference
from codistill.objectives.paper import PaperObjective
from tiny import CLASSES, WIDTHS, tiny_batch, tiny_ensemble

cross_entropy = label_loss(ObjectiveConfig())
feature_mse = partial(feature_difference, feature_loss(ObjectiveConfig()))
channel_mean_mse = partial(channel_mean_difference, feature_loss(ObjectiveConfig()))

Outputs = dict[str, StudentOutput]


def objective(widths: Mapping[str, tuple[int, ...]] = WIDTHS, seed: int = 0, **config: Any) -> PaperObjective:
    return PaperObjective(ObjectiveConfig(**config), widths, seed=seed).double()


def made_up(
    widths: Mapping[str, tuple[int, ...]] = WIDTHS, *, batch: int = 3, seed: int = 0
) -> tuple[Outputs, Tensor]:
    """Return random outputs that are leaves, and labels."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    outputs = {
        name: StudentOutput(leaf(batch, CLASSES), tuple(leaf(batch, width, 2, 2) for width in blocks))
        for name, blocks in widths.items()
    }
    return outputs, torch.randint(0, CLASSES, (batch,), generator=generator)


def gradient(tensor: Tensor) -> float:
    return 0.0 if tensor.grad is None else tensor.grad.abs().max().item()


def test_every_term_of_every_student_is_named() -> None:
    result = objective()(*made_up())

    assert list(result) == [
        "loss",
        *("label/S1", "label/S2", "label/S3"),
        *("feature/S2", "feature/S3"),
        *("distillation/S1", "distillation/S2", "distillation/S3"),
    ]
    assert all(term.shape == () for term in result.values())
    assert [name for name, term in result.items() if term.requires_grad] == ["loss"]


def test_terms_are_the_losses_of_the_students() -> None:
    outputs, labels = made_up()
    teaching = objective(temperature=3.0)

    result = teaching(outputs, labels)

    teacher = mean_logits(outputs)
    for name, output in outputs.items():
        assert result[f"label/{name}"] == cross_entropy(output.logits, labels)
        assert result[f"distillation/{name}"] == distillation_kl(output.logits, teacher, 3.0)
    for name in ("S2", "S3"):
        adapters = teaching.adapters[name]
        assert isinstance(adapters, nn.ModuleList)
        each = [
            feature_mse(adapter(own), full)
            for adapter, own, full in zip(
                adapters, outputs[name].features, outputs["S1"].features, strict=True
            )
        ]
        assert result[f"feature/{name}"].item() == pytest.approx(sum(each).item(), rel=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", [(0.7, 0.15, 0.15), (1.0, 0.0, 0.5), (0.0, 3.0, 0.0), (0.2, 0.4, 0.0)])
def test_the_loss_is_the_weighted_sum_of_its_terms(weights: tuple[float, float, float]) -> None:
    names = ("label", "feature", "distillation")
    config = {f"{name}_weight": weight for name, weight in zip(names, weights, strict=True)}

    result = objective(**config)(*made_up())

    expected = sum(
        weight * term.item()
        for name, weight in zip(names, weights, strict=True)
        for key, term in result.items()
        if key.startswith(f"{name}/")
    )
    assert result["loss"].item() == pytest.approx(expected, rel=1e-12)
    assert {key.partition("/")[0] for key in result} - {"loss", "label"} == {
        name for name, weight in zip(names, weights, strict=True) if weight > 0 and name != "label"
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_one_student_it_is_alpha_times_cross_entropy_exactly(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(6, CLASSES, generator=generator, dtype=dtype).requires_grad_()
    twin = logits.detach().clone().requires_grad_()
    labels = torch.randint(0, CLASSES, (6,), generator=generator)
    maps = (torch.randn(6, 6, 2, 2, dtype=dtype),) * 3

    result = PaperObjective(ObjectiveConfig(), {"S1": (6, 8, 10)})(
        {"S1": StudentOutput(logits, maps)}, labels
    )
    expected = 0.7 * nn.functional.cross_entropy(twin, labels)
    result["loss"].backward()
    expected.backward()

    assert list(result) == ["loss", "label/S1"]
    assert torch.equal(result["loss"], expected)
    assert logits.grad is not None
    assert twin.grad is not None
    assert torch.equal(logits.grad, twin.grad)


@pytest.mark.parametrize("match", ["adapter", "channel_mean"])
def test_a_batch_twice_has_the_same_loss(match: str) -> None:
    outputs, labels = made_up()
    doubled = {
        name: StudentOutput(
            torch.cat([output.logits] * 2), tuple(torch.cat([map_] * 2) for map_ in output.features)
        )
        for name, output in outputs.items()
    }
    teaching = objective(feature_match=match)

    once, twice = teaching(outputs, labels), teaching(doubled, torch.cat([labels] * 2))

    for name, term in once.items():
        assert twice[name].item() == pytest.approx(term.item(), rel=1e-12)


def test_a_student_twice_counts_twice() -> None:
    """Sums run over students: of two that are alike each brings its own terms."""
    outputs, labels = made_up({"S1": (2, 2, 2)})
    alike = {"S1": outputs["S1"], "S2": outputs["S1"]}

    result = objective({"S1": (2, 2, 2), "S2": (2, 2, 2)}, feature_weight=0.0)(alike, labels)

    assert result["loss"].item() == pytest.approx(2 * 0.7 * result["label/S1"].item(), rel=1e-12)


class TestWhoLearnsFromWhat:
    def test_s1s_maps_carry_no_gradient(self) -> None:
        outputs, labels = made_up()

        objective()(outputs, labels)["loss"].backward()

        assert all(map_.grad is None for map_ in outputs["S1"].features)
        for name in ("S2", "S3"):
            assert all(gradient(map_) > 0 for map_ in outputs[name].features)

    def test_features_teach_maps_and_adapters_alone(self) -> None:
        outputs, labels = made_up()
        teaching = objective(label_weight=0.0, feature_weight=1.0, distillation_weight=0.0)

        teaching(outputs, labels)["loss"].backward()

        assert all(gradient(output.logits) == 0 for output in outputs.values())
        assert all(parameter.grad is not None for parameter in teaching.parameters())

    def test_distillation_sees_the_teacher_as_given(self) -> None:
        """The gradient is that of KL against a constant, for S1 too."""
        outputs, labels = made_up()
        teacher = mean_logits(outputs).detach()

        teaching = objective(label_weight=0.0, feature_weight=0.0, distillation_weight=1.0)
        teaching(outputs, labels)["loss"].backward()

        for output in outputs.values():
            own = output.logits.detach().clone().requires_grad_()
            distillation_kl(own, teacher, 2.0).backward()
            assert own.grad is not None
            torch.testing.assert_close(output.logits.grad, own.grad, rtol=1e-12, atol=1e-15)
            assert gradient(own) > 0

    def test_labels_teach_each_student_by_itself(self) -> None:
        outputs, labels = made_up()

        teaching = objective(label_weight=1.0, feature_weight=0.0, distillation_weight=0.0)
        teaching(outputs, labels)["loss"].backward()

        for output in outputs.values():
            expected = output.logits.detach().softmax(dim=1)
            expected[torch.arange(3), labels] -= 1
            torch.testing.assert_close(output.logits.grad, expected / 3)


class TestAdapters:
    def test_lead_from_a_students_channels_to_s1s(self) -> None:
        adapters = objective().adapters

        assert list(adapters) == ["S2", "S3"]
        for name, own in (("S2", (4, 5, 6)), ("S3", (2, 3, 3))):
            shapes = [(module.weight.shape, module.bias.shape) for module in adapters[name]]  # type: ignore[union-attr]
            assert shapes == [
                ((full, narrow, 1, 1), (full,)) for narrow, full in zip(own, WIDTHS["S1"], strict=True)
            ]

    @pytest.mark.parametrize(
        ("widths", "config"),
        [
            (WIDTHS, {"feature_weight": 0.0}),
            (WIDTHS, {"feature_match": "channel_mean"}),
            ({"S1": (6, 8, 10)}, {}),
            ({"S2": (4, 5, 6), "S3": (2, 3, 3)}, {}),
        ],
    )
    def test_are_not_there_without_need(
        self, widths: dict[str, tuple[int, ...]], config: dict[str, Any]
    ) -> None:
        assert list(objective(widths, **config).parameters()) == []

    def test_start_from_the_seed_whoever_else_is_there(self) -> None:
        state = torch.get_rng_state()
        every, again, other = objective(), objective(), objective(seed=1)
        some = objective({name: WIDTHS[name] for name in ("S1", "S3")})

        assert torch.equal(torch.get_rng_state(), state)
        for name, tensor in every.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor)
            assert not torch.equal(other.state_dict()[name], tensor)
            if "S3" in name:
                assert torch.equal(some.state_dict()[name], tensor)

    def test_at_identity_give_zero_for_equal_maps(self) -> None:
        widths = {"S1": (3, 4, 5), "S2": (3, 4, 5)}
        outputs, labels = made_up(widths)
        teaching = objective(widths)
        for adapter in teaching.adapters["S2"]:  # type: ignore[union-attr]
            nn.init.dirac_(adapter.weight)
            nn.init.zeros_(adapter.bias)
        equal = {"S1": outputs["S1"], "S2": outputs["S2"]._replace(features=outputs["S1"].features)}

        assert teaching(equal, labels)["feature/S2"].item() == 0
        assert teaching(outputs, labels)["feature/S2"].item() > 0

    def test_are_in_no_delivered_student(self) -> None:
        ensemble, teaching = tiny_ensemble(), objective()

        ours = {id(parameter) for parameter in ensemble.parameters()}
        assert not ours & {id(parameter) for parameter in teaching.parameters()}
        assert not any("adapter" in name for name in ensemble.state_dict())


def test_channel_means_are_compared_block_by_block() -> None:
    outputs, labels = made_up()

    result = objective(feature_match="channel_mean")(outputs, labels)

    expected = sum(
        channel_mean_mse(own, full).item()
        for own, full in zip(outputs["S3"].features, outputs["S1"].features, strict=True)
    )
    assert result["feature/S3"].item() == pytest.approx(expected, rel=1e-12)


def test_the_narrowed_blocks_are_those_compared() -> None:
    """The reference compares the first blocks' maps although it narrows the last ones."""
    from codistill.config import ModelConfig
    from codistill.models.ensemble import Ensemble
    from codistill.models.ladder import describe_students

    students = describe_students(
        ModelConfig(num_students=2, narrow_blocks=2), in_channels=1, num_classes=CLASSES
    )
    channels = {name: feature_channels(student) for name, student in students.items()}
    images, labels = tiny_batch(2)

    outputs = Ensemble(students)(images)
    teaching = PaperObjective(ObjectiveConfig(), channels)
    result = teaching(outputs, labels)

    assert channels == {"S1": (32, 64), "S2": (16, 32)}
    assert [tuple(map_.shape[1:]) for map_ in outputs["S2"].features] == [(16, 4, 4), (32, 2, 2)]
    assert result["feature/S2"] > 0


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_enormous_logits_give_a_finite_loss(size: float) -> None:
    outputs, labels = made_up()
    with torch.no_grad():
        outputs["S2"].logits[:, 0] = size
        outputs["S3"].logits[:, 1] = -size

    result = objective()(outputs, labels)
    result["loss"].backward()

    assert all(torch.isfinite(term) for term in result.values())
    assert all(torch.isfinite(output.logits.grad).all() for output in outputs.values())  # type: ignore[arg-type]
