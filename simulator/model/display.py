"""How results show themselves in a notebook or a terminal: short tables as text and HTML, and empty figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

# Okabe and Ito's colours, without the yellow that cannot be seen on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Units of the package's metrics whose range does not say them.
_UNITS = {"loss": "nats per token"}


def library(name: str) -> Any:
    """A library that only drawing or tables need.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f"this needs {package}, which is not installed: pip install {package}") from error


def unit_of(config: Any) -> str:
    """Unit or range of the metric that a simulator's configuration names; empty if it has neither."""
    if config.metric in _UNITS:
        return _UNITS[config.metric]
    bounded = config.least is not None and config.greatest is not None
    return f"{config.least:g} to {config.greatest:g}" if bounded else ""


def with_unit(quantity: str, unit: str) -> str:
    """A quantity, with its unit where it has one."""
    return f"{quantity} ({unit})" if unit else quantity


class Summarised:
    """A result that shows a summary of itself in a terminal and in a notebook."""

    def _summary(self) -> Summary:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._summary().text()

    def _repr_html_(self) -> str:
        return self._summary().html()


@dataclass(frozen=True)
class Summary:
    """What a result shows of itself.

    Attributes:
        title: what it is: quantity, unit, config, sizes.
        columns: headings above the values.
        rows: a name and its values; not all rows of the result, but the most telling ones.
        note: a line below.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float]]]
    note: str = ""

    def text(self) -> str:
        """A table of aligned columns."""
        names, cells = ["", *(name for name, _ in self.rows)], [list(self.columns), *self._cells()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        name_width = max(map(len, names))
        lines = [self.title]
        for name, line in zip(names, cells, strict=True):
            aligned = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            lines.append(f"{name.ljust(name_width)}  {'  '.join(aligned)}")
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def html(self) -> str:
        """The same as an HTML table; nothing in it is taken for markup."""
        head = "".join(f"<th>{escape(each)}</th>" for each in ["", *self.columns])
        body = ""
        for (name, _), line in zip(self.rows, self._cells(), strict=True):
            body += f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>"
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return (
            f"<div><p>{escape(self.title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"{note}</div>"
        )

    def _cells(self) -> list[list[str]]:
        # Only what is not a number differs from itself.
        return [[f"{value:.4g}" if value == value else "-" for value in values] for _, values in self.rows]


def line_figure(quantity: str) -> Any:
    """An empty plotly figure of a quantity over training steps."""
    objects = library("plotly.graph_objects")
    return objects.Figure(
        layout={
            "template": "plotly_white",
            "hovermode": "x unified",
            "xaxis": {"title": {"text": "training step"}},
            "yaxis": {"title": {"text": quantity}},
        }
    )
