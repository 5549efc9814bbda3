"""Pictures on cards."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hub_cards.figure import MOST_POINTS, PLOT_HEIGHT, PLOT_WIDTH, Line, Panel, draw_panels, ticks

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*panels: Panel) -> tuple[list[list[tuple[int, int]]], list[str]]:
    """Points of each line, and all texts."""
    root = ElementTree.fromstring(draw_panels(panels))
    lines = [
        [tuple(map(int, point.split(","))) for point in each.get("points", "").split()]
        for each in root.iter(f"{SVG}polyline")
    ]
    return lines, [each.text or "" for each in root.iter(f"{SVG}text")]  # type: ignore[return-value]


def test_lines_go_where_their_numbers_are() -> None:
    flat, rising = (
        Line([0, 8, 16], [1.0, 1.0, 1.0], "#0072B2", "flat"),
        Line([0, 8, 16], [0.0, 2.0, 3.0], "#D55E00", "rising"),
    )
    (level, up), texts = drawn(Panel("a config", "loss", [flat, rising]))
    assert [x for x, _ in up] == [0, PLOT_WIDTH // 2, PLOT_WIDTH]
    heights = {y for _, y in level}
    assert len(heights) == 1 and all(0 <= y <= PLOT_HEIGHT for y in heights)
    assert up[0][1] > level[0][1] > up[1][1] > up[2][1]
    assert {"a config", "flat", "rising", "loss", "training step"} <= set(texts)


def test_the_fall_at_the_beginning_does_not_set_the_scale() -> None:
    values = [100.0] + [1.0 + 0.01 * at for at in range(40)]
    ((points),), _ = drawn(Panel("x", "loss", [Line(list(range(41)), values, "#000000", "run")]))
    assert points[0][1] < 0
    assert points[-1][1] < PLOT_HEIGHT / 4 and points[6][1] > PLOT_HEIGHT * 0.6


def test_long_lines_are_thinned_but_keep_their_ends() -> None:
    ((points),), _ = drawn(
        Panel("x", "loss", [Line(list(range(5000)), [float(at) for at in range(5000)], "#000000", "run")])
    )
    assert len(points) == MOST_POINTS
    assert points[0][0] == 0 and points[-1][0] == PLOT_WIDTH


@pytest.mark.parametrize("values", [[0.0], [2.0], [1.0, 1.0]])
def test_a_line_that_does_not_move_is_drawn(values: list[float]) -> None:
    ((points),), texts = drawn(Panel("x", "loss", [Line(list(range(len(values))), values, "#000000", "run")]))
    assert len(points) == len(values) and all(0 <= y <= PLOT_HEIGHT for _, y in points)
    assert "x" in texts


def test_values_that_are_not_finite_are_left_out() -> None:
    ((points),), _ = drawn(Panel("x", "loss", [Line([0, 1, 2, 3], [1.0, math.nan, math.inf, 2.0], "#000000", "run")]))
    assert [x for x, _ in points] == [0, PLOT_WIDTH]


def test_names_from_data_are_text() -> None:
    name = '<script>alert("x")</script> & more'
    _, texts = drawn(Panel(name, "loss", [Line([0, 1], [0.0, 1.0], "#000000", name)]))
    assert texts.count(name) == 2


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    high = low + width
    assume(high - low > 1e-9 * max(1.0, abs(low)))
    found = ticks(low, high)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-6 * width - 1e-9 <= each <= high + 1e-6 * width + 1e-9 for each in found)
    assert found == sorted(set(found))


@pytest.mark.parametrize("value", [0.0, 1.0, 4503599627370498.0, 1e30])
def test_a_level_line_of_any_size_is_drawn(value: float) -> None:
    (line, *_), _ = drawn(Panel("level", "loss", [Line([0, 1, 2], [value] * 3, "#000000", "one")]))
    assert len(line) == 3
    assert len({y for _, y in line}) == 1
