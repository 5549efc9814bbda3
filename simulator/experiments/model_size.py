"""Figure 6: base models of different sizes."""

from __future__ import annotations

from functools import partial

from gptdynamics.configs import config_parts
from gptdynamics.errors import SettingsError
from simulator.experiments.comparison import comparison_table, dot_figure
from simulator.experiments.estimation import rows_by_task
from simulator.experiments.workbench import Workbench
from simulator.reporting.result import Result

METHODS = ("mean_curve", "simfluence_linear", "markov_1", "memory_sentence", "memory_gradient")


def model_size(bench: Workbench) -> Result:
    """Compare methods over the sizes of a task's base models."""
    result, configs = bench.begin()
    sizes: dict[str, list[str]] = {}
    for config in configs:
        sizes.setdefault(config_parts(config)[0], []).append(config)
    for task, mine in sizes.items():
        if len(mine) < 2:
            result.skipped.append(f"{task}: only one size of base model ({config_parts(mine[0])[1]})")
            continue
        mine.sort(key=partial(_parameters, bench))
        rows = []
        for config in mine:
            evaluation = bench.evaluation(config, "loss")
            seen = bench.runs(config).split("train", "validation")
            by_task = rows_by_task(evaluation, config, seen)
            result.skipped.extend(f"{config}: {row.method}: {row.note}" for row in evaluation.rows if row.note)
            rows += [row for row in by_task if row["method"] in METHODS]
        result.rows.extend(rows)
        for part in dict.fromkeys(row["task"] for row in rows):
            of_task = [row for row in rows if row["task"] == part]
            title = f"{task}, {part}, loss" if part != task else f"{task}, loss"
            result.tables.append(comparison_table(title, of_task, "size"))
            result.figures.append(dot_figure(f"{title}: sizes of the base model", of_task, "size", "6"))
    if result.rows:
        result.notes.append(
            "The paper (figure 6, Pythia 14m to 2.8b, instruction tuning): errors do not change in one direction with "
            "size, and GPTfluence is ahead of Simfluence at every size."
        )
    return result


def _parameters(bench: Workbench, config: str) -> float:
    """Weights of its base model; base models that cannot be loaded come last."""
    try:
        return bench.parameters(config)
    except SettingsError:
        return float("inf")
