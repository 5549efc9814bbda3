"""The picture on a card: panels of trajectories, as an SVG of a few ten kilobytes.

Drawn without a plotting library: a card is written whenever a run ends, and the same numbers must give the same bytes
on every machine, or each push would change the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hub_cards import render

MOST_POINTS = 80
PLOT_WIDTH, PLOT_HEIGHT = 190, 120


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        x, y: its points.
        colour: as `#RRGGBB`.
        label: for the legend, which has each label once.
        width: of the stroke, in pixels.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    label: str
    width: float = 1.0


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: above it.
        y_title: what its vertical axis shows; written where it is the first of its row.
        lines: at least one; the last is on top. Values that are not finite are left out.
    """

    title: str
    y_title: str
    lines: Sequence[Line]


def draw_panels(panels: Sequence[Panel], columns: int = 4) -> str:
    """Draw panels side by side.

    A panel is scaled to what follows the first eighth of its steps, so that the fall at the beginning does not flatten
    everything else; what lies outside is cut off. Of a longer line, 80 evenly spaced points are drawn.

    Args:
        panels: at least one.
        columns: panels in a row.
    """
    labels = {line.label: line.colour for panel in panels for line in panel.lines}
    return render(
        "figure.svg.jinja",
        panels=[_Plot(panel) for panel in panels],
        columns=min(columns, len(panels)),
        labels=labels,
        plot_width=PLOT_WIDTH,
        plot_height=PLOT_HEIGHT,
    )


def ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers between two numbers."""
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(power * part for part in (0.2, 0.5, 1.0, 2.0) if (high - low) / (power * part) < 5.5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(at * step, 10) for at in range(first, last + 1)]


class _Plot:
    """A panel in pixels, `(0, 0)` being the plot's upper left corner."""

    def __init__(self, panel: Panel) -> None:
        self.title, self.y_title = panel.title, panel.y_title
        last = max(max(line.x) for line in panel.lines)
        self.right = last or 1.0
        points = [point for line in panel.lines for point in zip(line.x, line.y, strict=True)]
        late = [y for x, y in points if x >= last / 8 and math.isfinite(y)] or [0.0]
        # Of a level line: no less than what a float as large as its value can tell apart.
        margin = 0.1 * (max(late) - min(late)) or max(0.5, 1e-9 * abs(max(late)))
        self.low, self.high = min(late) - margin, max(late) + margin
        if min(late) >= 0:
            self.low = max(0.0, self.low)
        self.lines = [{"line": line, "points": " ".join(self._points(line))} for line in panel.lines]
        self.x_ticks = [{"at": self._x(value), "text": f"{value:g}"} for value in ticks(0.0, self.right)]
        self.y_ticks = [{"at": self._y(value), "text": f"{value:g}"} for value in ticks(self.low, self.high)]

    def _x(self, value: float) -> int:
        return round(PLOT_WIDTH * value / self.right)

    def _y(self, value: float) -> int:
        # A far outlier may lie outside of what a renderer can count to.
        return max(-9999, min(9999, round(PLOT_HEIGHT * (self.high - value) / (self.high - self.low))))

    def _points(self, line: Line) -> Iterator[str]:
        last = len(line.x) - 1
        count = min(len(line.x), MOST_POINTS)
        for at in (round(each * last / max(count - 1, 1)) for each in range(count)):
            if math.isfinite(line.y[at]):
                yield f"{self._x(line.x[at])},{self._y(line.y[at])}"
