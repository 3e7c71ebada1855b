"""Stem and students as one module."""

import pytest
import torch
from torch import nn

from codistill.models.cifar_resnet import Branch
from codistill.models.ensemble import Classifier, Ensemble, StudentOutput, mean_logits
from tiny import CLASSES, described, tiny_batch, tiny_ensemble, with_statistics


def test_outputs_have_their_shapes() -> None:
    images, _ = tiny_batch(5)

    outputs = tiny_ensemble()(images)

    assert list(outputs) == ["S1", "S2", "S3"]
    assert outputs["S2"].logits.shape == (5, CLASSES)
    assert [tuple(map_.shape) for map_ in outputs["S2"].features] == [
        (5, 4, 8, 8),
        (5, 5, 4, 4),
        (5, 6, 2, 2),
    ]


@pytest.mark.parametrize("size", [1, 3, 28])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_images_of_any_size_and_one_or_three_channels(size: int, in_channels: int) -> None:
    ensemble = Ensemble({"S1": described(2, 2, 2, in_channels=in_channels)})

    outputs = ensemble(torch.zeros(2, in_channels, size, size))

    assert outputs["S1"].logits.shape == (2, CLASSES)


@pytest.mark.parametrize("compared", [1, 2, 3])
def test_the_last_compared_blocks_are_returned(compared: int) -> None:
    images, _ = tiny_batch()
    every = Ensemble({"S1": described(2, 3, 4)})
    some = Ensemble({"S1": described(2, 3, 4, compared_blocks=compared)})

    with torch.no_grad():
        all_maps, maps = every(images)["S1"].features, some(images)["S1"].features

    assert len(maps) == compared
    assert all(torch.equal(one, other) for one, other in zip(maps, all_maps[-compared:], strict=True))


@pytest.mark.parametrize("depth", [2, 7, 21])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"6n \\+ 2, not {depth}"):
        Branch(depth=depth, widths=(1, 1, 1), num_classes=2)


def test_resnet_1202_can_be_built() -> None:
    with torch.device("meta"):
        branch = Branch(depth=1202, widths=(16, 32, 64), num_classes=10)

    # 19.4 M in He et al.'s table 6.
    assert sum(parameter.numel() for parameter in branch.parameters()) == pytest.approx(19.4e6, rel=0.01)


def test_the_output_is_the_sum_of_both_ways_through_a_unit() -> None:
    """Zero the last norm's scale: what is left of a unit is its shortcut, so a block of them is one ReLU."""
    branch = Branch(depth=20, widths=(16, 16, 16), num_classes=2).eval()
    stem_output = torch.rand(1, 16, 4, 4)
    for unit in branch.blocks[0]:  # type: ignore[union-attr]
        nn.init.zeros_(unit.norm2.weight)

    with torch.no_grad():
        _, (first, *_) = branch(stem_output)

    assert torch.equal(first, stem_output)


class TestEveryStudentIsReached:
    """The reference keeps its students in a Python list, where train() and eval() do not find them."""

    def test_by_train_and_eval(self) -> None:
        ensemble = tiny_ensemble()

        for mode in (False, True):
            ensemble.train(mode)
            norms = [module for module in ensemble.modules() if isinstance(module, nn.BatchNorm2d)]
            assert {module.training for module in norms} == {mode}
        # Stem, and a student's 18 units' norms and 2 or 3 shortcuts'.
        assert len(norms) == 1 + sum(
            18 + (3 if student.widths[0] != 16 else 2) for student in ensemble.descriptions.values()
        )

    def test_by_evaluation_with_running_statistics(self) -> None:
        ensemble = with_statistics(tiny_ensemble())
        images, _ = tiny_batch(6)

        with torch.no_grad():
            trained = ensemble.train()(images)
            ensemble = with_statistics(ensemble)
            whole = ensemble.eval()(images)
            single = [ensemble(image[None]) for image in images]

        for name in ensemble.descriptions:
            alone = torch.cat([output[name].logits for output in single])
            torch.testing.assert_close(whole[name].logits, alone)
            assert (whole[name].logits - trained[name].logits).abs().max() > 1e-3

    def test_by_to_and_parameters(self) -> None:
        ensemble = tiny_ensemble().to(torch.float64)

        assert {parameter.dtype for parameter in ensemble.parameters()} == {torch.float64}
        stem = sum(1 for _ in ensemble.stem.parameters())
        each = [sum(1 for _ in student.parameters()) for student in ensemble.students.values()]
        assert len(list(ensemble.parameters())) == stem + sum(each)

    def test_by_state_dict(self) -> None:
        source, target = with_statistics(tiny_ensemble(seed=1)), tiny_ensemble(seed=2)
        target.load_state_dict(source.state_dict())
        images, _ = tiny_batch()

        with torch.no_grad():
            expected, given = source.eval()(images), target.eval()(images)

        for name, output in expected.items():
            assert torch.equal(output.logits, given[name].logits)


class TestInitialWeights:
    def test_do_not_depend_on_who_else_is_there(self) -> None:
        together, alone = tiny_ensemble(), tiny_ensemble(("S3",))
        reordered = tiny_ensemble(("S3", "S1"))

        expected = {
            name: tensor
            for name, tensor in together.state_dict().items()
            if "S1" not in name and "S2" not in name
        }
        assert alone.state_dict().keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(alone.state_dict()[name], tensor)
            assert torch.equal(reordered.state_dict()[name], tensor)

    def test_repeat_and_leave_the_generator_alone(self) -> None:
        state = torch.get_rng_state()
        one = tiny_ensemble(seed=3)
        torch.rand(7)
        other = tiny_ensemble(seed=3)

        assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
        torch.set_rng_state(state)
        expected = torch.rand(3)
        torch.set_rng_state(state)
        tiny_ensemble()
        assert torch.equal(torch.rand(3), expected)

    def test_differ_by_seed_and_by_student(self) -> None:
        zero, one = tiny_ensemble(seed=0), tiny_ensemble(seed=1)
        twins = Ensemble({"S1": described(3, 3, 3), "S2": described(3, 3, 3)})

        for name, parameter in zero.named_parameters():
            if parameter.dim() > 1:
                assert not torch.equal(parameter, dict(one.named_parameters())[name])
        ours, theirs = twins.students["S1"].parameters(), twins.students["S2"].parameters()
        assert not any(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True) if a.dim() > 1)

    def test_have_kaimings_spread(self) -> None:
        # He et al. 2015: std = sqrt(2 / fan_out); with 64·9·64 draws a sample's is within 2 % of it.
        branch = Branch(depth=20, widths=(16, 32, 64), num_classes=10)

        weight = branch.blocks[2][1].conv1.weight  # type: ignore[index, union-attr]

        assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


class TestSelected:
    def test_shares_and_does_not_copy(self) -> None:
        ensemble = tiny_ensemble()

        selection = ensemble.selected(["S3", "S1"])

        assert list(selection.descriptions) == ["S3", "S1"]
        assert selection.stem is ensemble.stem
        assert selection.students["S3"] is ensemble.students["S3"]
        assert not any(parameter.is_meta for parameter in selection.parameters())

    def test_changes_nothing_in_the_whole(self) -> None:
        ensemble = tiny_ensemble()
        before = list(ensemble.state_dict())
        ensemble.stem.eval()

        ensemble.selected(["S2"])

        assert list(ensemble.state_dict()) == before
        assert ensemble.students["S2"].training
        assert not ensemble.stem.training

    def test_of_nobody_or_somebody_unknown_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="at least one student"):
            tiny_ensemble().selected([])
        with pytest.raises(KeyError, match="S9"):
            tiny_ensemble().selected(["S9"])


class TestClassifier:
    def test_of_one_student_gives_its_logits_in_the_ensemble(self) -> None:
        ensemble = with_statistics(tiny_ensemble()).eval()
        images, _ = tiny_batch()

        with torch.no_grad():
            outputs = ensemble(images)
            for name in ensemble.descriptions:
                alone = Classifier(ensemble.selected([name])).eval()(images)
                assert torch.equal(alone, outputs[name].logits)

    def test_of_all_is_the_teacher(self) -> None:
        ensemble = with_statistics(tiny_ensemble()).eval()
        images, _ = tiny_batch()

        with torch.no_grad():
            logits = Classifier(ensemble)(images)
            outputs = ensemble(images)

        total = outputs["S1"].logits + outputs["S2"].logits + outputs["S3"].logits
        torch.testing.assert_close(logits, total / 3)
        assert torch.equal(logits, mean_logits(outputs))


def test_mean_logits_by_hand() -> None:
    outputs = {
        "S1": StudentOutput(torch.tensor([[1.0, 5.0]]), ()),
        "S2": StudentOutput(torch.tensor([[2.0, -6.0]]), ()),
    }

    assert mean_logits(outputs).tolist() == [[1.5, -0.5]]
