"""What an experiment or a use case has to show: tables, figures, values, notes, and what it could not do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: a line above it.
        columns: headings.
        rows: cells; each row as long as `columns`.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Series:
    """One line, or dots over names.

    Attributes:
        method: gives its colour and dash; `truth` is black.
        x: numbers, or names for dots.
        y: None where undefined.
        label: in the legend; empty: the method's name.
        spread: how far a bar about each point reaches, or how far below and above; empty: no bars.
    """

    method: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float | None]
    label: str = ""
    spread: Sequence[float | tuple[float, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the legend says."""
        return self.label or self.method

    @property
    def bars(self) -> tuple[list[float], list[float]]:
        """How far the bars reach below and above their points; zeros where there are none."""
        pairs = [each if isinstance(each, Sequence) else (each, each) for each in self.spread or [0.0] * len(self.y)]
        return [below for below, _ in pairs], [above for _, above in pairs]


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: above it; may be empty where the vertical axis says it all.
        x_title, y_title: axes, with units.
        series: what is drawn.
        kind: `line`, `points` joined by a line, `scatter` without one, or `dots` over names.
        log_y: whether the vertical axis is logarithmic.
        y_range: limits of the vertical axis, or None.
    """

    title: str
    x_title: str
    y_title: str
    series: list[Series]
    kind: Literal["line", "points", "scatter", "dots"] = "line"
    log_y: bool = False
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Figure:
    """Panels side by side.

    Attributes:
        title: above all of them.
        panels: at most `columns` in a row.
        columns: panels in a row.
    """

    title: str
    panels: list[Panel]
    columns: int = 3


@dataclass(frozen=True)
class Result:
    """What an experiment or a use case has to show.

    Attributes:
        tables, figures: for reading.
        rows: the numbers as plain values, for programs.
        notes: sentences on how they were obtained and how they compare with the paper's.
        skipped: what could not be done, and why.
    """

    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
