"""Figure 9: how the paper's two simulators converge under the optimisers of its tables 8 and 9."""

from __future__ import annotations

from dataclasses import replace

from simulator.baselines import SimfluenceDescent
from simulator.baselines.simfluence_descent import Descent
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import SCORE_COLUMNS
from simulator.experiments.workbench import Workbench, score_part
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table

FROM_NORMAL = "table 9 from normal factors"
# Validation errors beyond this are not drawn: trajectories that blow up would flatten all others.
BLOWN_UP = 1e6


def convergence(bench: Workbench) -> Result:
    """Train both on the config with the most runs, and compare with the training that is used elsewhere."""
    result, configs = bench.begin("finetune")
    if not configs:
        return result
    config = max(configs, key=lambda name: len(bench.folder.finished(name)))
    runs = bench.runs(config)
    tuned = bench.trained(bench.settings(config, "loss", "markov", "sentence"))
    bench.on_phase(f"{config} loss: table 9", 1)
    descent, normal = (
        SimfluenceDescent(runs.split("train"), runs.split("validation"), Descent(start=start))
        for start in ("persistence", "normal")
    )
    bench.on_progress()
    by_table = replace(bench.settings(config, "loss", "markov", "sentence"), preset="paper-finetune-rows")
    by_paper = bench.trained(by_table)
    losses, errors = ([getattr(check, name) for check in by_paper.fitted[0].checks] for name in ("loss", "error"))
    held_out, seen = runs.split("test"), runs.split("train", "validation")
    cells = []
    for method, predicted, how, epochs in (
        ("simfluence_linear_adamw", descent.predict(held_out), "table 9", len(descent.errors)),
        ("simfluence_linear_adamw", normal.predict(held_out), FROM_NORMAL, len(normal.errors)),
        ("markov_1", Simulated(by_paper.model).predict(held_out), "table 8", len(errors)),
        ("markov_1", Simulated(tuned.model).predict(held_out), "as used elsewhere", None),
    ):
        figures = score_part(predicted, held_out, seen, 1)
        about = {"config": config, "method": method, "training": how, "epochs": epochs}
        result.rows.append(about | vars(figures))
        keys = (figures.mse, figures.mae, figures.spearman, figures.skill)
        cells.append([method, how, "-" if epochs is None else str(epochs), *[number_text(each) for each in keys]])
    columns = ["method", "how", "epochs", *SCORE_COLUMNS]
    result.tables.append(Table(f"{config}, loss: held-out runs", columns, cells))
    panels = []
    for title, simfluence, from_normal, markov in (
        ("one-step training MSE", descent.losses, normal.losses, losses),
        ("validation all-steps MSE", descent.errors, normal.errors, errors),
    ):
        series = []
        for method, values, label in (
            ("simfluence_linear_adamw", simfluence, "simfluence, table 9"),
            ("simfluence_linear", from_normal, f"simfluence, {FROM_NORMAL}"),
            ("markov_1", markov, "markov, table 8"),
        ):
            finite = [each if each < BLOWN_UP else None for each in values]
            series.append(Series(method, list(range(1, len(values) + 1)), finite, label))
        panels.append(Panel("", "epoch", title, series, log_y=True))
    result.figures.append(Figure(f"{config}, loss: convergence under the paper's optimisers", panels, paper="9"))
    result.notes.append(
        "Trained with the rates, decay and epochs of tables 8 and 9, but with 8 (run, step) rows of all test examples "
        "in an update in place of 128 triples (`--preset paper-finetune` has those). The authors' Simfluence begins at "
        "standard normal factors; markov begins at small random weights. The paper (figure 9) finds "
        "that GPTfluence converges faster and to a lower validation error than Simfluence."
    )
    return result
