"""Figure 4 and table 10: Markov order n."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simulator.baselines import MeanCurveShifted, Simfluence
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import MOST_PANELS, Row, beside_paper, distinct, score_grid
from simulator.experiments.paper_tables import PaperRow, paper_row
from simulator.experiments.workbench import Workbench, score_part
from simulator.reporting.result import Figure, Panel, Result, Series

ORDERS = (1, 2, 3, 5, 10)
ORDER_METHOD = "markov, order n"


def markov_order(bench: Workbench) -> Result:
    """Train markov of several orders; all are scored on the steps after the highest one's history."""
    result, configs = bench.begin("finetune")
    for config in configs:
        for metric in bench.continuous_metrics(config):
            _one(bench, config, metric, result)
    return result


def show_markov_order(rows: list[Row]) -> Result:
    """A table for each metric; panels for the loss of the first configs."""
    page, panels = Result(), []
    named = [row | {"method": f"markov_{row['order']}"} if row["order"] else row for row in rows]
    for metric in distinct(rows, "metric"):
        mine = [row for row in named if row["metric"] == metric]
        page.tables.extend(score_grid(metric, mine, "skill"))
        page.tables.extend(beside_paper(metric, mine, _paper))
    of_loss = [row for row in rows if row["metric"] == "loss"]
    for config in distinct(of_loss, "config")[:MOST_PANELS]:
        mine = [row for row in of_loss if row["config"] == config]
        orders = [row["order"] for row in mine if row["order"] is not None]
        # A method that has no order is a level line.
        series = [Series(row["method"], orders, [row["mse"]] * len(orders)) for row in mine if row["order"] is None]
        by_order = [row["mse"] for row in mine if row["order"] is not None]
        series.append(Series("markov_1", orders, by_order, ORDER_METHOD))
        panels.append(Panel(config, "order n", "all-steps MSE", series, kind="points", log_y=True))
    if panels:
        page.figures.append(Figure("Loss: markov of order n", panels))
        page.notes.append(
            "Order n predicts from the last n values. All rows are scored on the same steps, after the first "
            f"{max(ORDERS)} where a run has that many. Simfluence and memory are given one value, the shifted mean "
            "curve as many as the highest order. The learning rate, weight decay and width are the best for order 1."
        )
        page.notes.append("The paper (figure 4, table 10): the order matters little.")
    return page


def _paper(row: Row) -> PaperRow | None:
    return paper_row("10", row["task"], row["metric"], "ours", f"order {row['order']}") if row["order"] else None


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
    for (method, given), predicted in predictions.items():
        figures = score_part(predicted, held_out, seen, history)
        about = {"config": config, "task": task, "metric": metric, "method": method, "order": given}
        result.rows.append(about | asdict(figures))
