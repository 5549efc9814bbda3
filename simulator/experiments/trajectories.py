"""Figures 2 and 10 to 18: what was measured and what methods predict, for one test example of each config."""

from __future__ import annotations

import numpy as np

from gptdynamics.metrics import METRICS
from simulator.evaluation import Evaluation
from simulator.evaluation.selection import at_quantiles
from simulator.experiments.comparison import MOST_PANELS, Row
from simulator.experiments.workbench import Workbench
from simulator.reporting.prediction_figures import trajectory_panel
from simulator.reporting.result import Figure, Result

METRIC = "loss"
# Methods of a figure: the reference of skill, the paper's, and ours.
DRAWN = ("mean_curve", "simfluence_linear", "markov_1", "memory_gradient", "tangent")
# Of the values that are kept.
DIGITS = 5


def median_pair(evaluation: Evaluation, method: str) -> tuple[int, int] | None:
    """Indices (run, test example) at the median of a method's squared errors that move; None where none moves."""
    truth = evaluation.runs.values
    errors = np.square(evaluation.predictions[method] - truth).mean(-1)
    return next(iter(at_quantiles(errors, 2, np.ptp(truth, axis=-1) > 0)), None)


def trajectories(bench: Workbench) -> Result:
    """True and predicted losses of one test example of each config."""
    result, configs = bench.begin()
    for config in configs:
        evaluation = bench.evaluation(config, METRIC)
        runs = evaluation.runs
        last = [row.method for row in evaluation.rows if row.method in evaluation.predictions][-1]
        pair = median_pair(evaluation, last)
        if pair is None:
            result.skipped.append(f"{config}: no trajectory moves")
            continue
        run, test = pair
        values = {name: evaluation.predictions[name] for name in DRAWN if name in evaluation.predictions}
        example = runs.test[test]
        about = {"config": config, "run": runs.runs[run], "task": example.task, "test_id": example.id}
        predicted = {name: _short(each[run, test]) for name, each in values.items()}
        truth = _short(runs.values[run, test])
        result.rows.append(about | {"step": runs.step.tolist(), "truth": truth, "predicted": predicted})
    return result


def _short(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values]


def show_trajectories(rows: list[Row]) -> Result:
    """A panel for each of the first configs."""
    panels = [
        trajectory_panel(
            f"{row['config']}: run {row['run']}, {row['task']} {row['test_id']}",
            METRICS[METRIC],
            row["step"],
            row["truth"],
            row["predicted"],
            late=True,
        )
        for row in rows[:MOST_PANELS]
    ]
    if not panels:
        return Result()
    note = (
        f"For each of up to {MOST_PANELS} configs: a typical test example in a held-out run, the one whose squared "
        "error by the last method evaluated is the median. The vertical axis leaves out the fall at the beginning, "
        "and methods that are far off."
    )
    return Result(figures=[Figure("True and predicted loss in runs held out", panels)], notes=[note])
