"""Which of many things are shown or measured."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.evaluation.selection import at_quantiles, evenly_spaced


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 3, []), (1, 3, [0]), (3, 6, [0, 1, 2]), (11, 3, [0, 5, 10]), (10, 1, [0]), (101, 5, [0, 25, 50, 75, 100])],
)
def test_indices_are_evenly_spaced_with_both_ends(count: int, most: int, expected: list[int]) -> None:
    assert evenly_spaced(count, most) == expected


def test_pairs_are_at_the_quantiles_of_the_errors() -> None:
    errors = np.array([[5.0, 1.0, 3.0], [0.0, 4.0, 2.0]])
    assert at_quantiles(errors, 2) == [(0, 2)]
    assert at_quantiles(errors, 3) == [(1, 2), (1, 1)]
    assert at_quantiles(errors, 3, errors < 4.5) == [(0, 1), (0, 2)]


def test_each_pair_is_chosen_once_and_none_of_nothing() -> None:
    assert at_quantiles(np.array([[1.0]]), 5) == [(0, 0)]
    assert at_quantiles(np.ones((2, 2)), 5, np.zeros((2, 2), bool)) == []
