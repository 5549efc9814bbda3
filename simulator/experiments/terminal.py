"""Results in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulator.experiments.result import Result
from simulator.experiments.writing import NAME_COLUMNS

if TYPE_CHECKING:
    from rich.table import Table


def terminal_tables(result: Result) -> Iterator[Table]:
    """Its tables for rich; texts are shown as they are, not as rich's markup."""
    from rich.table import Table
    from rich.text import Text

    for table in result.tables:
        made = Table(title=Text(table.title))
        for column in table.columns:
            made.add_column(Text(column), justify="left" if column in NAME_COLUMNS else "right")
        for row in table.rows:
            made.add_row(*map(Text, row))
        yield made
