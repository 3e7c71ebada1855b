"""The validation split."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codistill.data.split import stratified_split

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(torch.tensor)
FRACTIONS = st.floats(0, 0.95)
SEEDS = st.integers(0, 2**40)


@settings(max_examples=150, deadline=None)
@given(LABELS, FRACTIONS, SEEDS)
def test_the_parts_are_disjoint_complete_ascending_and_of_the_right_size(
    labels: torch.Tensor, fraction: float, seed: int
) -> None:
    rest, held_out = stratified_split(labels, fraction, seed)

    assert sorted(rest.tolist() + held_out.tolist()) == list(range(len(labels)))
    for part in (rest, held_out):
        assert part.tolist() == sorted(part.tolist())
        assert part.dtype == torch.int64
    for label in labels.unique():
        total = int((labels == label).sum())
        count = int((labels[held_out] == label).sum())
        assert count == min(round(total * fraction), total - 1)
        assert total - count >= 1


@settings(max_examples=30, deadline=None)
@given(LABELS, FRACTIONS, SEEDS)
def test_it_is_the_same_every_time(labels: torch.Tensor, fraction: float, seed: int) -> None:
    one = stratified_split(labels, fraction, seed)
    torch.rand(1)
    other = stratified_split(labels, fraction, seed)

    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_seeds_differ_and_every_image_has_its_chance() -> None:
    labels = torch.arange(100) % 2
    drawn = [frozenset(stratified_split(labels, 0.2, seed)[1].tolist()) for seed in range(60)]

    assert len(set(drawn)) == 60
    # An image is missed by 60 draws with probability 0.8^60 = 2e-6.
    assert frozenset.union(*drawn) == frozenset(range(100))


def test_nothing_is_held_out_at_zero() -> None:
    rest, held_out = stratified_split(torch.tensor([0, 1, 1]), 0.0, 0)

    assert (rest.tolist(), held_out.tolist()) == ([0, 1, 2], [])


def test_labels_may_have_gaps() -> None:
    rest, held_out = stratified_split(torch.tensor([7, 7, 3, 3]), 0.5, 0)

    assert len(rest) == len(held_out) == 2
