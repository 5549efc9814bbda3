"""An evaluation as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simulator.evaluation.scoring import Row

if TYPE_CHECKING:
    from rich.table import Table


def _figure(value: float | None, deviation: float | None = None) -> str:
    if value is None:
        return "-"
    digits = ".0f" if abs(value) >= 1000 else ".3f" if 0.01 <= abs(value) < 10 else ".3g"
    shown = f"{value:{digits}}"
    return shown if deviation is None else f"{shown} ({deviation:.2g})"


def _skill(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}" if abs(value) < 1e5 else f"{value:.0e}"


def terminal_table(rows: Sequence[Row]) -> Table:
    """Rows as a rich table of 80 columns; deviations in brackets, `-` where a figure is undefined."""
    from rich.table import Table

    first = rows[0]
    table = Table(title=f"{first.config}, {first.metric}: {first.runs} held-out runs, {first.examples} test examples")
    table.add_column("method")
    for heading in ("MSE", "MAE", "Spearman", "skill"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.method,
            _figure(row.mse, row.mse_std),
            _figure(row.mae),
            _figure(row.spearman, row.spearman_std),
            _skill(row.skill),
        )
    notes = ["MSE, MAE: all steps; Spearman: final step"]
    notes += [f"{row.method} skipped: {row.note}" for row in rows if row.note]
    if first.still:
        moved = f"{first.still} of {first.runs * first.examples} trajectories never move; skill leaves them out"
        notes.insert(1, moved)
    table.caption = "\n".join(notes)
    return table


def table_text(rows: Sequence[Row]) -> str:
    """The same as plain text."""
    from gptdynamics.console import table_text as text_of

    return text_of(terminal_table(rows))
