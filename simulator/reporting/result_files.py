"""Results as files: JSON, a Markdown page, pictures, and one self-contained HTML page."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gptdynamics.outputs import write_output_json, write_output_text
from simulator.reporting.page import write_page
from simulator.reporting.pictures import draw_picture, plotly_figure
from simulator.reporting.result import Figure, Panel, Result, Series, Table
from simulator.reporting.tables import NAME_COLUMNS, markdown_table

PACKAGES = ("gptdynamics", "torch", "transformers", "numpy")


@dataclass(frozen=True)
class Finished:
    """An experiment or a use case that was run, with the command that repeats it and the seconds it took."""

    name: str
    title: str
    result: Result
    command: str
    seconds: float


def result_record(finished: Finished) -> dict[str, Any]:
    """An experiment as plain values, for JSON."""
    return {
        "experiment": finished.name,
        "title": finished.title,
        "command": finished.command,
        "seconds": round(finished.seconds, 1),
        "versions": versions(),
        **{key: asdict(finished.result)[key] for key in ("rows", "notes", "skipped", "tables", "figures")},
    }


def write_result(finished: Finished, output: Path, data: str = "") -> None:
    """Write NAME.json, NAME.md, a picture of each figure, and NAME.html.

    Args:
        finished: the experiment.
        output: folder.
        data: what tells the runs apart from others, for `read_result`.
    """
    record = result_record(finished) | {"data": data}
    write_output_json(output / f"{finished.name}.json", record)
    pictures = picture_names(finished)
    for name, figure in zip(pictures, finished.result.figures, strict=False):
        draw_picture(figure, output / name)
    write_output_text(output / f"{finished.name}.md", markdown(finished, pictures))
    write_results_page(output / f"{finished.name}.html", finished.title, [finished])


def read_result(name: str, command: str, data: str, output: Path) -> Finished | None:
    """An experiment that was finished before, or None where it was not, or not with this command and these runs.

    Args:
        name: of the experiment.
        command: that makes it.
        data: as of `write_result`.
        output: folder.
    """
    try:
        record = json.loads((output / f"{name}.json").read_text(encoding="utf-8"))
        if (record["command"], record["data"], record["versions"]) != (command, data, versions()):
            return None
        figures = [_figure(figure) for figure in record["figures"]]
        tables = [Table(**table) for table in record["tables"]]
        result = Result(tables, figures, record["rows"], record["notes"], record["skipped"])
        return Finished(name, record["title"], result, command, record["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _figure(record: dict[str, Any]) -> Figure:
    """A figure from its `asdict`."""
    panels = [Panel(**panel | {"series": [Series(**each) for each in panel["series"]]}) for panel in record["panels"]]
    return Figure(**record | {"panels": panels})


def versions() -> dict[str, str]:
    """Of the packages that figures depend on."""
    return {name: version(name) for name in PACKAGES}


def picture_names(finished: Finished) -> list[str]:
    """File names of its pictures; none without matplotlib, which draws them."""
    if find_spec("matplotlib") is None:
        return []
    count = len(finished.result.figures)
    return [f"{finished.name}{f'-{number}' if count > 1 else ''}.svg" for number in range(1, count + 1)]


def markdown(finished: Finished, pictures: Sequence[str], level: int = 1) -> str:
    """An experiment as a Markdown page, or as a part of one whose heading has this level."""
    result = finished.result
    parts = [f"{'#' * level} {finished.title}", f"`{finished.command}` ({finished.seconds:.0f} s)"]
    for picture, figure in zip(pictures, result.figures, strict=False):
        parts.append(f"![{figure.title}]({picture})")
    for table in result.tables:
        parts += [f"**{table.title}**", markdown_table(table)]
    if result.notes:
        parts.append("\n".join(f"* {note}" for note in result.notes))
    if result.skipped:
        parts += ["Skipped:", "\n".join(f"* {reason}" for reason in result.skipped)]
    return "\n\n".join(parts) + "\n"


def write_results_page(path: Path, title: str, experiments: Sequence[Finished]) -> None:
    """Write one self-contained HTML page with all tables and figures."""
    write_page(
        path,
        "templates/results.html.jinja",
        data=[[plotly_figure(figure) for figure in finished.result.figures] for finished in experiments],
        plotly=any(finished.result.figures for finished in experiments),
        title=title,
        experiments=experiments,
        name_columns=NAME_COLUMNS,
        versions=versions(),
        made=time.strftime("%Y-%m-%d"),
    )
