"""Figure 9: how the paper's two simulators converge under the optimisers of its tables 8 and 9."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from simulator.baselines import SimfluenceDescent
from simulator.baselines.simfluence_descent import Descent
from simulator.evaluation.simulated import Simulated
from simulator.experiments.result import Figure, Panel, Result, Series, Table, shown
from simulator.experiments.workbench import Workbench, score_part
from simulator.markov_dynamics import MarkovDynamics
from simulator.training.markov_fit import MarkovData, free_running_error, one_step_loss
from simulator.training.paper_training import PaperTraining
from simulator.training.train import Trained, markov_data

FROM_NORMAL = "table 9 from normal factors"
# Validation errors beyond this are not drawn: trajectories that blow up would flatten all others.
BLOWN_UP = 1e6


@dataclass(frozen=True)
class Curve:
    """One training: its one-step training loss and free-running validation MSE after each epoch."""

    losses: list[float]
    errors: list[float]


def train_by_table_8(
    start: Trained, training: MarkovData, validation: MarkovData, how: PaperTraining
) -> tuple[Curve, Trained]:
    """Train markov as the paper says, from random weights.

    Args:
        start: a markov simulator of the same runs, for its shape and vectors.
        training, validation: runs.
        how: hyper-parameters.

    Returns:
        The curve, and the simulator with the weights of the best epoch.
    """
    random = torch.Generator().manual_seed(how.seed)
    model = copy.deepcopy(start.model)
    dynamics: MarkovDynamics = model.dynamics
    dynamics.reset(scale=0.1, generator=random)
    rows = training.visits.size(0) * training.visits.size(1)
    optimizer, scheduler = how.optimizer(dynamics.parameters(), rows)
    curve = Curve([], [])
    best = copy.deepcopy(dynamics.state_dict())
    for epoch in range(how.epochs):
        summed = 0.0
        for chosen in torch.randperm(rows, generator=random).split(how.batch_rows):
            loss = one_step_loss(dynamics, training, chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            summed += float(loss.detach()) * len(chosen)
        error = free_running_error(dynamics, validation)
        curve.losses.append(summed / rows)
        curve.errors.append(error)
        if error <= min(curve.errors):
            best = copy.deepcopy(dynamics.state_dict())
        if epoch - curve.errors.index(min(curve.errors)) >= how.patience:
            break
    dynamics.load_state_dict(best)
    return curve, Trained(model, {}, min(curve.errors), [], 0.0, 0.0)


def convergence(bench: Workbench) -> Result:
    """Train both on the config with the most runs, and compare with the training that is used elsewhere."""
    result = Result()
    configs, reasons = bench.configs("finetune")
    result.skipped.extend(reasons)
    if not configs:
        return result
    config = max(configs, key=lambda name: len(bench.folder.finished(name)))
    runs = bench.runs(config)
    tuned = bench.trained(bench.settings(config, "loss", "markov", "sentence"))
    pool, test = (each.numpy() for each in (tuned.model.pool_vectors, tuned.model.test_vectors))
    training, validation = (markov_data(runs.split(split), pool, test) for split in ("train", "validation"))
    bench.on_phase(f"{config} loss: table 9", 1)
    descent, normal = (
        SimfluenceDescent(runs.split("train"), runs.split("validation"), Descent(start=start))
        for start in ("persistence", "normal")
    )
    bench.on_progress()
    bench.on_phase(f"{config} loss: table 8", 1)
    curve, by_paper = train_by_table_8(tuned, training, validation, PaperTraining())
    bench.on_progress()
    held_out, seen = runs.split("test"), runs.split("train", "validation")
    tests = list(range(len(runs.test)))
    cells = []
    for method, predicted, how, epochs in (
        ("simfluence_linear_adamw", descent.predict(held_out), "table 9", len(descent.errors)),
        ("simfluence_linear_adamw", normal.predict(held_out), FROM_NORMAL, len(normal.errors)),
        ("markov_1", Simulated(by_paper.model).predict(held_out), "table 8", len(curve.errors)),
        ("markov_1", Simulated(tuned.model).predict(held_out), "as used elsewhere", None),
    ):
        figures = score_part(predicted, held_out, seen, 1, tests)
        about = {"config": config, "method": method, "training": how, "epochs": epochs}
        result.rows.append(about | vars(figures))
        keys = (figures.mse, figures.mae, figures.spearman, figures.skill)
        cells.append([method, how, "-" if epochs is None else str(epochs), *[shown(each) for each in keys]])
    columns = ["method", "how", "epochs", "all-steps MSE", "all-steps MAE", "final-step Spearman", "skill"]
    result.tables.append(Table(f"{config}, loss: held-out runs", columns, cells))
    panels = []
    for title, simfluence, from_normal, markov in (
        ("one-step training MSE", descent.losses, normal.losses, curve.losses),
        ("validation all-steps MSE", descent.errors, normal.errors, curve.errors),
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
        "Trained with the rates, decay and epochs of tables 8 and 9, all test examples at once. The authors' "
        "Simfluence begins at standard normal factors; markov begins at small random weights. The paper (figure 9) "
        "finds that GPTfluence converges faster and to a lower validation error than Simfluence."
    )
    return result
