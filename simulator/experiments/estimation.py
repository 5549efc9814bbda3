"""Tables 1 to 4: how well each method predicts losses and other metrics of held-out runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gptdynamics.configs import config_parts
from simulator.evaluation import Evaluation
from simulator.experiments.comparison import Row, beside_paper, distinct, score_grid
from simulator.experiments.paper_tables import PaperRow, paper_row
from simulator.experiments.workbench import Scenario, Workbench, score_part
from simulator.reporting.result import Result

TABLES: dict[tuple[Scenario, str], str] = {
    ("instruct", "loss"): "1",
    ("finetune", "loss"): "2",
    ("instruct", "metrics"): "3",
    ("finetune", "metrics"): "4",
}


def rows_by_task(evaluation: Evaluation, config: str, seen: Any) -> list[Row]:
    """Scores of every method for each task of an evaluation's test examples."""
    runs = evaluation.runs
    size = config_parts(config)[1]
    tasks = list(dict.fromkeys(example.task for example in runs.test))
    rows = []
    for task in tasks:
        tests = [index for index, example in enumerate(runs.test) if example.task == task]
        for row in evaluation.rows:
            figures = score_part(evaluation.predictions.get(row.method), runs, seen, evaluation.history, tests)
            about = {"config": config, "size": size, "task": task, "metric": runs.metric, "method": row.method}
            counts = {"runs": len(runs.runs), "examples": len(tests), "note": row.note}
            rows.append(about | asdict(figures) | counts)
    return rows


def _mean(rows: Sequence[Row | None], key: str, by: Sequence[Row] | None = None) -> float | None:
    """Mean over tasks of a figure, or of its ratio to the same figure of `by`; None where one is undefined."""
    values = []
    for place, row in enumerate(rows):
        reference = by[place][key] if by else 1.0
        if row is None or row[key] is None or not reference:
            return None
        values.append(row[key] / reference)
    return float(np.mean(values))


def average_rows(rows: list[Row], reference: str = "mean_curve") -> list[Row]:
    """Averages over tasks of each method: the MSE as a ratio to a reference method's, Spearman and skill as they are.

    A method that has no figure for a task has no average of it: an average over other tasks would compare unlike
    things.
    """
    tasks = list(dict.fromkeys((row["config"], row["task"]) for row in rows))
    index = {(row["config"], row["task"], row["method"]): row for row in rows}
    divided_by = [index[(*task, reference)] for task in tasks]
    result = []
    for method in distinct(rows, "method"):
        mine = [index.get((*task, method)) for task in tasks]
        averages = {"mse_ratio": _mean(mine, "mse", divided_by)}
        averages |= {key: _mean(mine, key) for key in ("spearman", "skill")}
        result.append({"method": method} | averages)
    return result


def estimate(bench: Workbench, scenario: Scenario, kind: str) -> Result:
    """Score every method on the held-out runs of each config.

    Args:
        bench: the dataset.
        scenario: `finetune` or `instruct`.
        kind: `loss`, or `metrics` for everything else that was measured.
    """
    result, configs = bench.begin(scenario)
    for config in configs:
        measured = bench.metrics(config)
        metrics = ["loss"] if kind == "loss" else [metric for metric in measured if metric != "loss"]
        if not metrics:
            result.skipped.append(f"{config}: nothing but the loss was measured")
        for metric in metrics:
            evaluation = bench.evaluation(config, metric)
            seen = bench.runs(config, metric).split("train", "validation")
            result.rows.extend(rows_by_task(evaluation, config, seen))
            notes = {row.note for row in evaluation.rows if row.note}
            result.skipped.extend(f"{config}, {metric}: {note}" for note in sorted(notes))
    return result


def show_estimates(rows: list[Row], scenario: Scenario, kind: str) -> Result:
    """One of the paper's tables 1 to 4: a column for each config, or for each task of an instruction tuning."""
    page, number = Result(), TABLES[scenario, kind]

    def paper(row: Row) -> PaperRow | None:
        of_size = paper_row(number, row["task"], row["metric"], row["method"], size=row["size"])
        return of_size or paper_row(number, row["task"], row["metric"], row["method"])

    # The configs of fine-tuning stand side by side; each of instruction tuning has columns for its tasks.
    groups = [[config] for config in distinct(rows, "config")] if scenario == "instruct" else [distinct(rows, "config")]
    for metric in distinct(rows, "metric"):
        for group in groups:
            mine = [row for row in rows if row["config"] in group and row["metric"] == metric]
            if scenario == "instruct":
                mine = [row | {"config": row["task"]} for row in mine]
            about = metric if scenario == "finetune" else f"{group[0]}, {metric}"
            page.tables.extend(score_grid(about, mine, "skill"))
            if kind == "loss":
                page.tables.extend(score_grid(about, mine, "spearman"))
            page.tables.extend(beside_paper(about, mine, paper))
    if rows:
        counts = dict.fromkeys(f"{row['config']} {row['runs']} x {row['examples']}" for row in rows)
        page.notes.append(f"Held-out runs x test examples: {', '.join(counts)}.")
        page.notes.append(
            f"The paper's figures are those of its table {number}, for Pythia-410m where the paper has no model of "
            "that name. MSE depends on the model and its runs: compare methods within a column only. A dash or an "
            "empty cell: the dataset lacks what the method needs."
        )
    return page
