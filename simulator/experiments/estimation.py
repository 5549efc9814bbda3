"""Tables 1 to 4: how well each method predicts losses and other metrics of held-out runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gptdynamics.configs import config_parts
from simulator.evaluation import Evaluation
from simulator.experiments.comparison import PAPER_COLUMNS, SCORE_COLUMNS
from simulator.experiments.paper_tables import PAPER_METHODS, paper_row
from simulator.experiments.workbench import Scenario, Workbench, score_part
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Result, Table
from simulator.reporting.tables import score_cells

TABLES: dict[tuple[Scenario, str], str] = {
    ("instruct", "loss"): "1",
    ("finetune", "loss"): "2",
    ("instruct", "metrics"): "3",
    ("finetune", "metrics"): "4",
}


def rows_by_task(evaluation: Evaluation, config: str, seen: Any) -> list[dict[str, Any]]:
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


def _paper_cells(table: str, task: str, metric: str, method: str, size: str) -> list[str]:
    return score_cells(paper_row(table, task, metric, method, size=size) or paper_row(table, task, metric, method))


def task_table(table: str, title: str, rows: Iterable[dict[str, Any]]) -> Table:
    """Every task's methods, beside the paper's figures for the method of the same kind."""
    cells = [
        [
            row["task"],
            row["method"],
            "skipped" if row["note"] else number_text(row["mse"], row["mse_std"]),
            *score_cells(row, "mae", "spearman", "skill"),
            *_paper_cells(table, row["task"], row["metric"], row["method"], row["size"]),
        ]
        for row in rows
    ]
    return Table(title, ["task", "method", *SCORE_COLUMNS, *PAPER_COLUMNS], cells)


def _mean(rows: Sequence[dict[str, Any] | None], key: str, by: Sequence[dict[str, Any]] | None = None) -> float | None:
    """Mean over tasks of a figure, or of its ratio to the same figure of `by`; None where one is undefined."""
    values = []
    for place, row in enumerate(rows):
        reference = by[place][key] if by else 1.0
        if row is None or row[key] is None or not reference:
            return None
        values.append(row[key] / reference)
    return float(np.mean(values))


def average_rows(rows: list[dict[str, Any]], reference: str = "mean_curve") -> list[dict[str, Any]]:
    """Averages over tasks of each method: errors as ratios to a reference method's, Spearman and skill as they are.

    A method that has no figure for a task has no average of it: an average over other tasks would compare unlike
    things.
    """
    tasks = list(dict.fromkeys((row["config"], row["task"]) for row in rows))
    index = {(row["config"], row["task"], row["method"]): row for row in rows}
    divided_by = [index[(*task, reference)] for task in tasks]
    result = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [index.get((*task, method)) for task in tasks]
        result.append(
            {
                "method": method,
                "mse_ratio": _mean(mine, "mse", divided_by),
                "mae_ratio": _mean(mine, "mae", divided_by),
                "spearman": _mean(mine, "spearman"),
                "skill": _mean(mine, "skill"),
                "tasks": len(tasks),
            }
        )
    return result


def average_table(table: str, title: str, metric: str, size: str, rows: list[dict[str, Any]]) -> Table:
    """Averages over tasks; the paper's are of raw figures."""
    columns = ["method", "MSE / mean curve's", "MAE / mean curve's", "Spearman", "skill", *PAPER_COLUMNS]
    cells = [
        [
            row["method"],
            *[number_text(row[key]) for key in ("mse_ratio", "mae_ratio", "spearman", "skill")],
            *_paper_cells(table, "average", metric, row["method"], size),
        ]
        for row in average_rows(rows)
    ]
    return Table(title, columns, cells)


def _averages(table: str, metric: str, size: str, rows: list[dict[str, Any]]) -> list[Table]:
    """Over all tasks, and over those for which no method was skipped."""
    result = []
    lacking = {(row["config"], row["task"]) for row in rows if row["note"]}
    whole = [row for row in rows if (row["config"], row["task"]) not in lacking]
    for mine in [rows] if not lacking or not whole else [rows, whole]:
        names = list(dict.fromkeys(row["task"] for row in mine))
        if len(names) > 1:
            result.append(
                average_table(table, f"Average over {', '.join(names)}: {metric}, {size}", metric, size, mine)
            )
    return result


def _about(row: dict[str, Any]) -> str:
    still, count = row["still"], row["runs"] * row["examples"]
    moved = f"; {still} of {count} trajectories never move and are left out of skill" if still else ""
    return (
        f"{row['config']}, {row['task']}, {row['metric']}: {row['runs']} held-out runs, "
        f"{row['examples']} test examples{moved}."
    )


def _wanted(bench: Workbench, config: str, kind: str) -> list[str]:
    result = bench.metrics(config)
    return ["loss"] if kind == "loss" else [metric for metric in result if metric != "loss"]


def estimate(bench: Workbench, scenario: Scenario, kind: str) -> Result:
    """One of the paper's tables 1 to 4.

    Args:
        bench: the dataset.
        scenario: `finetune` or `instruct`.
        kind: `loss`, or `metrics` for everything else that was measured.
    """
    table = TABLES[scenario, kind]
    result, configs = bench.begin(scenario)
    by_metric: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for config in configs:
        metrics = _wanted(bench, config, kind)
        if not metrics:
            result.skipped.append(f"{config}: nothing but the loss was measured")
        for metric in metrics:
            evaluation = bench.evaluation(config, metric)
            seen = bench.runs(config, metric).split("train", "validation")
            rows = rows_by_task(evaluation, config, seen)
            by_metric.setdefault((config_parts(config)[1], metric), []).extend(rows)
            for row in rows:
                if row["method"] == "mean_curve":
                    result.notes.append(_about(row))
            notes = {row.note for row in evaluation.rows if row.note}
            result.skipped.extend(f"{config}, {metric}: {note}" for note in sorted(notes))
    for (size, metric), rows in by_metric.items():
        result.rows.extend(rows)
        result.tables.append(task_table(table, f"{metric}, {size}", rows))
        result.tables.extend(_averages(table, metric, size, rows))
    if result.tables:
        beside = ", ".join(f"{ours} with its {theirs!r}" for ours, theirs in PAPER_METHODS.items())
        result.notes.append(
            f"The paper's figures (its table {table}) are of Pythia models on its own runs and stand beside the method "
            f"of the same kind: {beside}. Where a size is not in the paper, those of Pythia-410m stand there."
        )
        result.notes.append(
            "Averages over tasks are of ratios to the mean curve's error; the paper averages raw errors, so that its "
            "average is that of the task with the largest errors."
        )
    return result
