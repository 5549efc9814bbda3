"""The picture on a dataset repository's card: trajectories of a few runs of each config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gptdynamics.dataset.run_files import read_trajectories
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


def draw_runs(finished: Mapping[str, Sequence[str]], path_of: Callable[[str, str], Path]) -> str | None:
    """An SVG with the loss of each config's first three test examples in its first three runs; None: there is none.

    Args:
        finished: names of finished runs by config.
        path_of: the trajectories' file of a run of a config.

    Raises:
        DataError: a file is damaged.
    """
    panels = []
    for config, runs in drawn_runs(finished).items():
        lines = []
        for run in runs:
            rows = read_trajectories(path_of(config, run), run).slice(0, len(_EXAMPLES)).to_pylist()
            lines += [
                Line(row["step"], row["loss"], colour, label)
                for (label, colour), row in zip(_EXAMPLES.items(), rows, strict=False)
                # What was recorded elsewhere need not have the loss.
                if row.get("loss") and len(row["loss"]) == len(row["step"])
            ]
        if lines:
            panels.append(Panel(config, "loss", lines))
    return draw_panels(panels) if panels else None
