"""True and predicted trajectories: panels of them, a picture, and a plotly figure for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.metrics import Metric
from simulator.evaluation.selection import at_quantiles
from simulator.model.display import line_figure
from simulator.reporting.colours import TRUTH, drawn_at_first, method_colour, method_dash
from simulator.reporting.pictures import draw_picture
from simulator.reporting.result import Figure, Panel, Series

PICTURE_PANELS = 4


def trajectory_panel(
    title: str,
    metric: Metric,
    step: Sequence[int],
    truth: Sequence[float],
    predicted: Mapping[str, Sequence[float | None]],
    late: bool = False,
) -> Panel:
    """True values and predictions of one test example in one run; the vertical axis follows the true values.

    Args:
        title: of the panel.
        metric: of the values.
        step: S measured steps.
        truth: S values.
        predicted: S values by method; None where one is not finite.
        late: the vertical axis follows what comes after the first eighth of the steps, so that the fall at the
            beginning does not flatten everything else.
    """
    series = [Series(TRUTH, step, truth), *(Series(method, step, values) for method, values in predicted.items())]
    followed = truth[len(truth) // 8 :] if late else truth
    margin = (0.6 if late else 0.3) * ((max(followed) - min(followed)) or 1.0)
    low, high = min(followed) - margin, max(followed) + margin
    limits = (max(metric.least, low), high) if late else (low, high)
    return Panel(title, "training step", metric.axis_title, series, y_range=limits)


def draw_trajectories(runs: Dynamics, predictions: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw four (run, test example) pairs: the truth, every simulator, and the baselines that come near.

    The pairs are those at the 20th, 40th, 60th and 80th percentile of the last method's error.

    Args:
        runs: R held-out runs.
        predictions: `[R, M, S]` by method.
        path: an .svg or .png file.

    Raises:
        DataError: matplotlib is not installed, or the file cannot be written.
    """
    drawn = {name: values for name, values in predictions.items() if drawn_at_first(name)}
    errors = np.square(list(drawn.values())[-1] - runs.values).mean(-1)
    panels = []
    for run, test in at_quantiles(errors, PICTURE_PANELS + 1):
        finite = {
            name: [value if np.isfinite(value) else None for value in values[run, test].tolist()]
            for name, values in drawn.items()
        }
        title = f"run {runs.runs[run]}, test example {runs.test[test].id}"
        truth = runs.values[run, test].tolist()
        panels.append(trajectory_panel(title, runs.definition, runs.step.tolist(), truth, finite, late=True))
    draw_picture(Figure("", panels, PICTURE_PANELS), path)


def plot_predictions(
    runs: Dynamics,
    predictions: Mapping[str, np.ndarray],
    run: str | None = None,
    test_id: int | None = None,
    errors: bool = False,
) -> Any:
    """A plotly figure of one run as measured and as each method predicts it, or of the error at each step.

    Baselines that are far off (see `drawn_at_first`) are in the legend, and appear when clicked.

    Args:
        runs: R held-out runs.
        predictions: `[R, M, S]` by method.
        run: of which run; default: the first.
        test_id: of which test example; default: the mean over all.
        errors: the mean absolute error over all runs and test examples instead, at each step.

    Raises:
        SettingsError: there is no such run or test example, or errors are asked for of one.
    """
    if errors:
        if run is not None or test_id is not None:
            raise SettingsError("errors are over all runs and test examples: leave out run and test_id")
        figure = line_figure(f"mean absolute error of {runs.metric}, {len(runs.runs)} runs x {len(runs.test)} examples")
        lines = {name: np.abs(values - runs.values).mean((0, 1)) for name, values in predictions.items()}
    else:
        run = run or runs.runs[0]
        ids = [example.id for example in runs.test]
        if run not in runs.runs:
            raise SettingsError(f"no held-out run {run!r}; there are: {', '.join(runs.runs)}")
        if test_id is not None and test_id not in ids:
            raise SettingsError(f"no test example {test_id}; there are {len(ids)}, from {min(ids)} to {max(ids)}")
        of = f"mean of {len(ids)} test examples" if test_id is None else f"test example {test_id}"
        row, tests = runs.runs.index(run), list(range(len(ids))) if test_id is None else [ids.index(test_id)]
        figure = line_figure(runs.definition.axis_title)
        figure.update_layout(title={"text": f"{runs.config}, run {run}, {of}"})
        truth = {"color": method_colour(TRUTH), "width": 3}
        figure.add_scatter(x=runs.step, y=runs.values[row][tests].mean(0), name=TRUTH, mode="lines", line=truth)
        lines = {name: values[row][tests].mean(0) for name, values in predictions.items()}
    for name, values in lines.items():
        visible = True if drawn_at_first(name) else "legendonly"
        line = {"color": method_colour(name), "dash": method_dash(name)}
        figure.add_scatter(x=runs.step, y=values, name=name, mode="lines", line=line, visible=visible)
    return figure
