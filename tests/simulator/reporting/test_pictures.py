"""What every figure keeps to: axes from zero or marked, bars as far as given, names apart."""

from __future__ import annotations

from simulator.reporting.pictures import plotly_figure
from simulator.reporting.result import Figure, Panel, Series


def drawn(panel: Panel) -> tuple[dict, dict]:
    figure = plotly_figure(Figure("", [panel]))
    return figure["data"][0], figure["layout"]["yaxis"]


def test_a_vertical_axis_begins_at_zero_or_says_that_it_does_not() -> None:
    def axis(values: list[float | None], **more: object) -> dict:
        return drawn(Panel("", "step", "loss", [Series("memory", [0, 1, 2], values)], **more))[1]

    assert axis([0.4, None, 2.0])["range"][0] == 0 and axis([0.4, None, 2.0])["title"]["text"] == "loss"
    near = axis([0.8, 0.9, 0.85])
    assert 0 < near["range"][0] < 0.8 and near["range"][1] > 0.9 and near["title"]["text"] == "loss (not from 0)"
    below = axis([-1.0, 2.0, 1.0])
    assert below["range"][0] < -1 and below["title"]["text"] == "loss"
    assert axis([0.8, 0.9, 0.85], y_range=(0.7, 1.0))["title"]["text"] == "loss (not from 0)"
    assert "range" not in axis([0.8, 0.9, 0.85], log_y=True)


def test_bars_reach_as_far_below_and_above_as_given_and_are_inside_the_frame() -> None:
    panel = Panel("", "step", "score", [Series("memory", [0, 1], [1.0, 2.0], spread=[0.5, (0.25, 3.0)])], kind="points")
    trace, axis = drawn(panel)
    assert trace["error_y"]["arrayminus"] == [0.5, 0.25] and trace["error_y"]["array"] == [0.5, 3.0]
    assert axis["range"][0] == 0 and axis["range"][1] > 5


def test_words_of_names_stand_below_one_another_and_are_no_markup() -> None:
    panel = Panel("", "by", "loss", [Series("memory", ["one_shot", "<b>x y"], [1.0, 2.0])], kind="dots")
    assert drawn(panel)[0]["x"] == ["one<br>shot", "&lt;b&gt;x<br>y"]
