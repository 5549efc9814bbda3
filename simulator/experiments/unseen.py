"""Tables 11 and 12: pool rows, test examples, or both, that no training run showed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptdynamics.configs import config_parts
from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.recorded import config_task
from gptdynamics.tasks.mixture import Mixture
from simulator.evaluation.held_out import HeldOut, some_tests, split_tests
from simulator.evaluation.scoring import Method, score
from simulator.evaluation.selection import at_quantiles
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import PAPER_COLUMNS, SCORE_COLUMNS, SCORES
from simulator.experiments.paper_tables import paper_row
from simulator.experiments.workbench import UNTRAINABLE, Workbench
from simulator.reporting.prediction_figures import trajectory_panel
from simulator.reporting.result import Figure, Panel, Result, Table
from simulator.reporting.tables import score_cells

METHODS = (("markov", "sentence"), ("memory", "sentence"), ("memory", "gradient"))
VARIANTS = ("unseen train", "unseen test", "unseen both")


def median_panel(variant: str, runs: Dynamics, methods: list[Method]) -> Panel:
    """The example at the median of the last method's squared errors."""
    predicted = {method.name: method.prediction for method in methods if method.prediction is not None}
    errors = np.square(list(predicted.values())[-1] - runs.values).mean(1)
    [(run, test)] = at_quantiles(errors, 2)
    title = f"{variant}: run {runs.runs[run]}, {runs.test[test].task} {runs.test[test].id}"
    return trajectory_panel(title, runs, (run, test), predicted)


def _variants(bench: Workbench, config: str, metric: str, skipped: list[str]) -> dict[str, HeldOut]:
    """What is scored for each variant, and `skipped` gets the reasons why others are not."""
    runs = bench.runs(config, metric)
    training = runs.split("train", "validation")
    seen, unseen = split_tests(len(runs.test), 0.5)
    parts = {"unseen test": (runs.split("test"), unseen)}
    every = bench.runs(config, metric, unseen=True)
    if len(every.runs) > len(runs.runs):
        others = every.split("test_unseen")
        parts |= {"unseen train": (others, seen), "unseen both": (others, unseen)}
    else:
        skipped.append(f"{config}, {metric}: no runs on unseen pool rows; collect with --unseen-runs")
    if not unseen:
        skipped.append(f"{config}, {metric}: a single test example leaves none to keep from training")
        return {}
    return {
        variant: HeldOut.of(training, parts[variant][0], seen, parts[variant][1])
        for variant in VARIANTS
        if variant in parts
    }


def _rows(bench: Workbench, config: str, metric: str, skipped: list[str]) -> tuple[list[dict[str, Any]], list[Panel]]:
    """The rows of a config and metric, and a panel for each variant."""
    variants = _variants(bench, config, metric, skipped)
    if not variants:
        return [], []
    runs = bench.runs(config, metric)
    seen, _ = split_tests(len(runs.test), 0.5)
    simulators = []
    for dynamics, encoder in METHODS:
        settings = bench.settings(config, metric, dynamics, encoder)
        try:
            simulators.append(Simulated(bench.trained(settings, some_tests(runs, seen)).model))
        except UNTRAINABLE as error:
            skipped.append(f"{config}, {metric}, {dynamics} with {encoder} vectors: {error}")
    rows, panels = [], []
    for variant, held_out in variants.items():
        methods = [Method("mean_curve", held_out.reference)]
        methods += [Method(each.name, each.predict(held_out.runs)) for each in simulators]
        about = {"config": config, "task": config_parts(config)[0], "metric": metric, "variant": variant}
        for row in score(methods, held_out.runs, held_out.reference):
            rows.append(about | {"method": row.method} | row.scores)
        panels.append(median_panel(variant, held_out.runs, methods))
    return rows, panels


def unseen(bench: Workbench) -> Result:
    """Hold out pool rows, test examples, or both."""
    result, configs = bench.begin()
    for config in configs:
        task = config_parts(config)[0]
        table = "12" if isinstance(config_task(bench.folder, config), Mixture) else "11"
        for metric in bench.continuous_metrics(config):
            rows, panels = _rows(bench, config, metric, result.skipped)
            result.rows.extend(rows)
            if panels:
                title = f"{config}, {metric}: an example of median error, unseen in training"
                result.figures.append(Figure(title, panels, paper="8, 19 to 30"))
            cells = []
            for row in rows:
                paper = paper_row(table, task, metric, row["method"], row["variant"])
                cells.append([row["variant"], row["method"], *score_cells(row, *SCORES, "skill"), *score_cells(paper)])
            if cells:
                columns = ["what", "method", *SCORE_COLUMNS, *PAPER_COLUMNS]
                result.tables.append(Table(f"{config}, {metric}", columns, cells))
    if result.rows:
        result.notes.append(
            "Every other test example is kept from training; the same halves in all rows. For unseen test examples "
            "mean_curve is their first value plus the mean change of the seen ones. The gradient of an example at the "
            "base model's weights is known before any run, so that gradient vectors give nothing away."
        )
    return result
