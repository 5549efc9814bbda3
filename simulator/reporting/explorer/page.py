"""Writes the explorer: one HTML page with its data, its simulation and its chart library, which loads nothing.

The chart is uPlot (MIT, 51 KB, in `vendor/`): plotly.js, which the report uses, is 4.8 MB, more than all the rest of
a page for 32 runs and 200 test examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from simulator.reporting.explorer.payload import View, explorer_payload
from simulator.reporting.page import write_page

SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    "payload.js",
    "curriculum.js",
    "simulation.js",
    "texts.js",
    "chart.js",
    "lists.js",
    "interface.js",
)


def asset(name: str) -> str:
    """A script or style of the page."""
    return resources.files("simulator.reporting.explorer").joinpath(name).read_text(encoding="utf-8")


def write_explorer(path: Path, views: Sequence[View], texts: bool = True) -> int:
    """Write the page, whole or not at all.

    Args:
        path: of the HTML file; its folder is made if needed.
        views: what can be chosen, in this order.
        texts: with prompts and targets; else examples are named by their ids, and by their labels in label tasks.

    Returns:
        Its size in bytes.

    Raises:
        SettingsError: there are no views, or a simulator was trained for something else than its runs.
        DataError: the file cannot be written.
    """
    from markupsafe import Markup

    data = explorer_payload(views, texts)
    configs, metrics = (list(dict.fromkeys(getattr(view.runs, of) for view in views)) for of in ("config", "metric"))
    return write_page(
        path,
        "explorer/explorer.html.jinja",
        data=data,
        title=f"{', '.join(configs)}: what other training data would have done",
        several=len(metrics) > 1,
        metric=metrics[0],
        texts=any(example[2] is not None for example in data["examples"]),
        version=version("gptdynamics"),
        style=Markup(asset("explorer.css")),
        chart_style=Markup(asset("vendor/uPlot.min.css")),
        scripts=[Markup(asset(name)) for name in SCRIPTS],
    )
