"""Figures of experiments, drawn by plotly for a page and by matplotlib as pictures, alike in colours and dashes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptdynamics.outputs import write_output
from simulator.experiments.result import Figure, Panel, Series
from simulator.report.colours import method_colour, method_dash

TRUTH = "truth"
# Names below an axis that would touch each other at the usual size.
MANY_NAMES = 5
_MATPLOTLIB_DASHES: dict[str, Any] = {
    "solid": "-",
    "dot": (0, (1, 1.5)),
    "dash": (0, (4, 2)),
    "longdash": (0, (7, 2)),
    "dashdot": (0, (5, 2, 1, 2)),
}


def _colour(method: str) -> str:
    return "#000000" if method == TRUTH else method_colour(method)


def _dash(method: str) -> str:
    return "solid" if method == TRUTH else method_dash(method)


def _y_title(figure: Figure, at: int, columns: int) -> str:
    """The title of a panel's vertical axis, unless its left neighbour has the same."""
    title = figure.panels[at].y_title
    return "" if at % columns and figure.panels[at - 1].y_title == title else title


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
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
    }
    data = []
    named: set[str] = set()
    for at, panel in enumerate(figure.panels):
        suffix = "" if at == 0 else str(at + 1)
        column, row = at % columns, at // columns
        width = (1 - gap * (columns - 1) / columns) / columns
        tall = (1 - 0.22 * (rows - 1)) / rows
        left, top = column * (width + gap / columns), 1 - row * (tall + 0.22)
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
            "title": {"text": _y_title(figure, at, columns)},
            "type": "log" if panel.log_y else "linear",
            **({"range": list(panel.y_range)} if panel.y_range else {}),
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
    colour = _colour(series.method)
    trace: dict[str, Any] = {
        "x": list(series.x),
        "y": list(series.y),
        "name": series.name,
        "legendgroup": series.name,
        "showlegend": first,
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
    }
    line = {"color": colour, "dash": _dash(series.method), "width": 3 if series.method == TRUTH else 2}
    mode = {"line": "lines", "points": "lines+markers"}.get(panel.kind, "markers")
    size = 11 if panel.kind == "dots" else 7
    if series.spread:
        trace["error_y"] = {"type": "data", "array": list(series.spread), "color": colour, "thickness": 1, "width": 3}
    return trace | {"type": "scatter", "mode": mode, "line": line, "marker": {"color": colour, "size": size}}


def draw_picture(figure: Figure, path: Path) -> None:
    """Draw the figure as a picture (.svg or .png).

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("agg")
    # Text stays text: it can be found, copied and read aloud, and files are smaller than with outlines.
    matplotlib.rcParams |= {"svg.hashsalt": "gptdynamics", "svg.fonttype": "none"}
    from matplotlib import pyplot

    columns = min(figure.columns, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    size = (4.4 * columns, 3.4 * rows + 0.9)
    drawn, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    handles: dict[str, Any] = {}
    for at, axis in enumerate(axes.flat):
        if at >= len(figure.panels):
            axis.set_visible(False)
            continue
        panel = figure.panels[at]
        for series in panel.series:
            handles.setdefault(series.name, _plot(axis, panel, series))
        axis.set_title(panel.title, fontsize=10)
        axis.set_xlabel(panel.x_title)
        axis.set_ylabel(_y_title(figure, at, columns))
        axis.spines[["top", "right"]].set_visible(False)
        if panel.kind == "scatter":
            axis.locator_params(axis="x", nbins=5)
        if panel.log_y:
            axis.set_yscale("log")
        if panel.y_range:
            axis.set_ylim(*panel.y_range)
    drawn.suptitle(figure.title, fontsize=11)
    drawn.legend(
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
    write_output(path, lambda file: drawn.savefig(file, format=kind, metadata=metadata, bbox_inches="tight"))
    pyplot.close(drawn)


def _plot(axis: Any, panel: Panel, series: Series) -> Any:
    known = [at for at, value in enumerate(series.y) if value is not None]
    places: Sequence[Any] = series.x
    if panel.kind == "dots":
        names = [re.sub("[ _]", "\n", str(name)) for name in series.x]
        axis.set_xticks(range(len(names)), names, fontsize=7 if len(names) > MANY_NAMES else None)
        axis.set_xlim(-0.5, len(series.x) - 0.5)
        axis.grid(axis="y", color="#E5E5E5")
        places = range(len(series.x))
    colour = _colour(series.method)
    if series.spread:
        axis.errorbar(places, series.y, series.spread, fmt="none", ecolor=colour, elinewidth=0.8, capsize=2)
    return axis.plot(
        [places[at] for at in known],
        [series.y[at] for at in known],
        color=colour,
        linestyle="none" if panel.kind in ("dots", "scatter") else _MATPLOTLIB_DASHES[_dash(series.method)],
        linewidth=2.2 if series.method == TRUTH else 1.5,
        marker=None if panel.kind == "line" else "o",
        markersize=8 if panel.kind == "dots" else 4,
    )[0]
