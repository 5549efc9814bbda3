"""The picture on a dataset repository's card: trajectories of a few runs of each config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gptdynamics.dataset.run_files import read_trajectories
from gptdynamics.metrics import LOSS, Metric
from hub_cards.figure import Line, Panel, draw_panels

CONFIGS = 12
RUNS = 3
_BEGINNING = re.compile(
    r'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \d+ \d+" width="\d+" height="\d+" '
    r'font-family="sans-serif" font-size="10" fill="#333333">\n<rect width="\d+" height="\d+" fill="#FFFFFF"/>\n'
    r'<clipPath id="plot">'
)
_EXAMPLES = {"first test example": "#0072B2", "second": "#D55E00", "third": "#009E73"}


def picture_is_ours(svg: str) -> bool:
    """Whether `draw_runs` has made a picture, in this version or another."""
    return _BEGINNING.match(svg) is not None


def drawn_runs(finished: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The runs that the picture shows: the first three of each of the first twelve configs.

    Args:
        finished: names of finished runs by config, in order.
    """
    return dict([(config, runs[:RUNS]) for config, runs in finished.items() if runs][:CONFIGS])


def draw_runs(
    finished: Mapping[str, Sequence[str]],
    path_of: Callable[[str, str], Path],
    own_metrics: Mapping[str, Sequence[Metric]],
) -> str | None:
    """An SVG of each config's first three test examples in its first three runs: the loss, and metrics of its own.

    Args:
        finished: names of finished runs by config.
        path_of: the trajectories' file of a run of a config.
        own_metrics: by config, the metrics that are its task's own.

    Returns:
        None where there is nothing to draw.

    Raises:
        DataError: a file is damaged.
    """
    panels = []
    for config, runs in drawn_runs(finished).items():
        rows = [
            (label, colour, row)
            for run in runs
            for (label, colour), row in zip(
                _EXAMPLES.items(),
                read_trajectories(path_of(config, run), run).slice(0, len(_EXAMPLES)).to_pylist(),
                strict=False,
            )
        ]
        for metric in (LOSS, *own_metrics.get(config, ())):
            steps = metric.step_column
            lines = [
                Line(row[steps], row[metric.name], colour, label)
                for label, colour, row in rows
                # What was recorded elsewhere need not have the loss.
                if row.get(metric.name) and len(row[metric.name]) == len(row[steps])
            ]
            if lines:
                # The name of the vertical axis is written once for a row of panels.
                title = config if metric == LOSS else f"{config}: {metric.axis_title}"
                panels.append(Panel(title, metric.title, lines))
    return draw_panels(panels) if panels else None
