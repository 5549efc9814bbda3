"""Figure 6: base models of different sizes."""

from __future__ import annotations

from functools import partial

from gptdynamics.configs import config_parts
from gptdynamics.errors import SettingsError
from simulator.experiments.comparison import SKILL_RANGE, Row, distinct, score_grid
from simulator.experiments.estimation import rows_by_task
from simulator.experiments.workbench import Workbench
from simulator.reporting.result import Figure, Panel, Result, Series

METHODS = (
    "mean_curve",
    "simfluence_linear",
    "markov_1",
    "memory_label",
    "memory_sentence",
    "memory_gradient",
    "tangent",
)


def model_size(bench: Workbench) -> Result:
    """Score methods over the sizes of a task's base models, the smallest first."""
    result, configs = bench.begin()
    sizes: dict[str, list[str]] = {}
    for config in configs:
        sizes.setdefault(config_parts(config)[0], []).append(config)
    for task, mine in sizes.items():
        if len(mine) < 2:
            result.skipped.append(f"{task}: only one size of base model ({config_parts(mine[0])[1]})")
            continue
        mine.sort(key=partial(_parameters, bench))
        for config in mine:
            evaluation = bench.evaluation(config, "loss")
            seen = bench.runs(config).split("train", "validation")
            by_task = rows_by_task(evaluation, config, seen)
            result.rows.extend([row for row in by_task if row["method"] in METHODS])
    return result


def show_model_size(rows: list[Row]) -> Result:
    """Skill by size: a table and a panel for each task."""
    page, panels = Result(), []
    for task in distinct(rows, "task"):
        mine = [row for row in rows if row["task"] == task]
        page.tables.extend(score_grid(f"{task}, loss", mine, "skill", column="size"))
        sizes = distinct(mine, "size")
        skill = {(row["method"], row["size"]): row["skill"] for row in mine}
        series = [
            Series(method, sizes, [skill.get((method, size)) for size in sizes]) for method in distinct(mine, "method")
        ]
        panels.append(Panel(task, "base model", "skill", series, kind="dots", y_range=SKILL_RANGE))
    if panels:
        page.figures.append(Figure("Skill by size of the base model", panels))
        page.notes.append("Base models by size, the smallest first. Skills below -1 are outside the picture.")
        page.notes.append(
            "The paper (figure 6, Pythia 14m to 2.8b, instruction tuning): errors do not change in one direction with "
            "size, and GPTfluence is ahead of Simfluence at every size."
        )
    return page


def _parameters(bench: Workbench, config: str) -> float:
    """Weights of its base model; base models that cannot be loaded come last."""
    try:
        return bench.parameters(config)
    except SettingsError:
        return float("inf")
