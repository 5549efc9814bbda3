"""Figures, drawn by plotly for a page and by matplotlib as pictures, with the same colours and dashes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from gptdynamics.errors import DataError
from gptdynamics.outputs import write_output
from simulator.reporting.colours import MATPLOTLIB_DASHES, TRUTH, dark_colour, method_colour, method_dash
from simulator.reporting.result import Figure, Panel, Series

# Names below an axis that would touch each other at the usual size.
MANY_NAMES = 5
# A picture stands in a page's column of text, and on phones: more panels side by side cannot be read there.
PICTURE_COLUMNS = 2


def _y_title(figure: Figure, index: int, columns: int) -> str:
    """The title of a panel's vertical axis, unless its left neighbour has the same."""
    title = _y_axis(figure.panels[index])[0]
    return "" if index % columns and _y_axis(figure.panels[index - 1])[0] == title else title


def _y_axis(panel: Panel) -> tuple[str, tuple[float, float] | None]:
    """Title and limits of the vertical axis: it begins at zero, or its title says that it does not."""
    if panel.log_y or panel.kind == "scatter":
        return panel.y_title, panel.y_range
    if panel.y_range:
        low, high = panel.y_range
    else:
        bars = [value for series in panel.series for value in _ends(series)]
        low, high = min(bars, default=0.0), max(bars, default=1.0)
        if 0 <= low <= 0.5 * high:
            return panel.y_title, (0.0, 1.06 * high)
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = low - margin, high + margin
    return panel.y_title if low <= 0 <= high else f"{panel.y_title} (not from 0)", (low, high)


def _names(series: Series) -> list[str]:
    """The names below dots, each word in a line of its own."""
    return [re.sub("[ _]", "\n", str(name)) for name in series.x]


def _ends(series: Series) -> list[float]:
    """The ends of the bars about its values."""
    bars = zip(series.y, *series.bars, strict=True)
    ends = [end for value, below, above in bars if value is not None for end in (value - below, value + above)]
    return [end for end in ends if math.isfinite(end)]


def plotly_figure(figure: Figure) -> dict[str, Any]:
    """The figure as plotly's `data` and `layout`; each method has one entry in the legend, which shows or hides it."""
    columns = min(figure.columns, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    height, gap = 330, 0.12
    layout: dict[str, Any] = {
        "title": {"text": figure.title, "font": {"size": 15}},
        "height": 110 + height * rows,
        "margin": {"l": 60, "r": 20, "t": 70, "b": 60},
        "legend": {"orientation": "h", "y": -0.18 / rows},
        "annotations": [],
        # Dots over the same name stand side by side.
        "scattermode": "group" if any(panel.kind == "dots" for panel in figure.panels) else "overlay",
        "scattergap": 0.6,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
    }
    data = []
    named: set[str] = set()
    for index, panel in enumerate(figure.panels):
        suffix = "" if index == 0 else str(index + 1)
        column, row = index % columns, index // columns
        width = (1 - gap * (columns - 1) / columns) / columns
        tall = (1 - 0.22 * (rows - 1)) / rows
        left, top = column * (width + gap / columns), 1 - row * (tall + 0.22)
        limits = _y_axis(panel)[1]
        grid = {"gridcolor": "#E5E5E5", "zeroline": False, "linecolor": "#888888", "showline": True}
        layout[f"xaxis{suffix}"] = {
            "domain": [left, min(1.0, left + width)],
            "anchor": f"y{suffix}",
            "title": {"text": panel.x_title},
            **grid,
        }
        layout[f"yaxis{suffix}"] = {
            "domain": [max(0.0, top - tall), top],
            "anchor": f"x{suffix}",
            "title": {"text": _y_title(figure, index, columns)},
            "type": "log" if panel.log_y else "linear",
            **({"range": list(limits)} if limits else {}),
            **grid,
        }
        layout["annotations"].append(
            {
                "text": panel.title,
                "x": left + width / 2,
                "y": top,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "center",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 12},
            }
        )
        for series in panel.series:
            data.append(_trace(panel, series, suffix, series.name not in named))
            named.add(series.name)
    return {"data": data, "layout": layout}


def _trace(panel: Panel, series: Series, suffix: str, first: bool) -> dict[str, Any]:
    colour = method_colour(series.method)
    trace: dict[str, Any] = {
        "x": [escape(name).replace("\n", "<br>") for name in _names(series)]
        if panel.kind == "dots"
        else list(series.x),
        "y": list(series.y),
        "name": series.name,
        "legendgroup": series.name,
        "showlegend": first,
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
    }
    line = {"color": colour, "dash": method_dash(series.method), "width": 3 if series.method == TRUTH else 2}
    mode = {"line": "lines", "points": "lines+markers"}.get(panel.kind, "markers")
    size = 11 if panel.kind == "dots" else 7
    if series.spread:
        below, above = series.bars
        bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.5, "width": 4}
        trace["error_y"] = bars | {"color": colour}
    # On a dark page the colour is that of `meta`.
    marker = {"color": colour, "size": size}
    return trace | {"type": "scatter", "mode": mode, "line": line, "marker": marker, "meta": dark_colour(series.method)}


def draw_picture(figure: Figure, path: Path) -> None:
    """Draw the figure as a picture (.svg or .png).

    Raises:
        DataError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise DataError("a picture needs matplotlib: pip install 'gptdynamics[figures]'") from error

    matplotlib.use("agg")
    # Text stays text: it can be found, copied and read aloud, and files are smaller than with outlines.
    matplotlib.rcParams |= {"svg.hashsalt": "gptdynamics", "svg.fonttype": "none"}
    from matplotlib import pyplot

    columns = min(figure.columns, PICTURE_COLUMNS, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    size = (4.4 * columns, 3.4 * rows + 0.9)
    picture, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    handles: dict[str, Any] = {}
    for index, axis in enumerate(axes.flat):
        if index >= len(figure.panels):
            axis.set_visible(False)
            continue
        panel = figure.panels[index]
        for place, series in enumerate(panel.series):
            # Dots over the same name stand side by side, or one would hide another and its bar.
            aside = 0.12 * (place - (len(panel.series) - 1) / 2)
            handles.setdefault(series.name, _plot(axis, panel, series, aside))
        axis.set_title(panel.title, fontsize=10)
        axis.set_xlabel(panel.x_title)
        axis.set_ylabel(_y_title(figure, index, columns))
        axis.spines[["top", "right"]].set_visible(False)
        if panel.kind == "scatter":
            axis.locator_params(axis="x", nbins=5)
        elif panel.kind != "dots" and all(isinstance(x, int) for series in panel.series for x in series.x):
            # Runs and updates are counted.
            axis.locator_params(axis="x", integer=True)
        if panel.log_y:
            axis.set_yscale("log")
        if limits := _y_axis(panel)[1]:
            axis.set_ylim(*limits)
    if figure.title:
        picture.suptitle(figure.title, fontsize=11)
    picture.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(len(handles), max(2, 2 * columns)),
        frameon=False,
        fontsize=9,
    )
    kind = path.suffix.removeprefix(".").lower() or "svg"
    metadata = {"Date": None} if kind == "svg" else None
    # Labels may be wider than the panels.
    write_output(path, lambda file: picture.savefig(file, format=kind, metadata=metadata, bbox_inches="tight"))
    pyplot.close(picture)


def _plot(axis: Any, panel: Panel, series: Series, aside: float) -> Any:
    defined = [index for index, value in enumerate(series.y) if value is not None]
    positions: Sequence[Any] = series.x
    if panel.kind == "dots":
        names = _names(series)
        axis.set_xticks(range(len(names)), names, fontsize=7 if len(names) > MANY_NAMES else None)
        axis.set_xlim(-0.5, len(series.x) - 0.5)
        axis.grid(axis="y", color="#E5E5E5")
        positions = [at + aside for at in range(len(series.x))]
    colour = method_colour(series.method)
    if series.spread:
        heights = [math.nan if value is None else value for value in series.y]
        axis.errorbar(positions, heights, series.bars, fmt="none", ecolor=colour, elinewidth=0.8, capsize=2)
    return axis.plot(
        [positions[index] for index in defined],
        [series.y[index] for index in defined],
        color=colour,
        linestyle="none" if panel.kind in ("dots", "scatter") else MATPLOTLIB_DASHES[method_dash(series.method)],
        linewidth=2.2 if series.method == TRUTH else 1.5,
        marker=None if panel.kind == "line" else "o",
        markersize=8 if panel.kind == "dots" else 4,
    )[0]
