"""Figure 9: how the paper's two simulators converge under the optimisers of its tables 8 and 9."""

from __future__ import annotations

from dataclasses import replace

from simulator.baselines import SimfluenceDescent
from simulator.baselines.simfluence_descent import Descent
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import Row
from simulator.experiments.workbench import Workbench, score_part
from simulator.reporting.numbers import UNDEFINED, number_text
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
    checks = by_paper.fitted[0].checks
    of_paper = ([check.loss for check in checks], [check.error for check in checks])
    for method, predicted, how, curves in (
        ("simfluence_linear_adamw", descent.predict(held_out), "table 9", (descent.losses, descent.errors)),
        ("simfluence_linear_adamw", normal.predict(held_out), FROM_NORMAL, (normal.losses, normal.errors)),
        ("markov_1", Simulated(by_paper.model).predict(held_out), "table 8", of_paper),
        ("markov_1", Simulated(tuned.model).predict(held_out), "as used elsewhere", ([], [])),
    ):
        losses, errors = ([each if each < BLOWN_UP else None for each in curve] for curve in curves)
        about = {"config": config, "method": method, "training": how, "epochs": len(errors) or None}
        figures = vars(score_part(predicted, held_out, seen, 1))
        result.rows.append(about | figures | {"losses": losses, "errors": errors})
    return result


def show_convergence(rows: list[Row]) -> Result:
    """Scores on held-out runs, and the two curves of each training."""
    if not rows:
        return Result()
    cells = [
        [
            row["method"],
            row["training"],
            str(row["epochs"] or UNDEFINED),
            *[number_text(row[key]) for key in ("mse", "mae", "spearman", "skill")],
        ]
        for row in rows
    ]
    config = rows[0]["config"]
    columns = ["method", "how", "epochs", "MSE", "MAE", "Spearman", "skill"]
    page = Result([Table(f"{config}, loss: held-out runs", columns, cells)])
    panels = []
    for title, key in (("one-step training MSE", "losses"), ("validation all-steps MSE", "errors")):
        series = [
            # The second training of a method has a colour of its own.
            Series(
                "simfluence_linear" if row["training"] == FROM_NORMAL else row["method"],
                list(range(1, len(row[key]) + 1)),
                row[key],
                f"{row['method'].split('_')[0]}, {row['training']}",
            )
            for row in rows
            if row[key]
        ]
        panels.append(Panel("", "epoch", title, series, log_y=True))
    page.figures.append(Figure(f"{config}, loss: convergence under the paper's optimisers", panels))
    page.notes.append(
        "Learning rates, weight decay and epochs are those of the paper's tables 8 and 9. An update takes 8 pairs of "
        "run and step, with all test examples; the paper's takes 128 triples of run, step and test example "
        "(`--preset paper-finetune`). The authors' Simfluence starts from normal random numbers (\"from normal "
        'factors"), ours from factors that change nothing. "As used elsewhere" is the training of the other pages.'
    )
    page.notes.append("The paper (figure 9): GPTfluence converges faster and to a lower validation error.")
    return page
