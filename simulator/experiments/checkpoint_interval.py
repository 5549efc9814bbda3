"""Figure 3: training runs that were measured at every k-th step only."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from simulator.baselines import Simfluence
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import TITLES, Row, distinct, score_grid
from simulator.experiments.estimation import average_rows
from simulator.experiments.workbench import UNTRAINABLE, Workbench, score_part
from simulator.model.curricula import measured_steps
from simulator.reporting.result import Figure, Panel, Result, Series

INTERVALS = (1, 2, 3, 5, 10)


def held(runs: Dynamics, interval: int) -> Dynamics:
    """Every value replaced by that at the next measured step: how the paper fills in what it did not measure."""
    updates = int(runs.step[-1])
    measured = np.array(measured_steps(updates, interval))
    index_of_step = {step: index for index, step in enumerate(runs.step.tolist())}
    stands = [index_of_step[int(measured[np.searchsorted(measured, step)])] for step in runs.step.tolist()]
    return replace(runs, values=runs.values[..., stands])


def thinned(runs: Dynamics, interval: int) -> Dynamics:
    """Only the values at the measured steps."""
    index_of_step = {step: index for index, step in enumerate(runs.step.tolist())}
    measured = measured_steps(int(runs.step[-1]), interval)
    return replace(runs, step=np.array(measured), values=runs.values[..., [index_of_step[step] for step in measured]])


def _rows(bench: Workbench, config: str, interval: int) -> list[Row]:
    runs = bench.runs(config)
    held_out, seen = runs.split("test"), runs.split("train", "validation")
    filled = held(runs, interval)
    predictions = {
        "mean_curve": np.broadcast_to(held(seen, interval).values.mean(0), held_out.values.shape),
        "simfluence_linear": Simfluence("linear", filled.split("train"), filled.split("validation")).predict(held_out),
    }
    for method, dynamics, encoder, data in (
        ("memory_gradient", "memory", "gradient", thinned(runs, interval)),
        ("markov_1", "markov", "sentence", filled),
    ):
        settings = bench.settings(config, "loss", dynamics, encoder)
        trained = bench.trained(settings) if interval == 1 else bench.trained(bench.like_tuned(settings), data)
        predictions[method] = Simulated(trained.model).predict(held_out)

    about = {"config": config, "task": config, "interval": interval}
    return [
        about | {"method": method} | asdict(score_part(predicted, held_out, seen, 1))
        for method, predicted in predictions.items()
    ]


def checkpoint_interval(bench: Workbench) -> Result:
    """Train on runs measured every k steps, score on every step of held-out runs."""
    result, configs = bench.begin("finetune")
    for config in configs:
        try:
            if len(bench.runs(config).step) != len(bench.runs(config).curricula[0]) + 1:
                raise DataError("its loss was not measured at every step")
            result.rows.extend([row for interval in INTERVALS for row in _rows(bench, config, interval)])
        except UNTRAINABLE as error:
            result.skipped.append(f"{config}: {error}")
    return result


def _averages(rows: list[Row]) -> list[Row]:
    """Averages over configs for each method and interval.

    All intervals are compared with the same reference: the mean curve of runs measured at every step.
    """
    exact = [row for row in rows if (row["method"], row["interval"]) == ("mean_curve", 1)]
    reference = [row | {"method": "reference"} for row in exact]
    return [
        row | {"interval": interval}
        for interval in INTERVALS
        for row in average_rows([*(row for row in rows if row["interval"] == interval), *reference], "reference")
        if row["method"] != "reference"
    ]


def show_checkpoint_interval(rows: list[Row]) -> Result:
    """Averages over configs by interval: two tables, and a panel for each."""
    averages, panels = _averages(rows), []
    if not rows:
        return Result()
    page = Result()
    for score in ("mse_ratio", "spearman"):
        page.tables.extend(score_grid("loss", averages, score, column="interval"))
        series = [
            Series(method, list(INTERVALS), [row[score] for row in averages if row["method"] == method])
            for method in distinct(averages, "method")
        ]
        y_title = TITLES[score]
        panels.append(Panel("", "steps between measurements", y_title, series, "points", log_y=score == "mse_ratio"))
    page.figures.append(Figure("Training runs measured at every k-th step only", panels))
    page.notes.append(f"A column for each interval, in updates. Averages over {', '.join(distinct(rows, 'config'))}.")
    page.notes.append(
        "As in the paper, a step that was not measured takes the next measured value; memory is fitted to the measured "
        "steps alone. All methods are scored on every step of held-out runs. Their MSE is divided by that of the mean "
        "curve of runs measured at every step."
    )
    page.notes.append("The paper (figure 3): errors grow with the interval; at 10 GPTfluence is still comparable.")
    return page
