"""Tables in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gptdynamics.console import table_text
from simulator.evaluation.scoring import Row
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Result, Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable

# Headings above texts, which are aligned to the left; numbers are aligned to the right.
NAME_COLUMNS = (
    "task",
    "method",
    "config",
    "metric",
    "what",
    "encoder",
    "dynamics",
    "variant",
    "size",
    "how",
    "dataset",
    "given",
    "likelier",
    "text",
)


def rich_table(table: Table, caption: str = "") -> RichTable:
    """A table for the terminal; texts are shown as they are, not as rich's markup."""
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(title=Text(table.title), caption=Text(caption) if caption else None)
    for heading in table.columns:
        rich.add_column(Text(heading), justify="left" if heading in NAME_COLUMNS else "right")
    for row in table.rows:
        rich.add_row(*map(Text, row))
    return rich


def terminal_tables(result: Result) -> Iterator[RichTable]:
    """The tables of a result for the terminal."""
    return map(rich_table, result.tables)


def markdown_table(table: Table) -> str:
    """A table in Markdown."""
    align = ["---" if column in NAME_COLUMNS else "---:" for column in table.columns]
    lines = [table.columns, align, *table.rows]
    return "\n".join("| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in lines)


def _markdown_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def score_cells(row: Any, *names: str) -> list[str]:
    """These scores, each with its deviation; of no row, empty cells.

    Args:
        row: a mapping or an object with the scores and their deviations (`mse`, `mse_std`), or None.
        names: of scores; default: MSE, MAE and Spearman's correlation.
    """
    names = names or ("mse", "mae", "spearman")
    if row is None:
        return [""] * len(names)
    values = row if isinstance(row, Mapping) else vars(row)
    return [number_text(values[name], values.get(f"{name}_std")) for name in names]


def evaluation_table(rows: Sequence[Row]) -> Table:
    """Rows of an evaluation as a table; deviations in brackets, `-` where a score is undefined."""
    first = rows[0]
    cells = [
        [
            row.method,
            *score_cells(row, "mse"),
            number_text(row.mae),
            *score_cells(row, "spearman", "skill"),
        ]
        for row in rows
    ]
    title = f"{first.config}, {first.metric}: {first.runs} held-out runs, {first.examples} test examples"
    return Table(title, ["method", "MSE", "MAE", "Spearman", "skill"], cells)


def rows_table(rows: Sequence[Row]) -> RichTable:
    """Rows of an evaluation as a table of 80 columns for the terminal, with notes below."""
    first = rows[0]
    notes = ["MSE, MAE: all steps; Spearman: final step"]
    if first.still:
        notes.append(f"{first.still} of {first.runs * first.examples} trajectories never move; skill leaves them out")
    notes += [f"{row.method} skipped: {row.note}" for row in rows if row.note]
    return rich_table(evaluation_table(rows), "\n".join(notes))


def rows_text(rows: Sequence[Row]) -> str:
    """The same as plain text."""
    return table_text(rows_table(rows))
