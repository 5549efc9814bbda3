"""Figures 2, 8 and 10 to 18: what was measured and what every method predicts, for chosen test examples."""

from __future__ import annotations

import numpy as np

from simulator.evaluation import Evaluation
from simulator.evaluation.selection import at_quantiles
from simulator.experiments.workbench import Workbench
from simulator.reporting.prediction_figures import trajectory_panel
from simulator.reporting.result import Figure, Result

PANELS = 3
# Methods of a figure: the paper's, the reference of skill, and ours.
DRAWN = (
    "mean_curve",
    "simfluence_linear",
    "tracin_cp_all",
    "grad_dot",
    "update_dot",
    "markov_1",
    "memory_sentence",
    "memory_gradient",
)


def chosen_pairs(evaluation: Evaluation, method: str) -> list[tuple[int, int]]:
    """Indices (run, test example) at the quarter, half and three quarters of a method's squared errors that move."""
    truth = evaluation.runs.values
    errors = np.square(evaluation.predictions[method] - truth).mean(1)
    return at_quantiles(errors, PANELS + 1, np.ptp(truth, axis=1) > 0)


def trajectory_figure(evaluation: Evaluation, config: str, paper: str) -> Figure | None:
    """True values and every drawn method of three examples; None where no trajectory moves."""
    runs = evaluation.runs
    last = [row.method for row in evaluation.rows if row.method in evaluation.predictions][-1]
    panels = []
    for run, test in chosen_pairs(evaluation, last):
        predicted = {name: evaluation.predictions[name] for name in DRAWN if name in evaluation.predictions}
        title = f"run {runs.runs[run]}, {runs.test[test].task} {runs.test[test].id}"
        panels.append(trajectory_panel(title, runs, (run, test), predicted))
    if not panels:
        return None
    return Figure(f"{config}: {runs.metric} of three test examples in held-out runs", panels, paper=paper)


def trajectories(bench: Workbench) -> Result:
    """Draw every config and metric."""
    result, configs = bench.begin()
    for config in configs:
        for metric in bench.continuous_metrics(config):
            figure = trajectory_figure(bench.evaluation(config, metric), config, "2, 10 to 18")
            if figure is None:
                result.skipped.append(f"{config}, {metric}: no trajectory moves")
            else:
                result.figures.append(figure)
    if result.figures:
        result.notes.append(
            "The examples are those at the quarter, half and three quarters of the last method's squared errors. The "
            "vertical axis follows the ground truth; a method outside it is not drawn further."
        )
    return result
