"""Figure 3: training runs that were measured at every k-th step only."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from simulator.baselines import Simfluence
from simulator.evaluation.simulated import Simulated
from simulator.experiments.estimation import average_rows
from simulator.experiments.workbench import UNTRAINABLE, Workbench, score_part
from simulator.model.curricula import measured_steps
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table

INTERVALS = (1, 2, 3, 5, 10)


def held(runs: Dynamics, interval: int) -> Dynamics:
    """Every value replaced by that at the next measured step: how the paper fills in what it did not measure."""
    updates = int(runs.step[-1])
    measured = np.array(measured_steps(updates, interval))
    index_of_step = {step: index for index, step in enumerate(runs.step.tolist())}
    stands = [index_of_step[int(measured[np.searchsorted(measured, step)])] for step in runs.step.tolist()]
    return replace(runs, values=runs.values[:, stands])


def thinned(runs: Dynamics, interval: int) -> Dynamics:
    """Only the values at the measured steps."""
    index_of_step = {step: index for index, step in enumerate(runs.step.tolist())}
    measured = measured_steps(int(runs.step[-1]), interval)
    return replace(runs, step=np.array(measured), values=runs.values[:, [index_of_step[step] for step in measured]])


def _rows(bench: Workbench, config: str, interval: int) -> list[dict[str, Any]]:
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
    for config in list(configs):
        try:
            if len(bench.runs(config).step) != len(bench.runs(config).curricula[0]) + 1:
                raise DataError("its loss was not measured at every step")
            result.rows.extend([row for interval in INTERVALS for row in _rows(bench, config, interval)])
        except UNTRAINABLE as error:
            configs.remove(config)
            result.skipped.append(f"{config}: {error}")
    if not result.rows:
        return result
    every = {interval: [row for row in result.rows if row["interval"] == interval] for interval in INTERVALS}
    exact = [row for row in every[1] if row["method"] == "mean_curve"]
    cells = []
    averages: dict[tuple[str, int], dict[str, Any]] = {}
    for interval, rows in every.items():
        # All intervals are compared with the same reference: the mean curve of runs measured at every step.
        reference = [row | {"method": "reference"} for row in exact]
        for row in average_rows([*rows, *[each | {"interval": interval} for each in reference]], "reference"):
            if row["method"] != "reference":
                averages[row["method"], interval] = row
                keys = ("mse_ratio", "mae_ratio", "spearman", "skill")
                cells.append([row["method"], str(interval), *[number_text(row[key]) for key in keys]])
    columns = ["method", "interval", "MSE / mean curve's", "MAE / mean curve's", "Spearman", "skill"]
    names = ", ".join(configs)
    result.tables.append(
        Table(f"Average over {names}: loss", columns, sorted(cells, key=lambda cell: (cell[0], int(cell[1]))))
    )
    methods = list(dict.fromkeys(row["method"] for row in result.rows))
    panels = []
    for key, title in (
        ("mse_ratio", "all-steps MSE / mean curve's"),
        ("mae_ratio", "all-steps MAE / mean curve's"),
        ("spearman", "final-step Spearman"),
    ):
        series = [
            Series(method, list(INTERVALS), [averages[method, interval][key] for interval in INTERVALS])
            for method in methods
        ]
        panels.append(Panel("", "steps between measurements", title, series, kind="points"))
    result.figures.append(Figure(f"Measuring training runs at every k-th step only ({names})", panels, paper="3"))
    result.notes.append(
        "markov, Simfluence and the mean curve take the next measured value for those that were not measured, as the "
        "paper does; memory is fitted to the measured steps alone. markov has the learning rate, penalty and width "
        "that are best with every step measured. All are scored on every step of held-out runs. The ratios are to the "
        "mean curve of runs measured at every step."
    )
    result.notes.append(
        "The paper (figure 3): errors grow and Spearman falls with the interval, and at 10 GPTfluence still has "
        "comparable errors and a better Spearman than Simfluence."
    )
    return result
