"""Figure 4 and table 10: Markov order n."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simulator.baselines import MeanCurveShifted, Simfluence
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import PAPER_COLUMNS, SCORE_COLUMNS, SCORES, score_panels
from simulator.experiments.paper_tables import paper_row
from simulator.experiments.workbench import Workbench, score_part
from simulator.reporting.result import Figure, Result, Series, Table
from simulator.reporting.tables import score_cells

ORDERS = (1, 2, 3, 5, 10)
ORDER_METHOD = "markov, order n"


def markov_order(bench: Workbench) -> Result:
    """Train markov of several orders; all are scored on the steps after the highest one's history."""
    result, configs = bench.begin("finetune")
    for config in configs:
        for metric in bench.continuous_metrics(config):
            _one(bench, config, metric, result)
    if result.rows:
        result.notes.append(
            f"All rows of a table score the steps after the history of its highest order ({max(ORDERS)} where there "
            "are steps enough). Simfluence and memory are given one value, the shifted mean curve as many as that "
            "order. The learning rate, penalty and width of every order are those that are best for order 1."
        )
        result.notes.append(
            "The paper's table 10 (Pythia-410m) is said to be of instruction tuning; its figures of order 1 are those "
            "of its fine-tuning tables 2 and 4."
        )
    return result


def _one(bench: Workbench, config: str, metric: str, result: Result) -> None:
    runs = bench.runs(config, metric)
    orders = [order for order in ORDERS if 2 * order < len(runs.step)]
    if not orders:
        result.skipped.append(f"{config}, {metric}: {len(runs.step)} measurements are too few")
        return
    history = max(orders)
    held_out, seen = runs.split("test"), runs.split("train", "validation")
    task = runs.test[0].task
    simfluence = Simfluence("linear", runs.split("train"), runs.split("validation"))
    memory = bench.trained(bench.settings(config, metric, "memory", "sentence"))
    predictions: dict[tuple[str, int | None], Any] = {
        ("mean_curve_shifted", None): MeanCurveShifted(seen, history).predict(held_out),
        ("simfluence_linear", None): simfluence.predict(held_out),
        ("memory_sentence", None): Simulated(memory.model).predict(held_out),
    }
    settings = bench.settings(config, metric, "markov", "sentence")
    for order in orders:
        trained = bench.trained(settings if order == 1 else bench.like_tuned(settings, order=order))
        predictions[ORDER_METHOD, order] = Simulated(trained.model).predict(held_out)
    rows: list[dict[str, Any]] = []
    for (method, given), predicted in predictions.items():
        figures = score_part(predicted, held_out, seen, history)
        about = {"config": config, "task": task, "metric": metric, "method": method, "order": given}
        rows.append(about | asdict(figures))
    result.rows.extend(rows)
    cells = []
    for row in rows:
        paper = paper_row("10", task, metric, "ours", f"order {row['order']}") if row["order"] else None
        name = row["method"] if row["order"] is None else f"markov_{row['order']}"
        cells.append([name, *score_cells(row, *SCORES, "skill"), *score_cells(paper)])
    result.tables.append(Table(f"{config}, {metric}", ["method", *SCORE_COLUMNS, *PAPER_COLUMNS], cells))

    def series(score: str) -> list[Series]:
        # A method that has no order is a level line.
        lines = [
            Series(row["method"], orders, [row[score]] * len(orders), row["method"])
            for row in rows
            if row["order"] is None
        ]
        by_order = [row[score] for row in rows if row["order"] is not None]
        return [*lines, Series("markov_1", orders, by_order, ORDER_METHOD)]

    panels = score_panels("order n", series, kind="points")
    result.figures.append(Figure(f"{config}, {metric}: markov of order n", panels, paper="4"))
