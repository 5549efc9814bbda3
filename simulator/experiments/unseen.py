"""Tables 11 and 12: pool rows, test examples, or both, that no training run showed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gptdynamics.configs import config_parts
from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.recorded import config_task
from gptdynamics.tasks.mixture import Mixture
from simulator.evaluation.scoring import score
from simulator.evaluation.simulated import Simulated
from simulator.evaluation.unseen import mean_curves, some_tests, split_tests
from simulator.experiments.paper_tables import paper_row
from simulator.experiments.result import Figure, Panel, Result, Table, shown
from simulator.experiments.trajectories import trajectory_panel
from simulator.experiments.workbench import UNTRAINABLE, Workbench

METHODS = (("markov", "sentence"), ("memory", "sentence"), ("memory", "gradient"))
VARIANTS = ("unseen train", "unseen test", "unseen both")


@dataclass
class Predicted:
    """What was predicted of one variant: its runs, and `[R, S, M]` by method."""

    runs: Dynamics
    by_method: dict[str, np.ndarray]


def median_panel(variant: str, predicted: Predicted) -> Panel:
    """The example at the median of the last method's squared errors."""
    runs = predicted.runs
    errors = np.square(list(predicted.by_method.values())[-1] - runs.values).mean(1)
    at = int(np.argsort(errors, axis=None)[errors.size // 2])
    run, test = (int(place) for place in np.unravel_index(at, errors.shape))
    return trajectory_panel(f"{variant}: run {runs.runs[run]}", runs, (run, test), predicted.by_method)


def _rows(
    bench: Workbench, config: str, metric: str, skipped: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Predicted]]:
    runs = bench.runs(config, metric)
    training = runs.split("train", "validation")
    seen, unseen = split_tests(len(runs.test), 0.5)
    held_out = {"unseen test": (runs.split("test"), unseen)}
    with_unseen_rows = bench.runs(config, metric, unseen=True)
    if len(with_unseen_rows.runs) > len(runs.runs):
        others = with_unseen_rows.split("test_unseen")
        held_out |= {"unseen train": (others, seen), "unseen both": (others, unseen)}
    else:
        skipped.append(f"{config}, {metric}: no runs on unseen pool rows; collect with --unseen-runs")
    if not unseen:
        skipped.append(f"{config}, {metric}: a single test example leaves none to keep from training")
        return [], {}
    rows: list[dict[str, Any]] = []
    kept = {variant: Predicted(some_tests(*held_out[variant]), {}) for variant in VARIANTS if variant in held_out}
    references = {
        variant: mean_curves(training, mine.runs, seen, variant != "unseen train") for variant, mine in kept.items()
    }

    def add(method: str, variant: str, predicted: np.ndarray) -> None:
        kept[variant].by_method[method] = predicted
        about = {"config": config, "task": config_parts(config)[0], "metric": metric, "variant": variant}
        figures = score(predicted, kept[variant].runs.values, references[variant], 1)
        rows.append(about | {"method": method} | asdict(figures))

    for variant, reference in references.items():
        add("mean_curve", variant, reference)
    for dynamics, encoder in METHODS:
        settings = bench.settings(config, metric, dynamics, encoder)
        try:
            simulated = Simulated(bench.trained(settings, some_tests(runs, seen)).model)
        except UNTRAINABLE as error:
            skipped.append(f"{config}, {metric}, {dynamics} with {encoder} vectors: {error}")
            continue
        for variant, mine in kept.items():
            add(simulated.name, variant, simulated.predict(mine.runs))
    return sorted(rows, key=lambda row: VARIANTS.index(row["variant"])), kept


def unseen(bench: Workbench) -> Result:
    """Hold out pool rows, test examples, or both."""
    result = Result()
    configs, reasons = bench.configs()
    result.skipped.extend(reasons)
    for config in configs:
        task = config_parts(config)[0]
        table = "12" if isinstance(config_task(bench.folder, config), Mixture) else "11"
        for metric in bench.metrics(config):
            if metric == "accuracy":
                continue
            rows, predicted = _rows(bench, config, metric, result.skipped)
            result.rows.extend(rows)
            panels = [median_panel(variant, mine) for variant, mine in predicted.items()]
            if panels:
                title = f"{config}, {metric}: an example of median error, unseen in training"
                result.figures.append(Figure(title, panels, paper="8, 19 to 30"))
            keys = ("mse", "mae", "spearman")
            cells = []
            for row in rows:
                paper = paper_row(table, task, metric, row["method"], row["variant"])
                cells.append(
                    [
                        row["variant"],
                        row["method"],
                        *[shown(row[key], row[f"{key}_std"]) for key in keys],
                        shown(row["skill"]),
                        *[shown(getattr(paper, key), getattr(paper, f"{key}_std")) if paper else "" for key in keys],
                    ]
                )
            columns = ["what", "method", "all-steps MSE", "all-steps MAE", "final-step Spearman", "skill"]
            if cells:
                result.tables.append(Table(f"{config}, {metric}", [*columns, "paper: MSE", "MAE", "Spearman"], cells))
    if result.rows:
        result.notes.append(
            "Every other test example is kept from training; the same halves in all rows. For unseen test examples "
            "mean_curve is their first value plus the mean change of the seen ones. The gradient of an example at the "
            "base model's weights is known before any run, so that gradient vectors give nothing away."
        )
    return result
