"""Several variants side by side: dots, and the table that goes with them."""

from __future__ import annotations

from typing import Any

from simulator.reporting.result import Figure, Panel, Series, Table
from simulator.reporting.tables import score_cells

FIGURES = (("mse", "all-steps MSE"), ("mae", "all-steps MAE"), ("spearman", "final-step Spearman"))


def comparison_table(title: str, rows: list[dict[str, Any]], by: str) -> Table:
    """A line for each variant.

    Args:
        title: of the table.
        rows: with `method`, `mse`, `mae`, `spearman`, their `_std`, `skill`, and `by`.
        by: what stands in the first column.
    """
    columns = [by, "method", *[heading for _, heading in FIGURES], "skill"]
    cells = [
        [
            str(row[by]),
            str(row["method"]),
            *score_cells(row, *[key for key, _ in FIGURES], "skill"),
        ]
        for row in rows
    ]
    return Table(title, columns, cells)


def dot_figure(title: str, rows: list[dict[str, Any]], by: str, paper: str) -> Figure:
    """A dot for each method over each variant, a panel for each figure.

    Args:
        title: of the figure.
        rows: as for `comparison_table`.
        by: what stands on the horizontal axis.
        paper: number of the paper's figure.
    """
    groups = list(dict.fromkeys(str(row[by]) for row in rows))
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    at = {(str(row[by]), str(row["method"])): row for row in rows}
    panels = []
    for key, heading in FIGURES:
        series = []
        for method in methods:
            found = [at.get((group, method)) for group in groups]
            series.append(Series(method, groups, [row[key] if row else None for row in found]))
        panels.append(Panel("", by, heading, series, kind="dots", log_y=key == "mse"))
    return Figure(title, panels, paper=paper)
