"""An evaluation as a plotly figure, for notebooks."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptdynamics.errors import SettingsError
from simulator.evaluation import Evaluation
from simulator.report.colours import method_colour, method_dash
from simulator.report.drawn import drawn_at_first
from simulator.report.page import AXIS_TITLES
from simulator.trajectories import line_figure


def plot_evaluation(evaluation: Evaluation, run: str | None = None, test_id: int | None = None) -> Any:
    """One trajectory as measured and as every method predicted it, or the mean absolute error at each step.

    Methods far off (see `drawn_at_first`) are in the legend, and a click away.

    Args:
        evaluation: runs and predictions.
        run, test_id: which trajectory; give both or neither.

    Raises:
        SettingsError: only one of them is given, or there is no such run or test example.
    """
    runs = evaluation.runs
    if (run is None) != (test_id is None):
        raise SettingsError("give both run and test_id for one trajectory, or neither for the error at each step")
    if run is None:
        figure = line_figure(f"mean absolute error of {runs.metric}, {len(runs.runs)} runs x {len(runs.test)} examples")
        lines = {name: np.abs(found - runs.values).mean((0, 2)) for name, found in evaluation.predictions.items()}
    else:
        ids = [example.id for example in runs.test]
        if run not in runs.runs:
            raise SettingsError(f"no held-out run {run!r}; there are: {', '.join(runs.runs)}")
        if test_id not in ids:
            raise SettingsError(f"no test example {test_id}; there are {len(ids)}, from {min(ids)} to {max(ids)}")
        at, column = runs.runs.index(run), ids.index(test_id)
        figure = line_figure(AXIS_TITLES.get(runs.metric, runs.metric))
        truth = {"color": "black", "width": 3}
        figure.add_scatter(x=runs.step, y=runs.values[at, :, column], name="truth", mode="lines", line=truth)
        lines = {name: found[at, :, column] for name, found in evaluation.predictions.items()}
    for name, values in lines.items():
        visible = True if drawn_at_first(name) else "legendonly"
        line = {"color": method_colour(name), "dash": method_dash(name)}
        figure.add_scatter(x=runs.step, y=values, name=name, mode="lines", line=line, visible=visible)
    return figure
