"""How numbers are written."""

from __future__ import annotations

import pytest

from simulator.reporting.numbers import column_decimals, number_text


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(0.5, 3, "0.500"), (-1.9, 3, "\u22121.900"), (-0.0001, 3, "0.000"), (24031.4, 4, "24031"), (412.34, 4, "412.34")],
)
def test_numbers_of_a_column_stand_below_each_other(value: float, decimals: int, text: str) -> None:
    assert number_text(value, decimals=decimals) == text


@pytest.mark.parametrize(
    ("values", "decimals"), [([], 3), ([None, 0.0], 3), ([0.0254, 3.0], 4), ([250.0], 0), ([1e-9], 6)]
)
def test_the_smallest_number_of_a_column_has_three_digits(values: list[float | None], decimals: int) -> None:
    assert column_decimals(values) == decimals
