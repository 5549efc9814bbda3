"""Results as files: JSON, a Markdown page with its pictures, and a self-contained HTML page."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gptdynamics.outputs import write_output_json, write_output_text
from simulator.reporting.colours import DASH_ARRAYS, dark_colour, method_colour, method_dash
from simulator.reporting.page import write_page
from simulator.reporting.pictures import draw_picture, plotly_figure
from simulator.reporting.result import Figure, Result
from simulator.reporting.tables import NAME_COLUMNS, markdown_table

PACKAGES = ("gptdynamics", "torch", "transformers", "numpy")
# More reasons than these stand in the JSON alone.
REASONS_SHOWN = 3


@dataclass(frozen=True)
class Finished:
    """An experiment or a use case that was run.

    Attributes:
        name: of its files.
        title: of its page.
        result: what it has to show.
        command: that repeats it.
        seconds: that it took.
        question: what it asks, in a sentence, or empty.
    """

    name: str
    title: str
    result: Result
    command: str
    seconds: float
    question: str = ""


def result_record(finished: Finished) -> dict[str, Any]:
    """Its numbers as plain values, for JSON, with how they were obtained."""
    return {
        "experiment": finished.name,
        "title": finished.title,
        "command": finished.command,
        "seconds": round(finished.seconds, 1),
        "versions": versions(),
        **{key: getattr(finished.result, key) for key in ("rows", "notes", "skipped")},
    }


def write_result(finished: Finished, output: Path, **more: Any) -> dict[str, Any]:
    """Write NAME.json, NAME.md and a picture of each figure.

    Args:
        finished: what was run.
        output: folder.
        more: what is also in the JSON, such as `data` for `read_record`.

    Returns:
        What is in the JSON.
    """
    record = result_record(finished) | more
    write_output_json(output / f"{finished.name}.json", record)
    pictures = picture_names(finished)
    for name, figure in zip(pictures, finished.result.figures, strict=False):
        draw_picture(figure, output / name)
    write_output_text(output / f"{finished.name}.md", markdown(finished, pictures))
    return record


def read_record(name: str, command: str, data: str, output: Path) -> dict[str, Any] | None:
    """The JSON of a result that was written before; None where there is none of this command, data and versions.

    Args:
        name: of the experiment.
        command: that makes it.
        data: what told the runs apart from others when it was written.
        output: folder.
    """
    try:
        record = json.loads((output / f"{name}.json").read_text(encoding="utf-8"))
        same = (record["command"], record["data"], record["versions"]) == (command, data, versions())
        return record if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def versions() -> dict[str, str]:
    """Of the packages that figures depend on."""
    return {name: version(name) for name in PACKAGES}


def picture_names(finished: Finished) -> list[str]:
    """File names of its pictures; none without matplotlib, which draws them."""
    if find_spec("matplotlib") is None:
        return []
    count = len(finished.result.figures)
    return [f"{finished.name}{f'-{number}' if count > 1 else ''}.svg" for number in range(1, count + 1)]


def markdown(finished: Finished, pictures: Sequence[str]) -> str:
    """A result as a Markdown page: question, pictures, tables, notes, and how it was obtained."""
    result = finished.result
    parts = [f"# {finished.title}"]
    if finished.question:
        parts.append(finished.question)
    for picture, figure in zip(pictures, result.figures, strict=False):
        parts.append(f"![{figure.title}]({picture})")
    for table in result.tables:
        parts += [f"**{table.title}**", markdown_table(table)]
    if result.notes:
        parts.append("\n".join(f"* {note}" for note in result.notes))
    made = ", ".join(f"{package} {number}" for package, number in versions().items())
    parts.append(f"Made by `{finished.command}` in {finished.seconds:.0f} s with {made}.")
    if result.skipped:
        parts.append(f"Left out, or in part: {skipped_text(result.skipped, finished.name)}.")
    return "\n\n".join(parts) + "\n"


def skipped_text(reasons: Sequence[str], name: str) -> str:
    """What was skipped, in a line; of many, the reasons stand in NAME.json."""
    if len(reasons) <= REASONS_SHOWN:
        return "; ".join(reasons)
    what = dict.fromkeys(reason.partition(": ")[0].replace(", ", " ") for reason in reasons)
    return f"{', '.join(what)} (reasons: {name}.json)"


def write_result_page(path: Path, finished: Finished) -> None:
    """Write one self-contained HTML page with its tables and figures; each panel is a chart of its own."""
    figures = finished.result.figures
    write_page(
        path,
        "templates/result.html.jinja",
        data=[[plotly_figure(Figure("", [replace(panel, title="")])) for panel in figure.panels] for figure in figures],
        plotly=bool(figures),
        finished=finished,
        figures=[_page_figure(figure) for figure in figures],
        name_columns=NAME_COLUMNS,
        versions=versions(),
        made=time.strftime("%Y-%m-%d"),
    )


def _page_figure(figure: Figure) -> dict[str, object]:
    """What the page says of a figure around its charts: words for each, and the key of each line."""
    lines: dict[str, dict[str, object]] = {}
    for panel in figure.panels:
        for series in panel.series:
            line = {
                "name": series.name,
                "colour": method_colour(series.method),
                "dark": dark_colour(series.method),
                "dashes": DASH_ARRAYS[method_dash(series.method)],
                "joined": panel.kind in ("line", "points"),
                "dotted": panel.kind != "line",
            }
            lines.setdefault(series.name, line)
    panels = [
        {
            "title": panel.title,
            "words": f"{figure.title}: {panel.title} {panel.y_title} by {panel.x_title}. The tables below have values.",
        }
        for panel in figure.panels
    ]
    return {"title": figure.title, "panels": panels, "lines": list(lines.values())}
