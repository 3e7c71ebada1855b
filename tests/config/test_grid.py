"""Grids of settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codistill.config.grid import combinations, split_values
from codistill.errors import InputError

PLAIN = st.text("abc019.=", min_size=1, max_size=4)


@given(st.lists(PLAIN, min_size=1, max_size=5))
def test_values_joined_by_commas_come_apart_again(values: list[str]) -> None:
    assert split_values("x", ",".join(values)) == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1", ["0.1"]),
        ("", [""]),
        ("0, 1", ["0", "1"]),
        ("[0.3,0.6],[0.5]", ["[0.3,0.6]", "[0.5]"]),
        ("[0.3,0.6]", ["[0.3,0.6]"]),
        ('{"a": [1,2]},(3,4)', ['{"a": [1,2]}', "(3,4)"]),
    ],
)
def test_commas_in_brackets_belong_to_the_value(text: str, values: list[str]) -> None:
    assert split_values("x", text) == values


@pytest.mark.parametrize("text", ["0,", ",0", "0,,1", ","])
def test_an_empty_value_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--seed: .* holds an empty value"):
        split_values("seed", text)


def test_every_combination_the_last_option_fastest() -> None:
    runs = combinations([("a", "1,2"), ("b", "x"), ("c", "3,4")])

    assert [values for values, _ in runs] == [
        {"a": "1", "c": "3"},
        {"a": "1", "c": "4"},
        {"a": "2", "c": "3"},
        {"a": "2", "c": "4"},
    ]
    assert runs[2][1] == [("a", "2"), ("b", "x"), ("c", "3")]


def test_without_several_values_there_is_one_run_that_nothing_distinguishes() -> None:
    assert combinations([("a", "1")]) == [({}, [("a", "1")])]
