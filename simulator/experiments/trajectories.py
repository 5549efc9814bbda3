"""Figures 2, 8 and 10 to 18: what was measured and what every method predicts, for chosen test examples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gptdynamics.dataset import Dynamics
from simulator.evaluation import Evaluation
from simulator.experiments.drawing import TRUTH
from simulator.experiments.result import Figure, Panel, Result, Series
from simulator.experiments.workbench import Workbench
from simulator.report.page import AXIS_TITLES

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
    """(run, test example) places at the quarter, half and three quarters of a method's squared errors that move."""
    truth = evaluation.runs.values
    errors = np.square(evaluation.predictions[method] - truth).mean(1)
    moving = np.argwhere(np.ptp(truth, axis=1) > 0)
    order = moving[np.argsort(errors[tuple(moving.T)], kind="stable")]
    places = [(part + 1) * len(order) // (PANELS + 1) for part in range(PANELS)]
    return [(int(run), int(test)) for run, test in (order[at] for at in sorted(set(places)) if at < len(order))]


def trajectory_panel(title: str, runs: Dynamics, place: tuple[int, int], predicted: Mapping[str, np.ndarray]) -> Panel:
    """Ground truth and predictions of one test example in one run; the vertical axis follows the ground truth.

    Args:
        title: begins the panel's; the test example is added.
        runs: that are predicted.
        place: of the run and of the test example.
        predicted: `[R, S, M]` by method.
    """
    run, test = place
    steps, truth = runs.step.tolist(), runs.values[run, :, test]
    series = [Series(TRUTH, steps, truth.tolist())]
    for method, values in predicted.items():
        mine = values[run, :, test].tolist()
        series.append(Series(method, steps, [value if np.isfinite(value) else None for value in mine]))
    reach = float(np.ptp(truth)) or 1.0
    low, high = float(truth.min()) - 0.3 * reach, float(truth.max()) + 0.3 * reach
    title = f"{title}, {runs.test[test].task} {runs.test[test].id}"
    return Panel(title, "training step", AXIS_TITLES[runs.metric], series, y_range=(low, high))


def trajectory_figure(evaluation: Evaluation, config: str, paper: str) -> Figure | None:
    """Ground truth and every drawn method of three examples; None where no trajectory moves."""
    runs = evaluation.runs
    last = [row.method for row in evaluation.rows if row.method in evaluation.predictions][-1]
    panels = []
    for run, test in chosen_pairs(evaluation, last):
        predicted = {name: evaluation.predictions[name] for name in DRAWN if name in evaluation.predictions}
        panels.append(trajectory_panel(f"run {runs.runs[run]}", runs, (run, test), predicted))
    if not panels:
        return None
    return Figure(f"{config}: {runs.metric} of three test examples in held-out runs", panels, paper=paper)


def trajectories(bench: Workbench) -> Result:
    """Draw every config and metric."""
    result = Result()
    configs, reasons = bench.configs()
    result.skipped.extend(reasons)
    for config in configs:
        for metric in bench.metrics(config):
            if metric == "accuracy":
                continue
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
