"""Results of use cases as notebooks show them: tables as text and HTML, rows as a `DataFrame`, figures by plotly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from html import escape
from itertools import islice
from typing import Any

from gptdynamics.console import table_text
from gptdynamics.errors import SettingsError
from gptdynamics.terminal_text import safe_text
from simulator.model.display import library
from simulator.reporting.page import with_code
from simulator.reporting.pictures import plotly_figure
from simulator.reporting.result import Result, Table
from simulator.reporting.tables import terminal_tables


class NotebookResult(ABC):
    """A result that has tables, rows and figures. A dataclass that derives from it needs `repr=False`."""

    @abstractmethod
    def result(self) -> Result:
        """What there is to show."""

    def to_pandas(self) -> Any:
        """The numbers as a `DataFrame`."""
        return library("pandas").DataFrame(self.result().rows)

    def plot(self, number: int = 0) -> Any:
        """A plotly figure.

        Args:
            number: of several figures, from 0.

        Raises:
            SettingsError: there is no such figure.
        """
        figures = self.result().figures
        if not 0 <= number < len(figures):
            raise SettingsError(f"figure {number}: there is none; the result has {len(figures)}, counted from 0")
        return library("plotly.graph_objects").Figure(plotly_figure(figures[number]))

    def __repr__(self) -> str:
        result = self.result()
        shown = [*map(table_text, islice(terminal_tables(result), 1)), *result.notes[:1]]
        more = len(result.tables) - 1
        return "\n".join([*shown, *([f"and {more} more in .result().tables"] if more > 0 else [])])

    def _repr_html_(self) -> str:
        result = self.result()
        notes = "".join(f"<p>{with_code(safe_text(note))}</p>" for note in result.notes)
        return f"<div>{''.join(map(html_table, result.tables))}{notes}</div>"


def html_table(table: Table) -> str:
    """A table as HTML; nothing in it is taken for markup."""
    head = "".join(f"<th>{_plain(each)}</th>" for each in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{_plain(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f"<table><caption>{_plain(table.title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plain(text: str) -> str:
    """A text in which nothing is markup, and no character hides or reorders what is around it."""
    return escape(safe_text(text))
