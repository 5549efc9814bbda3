"""Tables and figures that compare methods by MSE, MAE and Spearman's correlation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulator.reporting.result import Figure, Panel, Series, Table
from simulator.reporting.tables import score_cells

SCORES = {"mse": "all-steps MSE", "mae": "all-steps MAE", "spearman": "final-step Spearman"}
SCORE_COLUMNS = [*SCORES.values(), "skill"]
PAPER_COLUMNS = ["paper: MSE", "MAE", "Spearman"]


def score_panels(x_title: str, series: Callable[[str], list[Series]], **panel: Any) -> list[Panel]:
    """A panel for each score, with the series that `series` returns for the score's name."""
    return [Panel("", x_title, title, series(name), **panel) for name, title in SCORES.items()]


def comparison_table(title: str, rows: list[dict[str, Any]], by: str) -> Table:
    """A line for each row of scores; the first column is the key `by` of the rows."""
    cells = [[str(row[by]), str(row["method"]), *score_cells(row, *SCORES, "skill")] for row in rows]
    return Table(title, [by, "method", *SCORE_COLUMNS], cells)


def dot_figure(title: str, rows: list[dict[str, Any]], by: str, paper: str) -> Figure:
    """A dot for each method over each value of the key `by` of the rows, a panel for each score."""
    groups = list(dict.fromkeys(str(row[by]) for row in rows))
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    by_variant = {(str(row[by]), str(row["method"])): row for row in rows}

    def series(score: str) -> list[Series]:
        return [
            Series(method, groups, [by_variant.get((group, method), {}).get(score) for group in groups])
            for method in methods
        ]

    panels = score_panels(by, series, kind="dots")
    panels[0] = replace(panels[0], log_y=True)
    return Figure(title, panels, paper=paper)
