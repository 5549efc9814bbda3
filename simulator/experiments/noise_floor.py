"""How far runs of one curriculum differ: no method can be better than that."""

from __future__ import annotations

import numpy as np

from gptdynamics.curriculum import run_seed
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import GPTDynamicsError
from gptdynamics.runs import Bench
from simulator.baselines.replay import open_bench, replay
from simulator.evaluation.scoring import score_prediction
from simulator.evaluation.selection import evenly_spaced
from simulator.experiments.comparison import Row
from simulator.experiments.workbench import Workbench
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Result, Table

# Text is sampled again at so many of the measured steps, the last among them: sampling is nearly all of the time.
SAMPLED_STEPS = 5


# Of a classifier head, which a language model does not have.
NOT_USED = "classifier_dropout"


def is_stochastic(run_bench: Bench) -> bool:
    """Whether two trainings on one curriculum differ: adapters begin at random and drop out, or the model drops out."""
    rates = [value for name, value in vars(run_bench.base.model.config).items() if "drop" in name and name != NOT_USED]
    return bool(run_bench.settings.lora_rank or any(isinstance(rate, float) and rate > 0 for rate in rates))


def measured_again(
    run_bench: Bench, runs: dict[str, Dynamics], wanted: list[str], repeat: int
) -> dict[str, tuple[list[int], np.ndarray]]:
    """Train the first held-out run again with the random numbers of `repeat` and measure it.

    Args:
        runs: held-out runs by metric, the loss among them.

    Returns:
        For each metric of `wanted` the steps and the values at them, `[M, steps]`.
    """
    # Every test example has a loss; the other metrics are of some of them.
    every = runs["loss"]
    test_index = {example.id: index for index, example in enumerate(every.test)}
    seed = [*run_seed(run_bench.settings, every.runs[0]), repeat]
    steps = {metric: _chosen(runs[metric]) for metric in wanted}
    sampled = {metric for metric in wanted if runs[metric].definition.needs_text}
    values_by_metric: dict[str, list[np.ndarray]] = {metric: [] for metric in wanted}
    for done, model in enumerate(replay(run_bench, every, 0, repeat)):
        now = {metric for metric in wanted if done in steps[metric]}
        values: dict[str, np.ndarray] = {}
        if now & sampled:
            values |= run_bench.test_set.generate(model, [*seed, done])
        if now - sampled:
            values |= run_bench.test_set.measure(model)
        for metric in now:
            values_by_metric[metric].append(values[metric][[test_index[example.id] for example in runs[metric].test]])
    return {metric: (steps[metric], np.stack(each, axis=-1)) for metric, each in values_by_metric.items()}


def _chosen(runs: Dynamics) -> list[int]:
    measured: list[int] = runs.step.tolist()
    if not runs.definition.needs_text:
        return measured
    return [measured[index] for index in evenly_spaced(len(measured), SAMPLED_STEPS)]


def _rows(bench: Workbench, config: str, metrics: list[str], run_bench: Bench) -> list[Row]:
    runs = {metric: bench.runs(config, metric).split("test").take([0]) for metric in dict.fromkeys(["loss", *metrics])}
    again = measured_again(run_bench, runs, metrics, 1)
    rows = []
    for metric, (steps, values) in again.items():
        mine = runs[metric]
        indices = [mine.step.tolist().index(step) for step in steps]
        recorded = mine.values[..., indices]
        figures = score_prediction(values[None], recorded, recorded, 1)
        mean = bench.runs(config, metric).split("train", "validation").values.mean(0)
        of_mean = score_prediction(mean[None][..., indices], recorded, recorded, 1)
        rows.append(
            {
                "config": config,
                "metric": metric,
                "run": mine.runs[0],
                "between": figures.mse,
                # The mean of many repetitions is off by one repetition's variance: half of what two differ by.
                "floor": None if figures.mse is None else figures.mse / 2,
                "spearman": figures.spearman,
                "mean_curve": of_mean.mse,
                "steps": len(steps) - 1,
            }
        )
    return rows


def noise_floor(bench: Workbench) -> Result:
    """Train the first held-out run of every config again with other seeds, where that changes anything."""
    result, configs = bench.begin()
    for config in configs:
        measured = bench.metrics(config)
        try:
            run_bench = open_bench(bench.runs(config).split("test"))
        except GPTDynamicsError as error:
            result.skipped.append(f"{config}: {error}")
            continue
        stochastic = is_stochastic(run_bench)
        sampled = [metric for metric in measured if bench.runs(config, metric).definition.needs_text]
        metrics = measured if stochastic else sampled
        if not stochastic:
            fixed = ", ".join(metric for metric in measured if metric not in sampled)
            result.skipped.append(f"{config}, {fixed}: no noise, training without dropout is fixed by its curriculum")
        if metrics:
            bench.on_phase(f"{config}: training a run again", 1)
            result.rows.extend(_rows(bench, config, metrics, run_bench))
            bench.on_progress()
    return result


def show_noise_floor(rows: list[Row]) -> Result:
    """A line for each config and metric."""
    keys = ("between", "floor", "mean_curve", "spearman")
    cells = [[row["config"], row["metric"], *[number_text(row[key]) for key in keys]] for row in rows]
    columns = [
        "config",
        "metric",
        "MSE of two runs",
        "least MSE of any method",
        "mean curve's MSE",
        "Spearman of two runs",
    ]
    if not cells:
        return Result()
    note = (
        "BLEU and ROUGE-L are of sampled text, so two runs with the same batches differ. A method that knew the "
        "expected value at every step would still have half of the squared difference of two runs as its error. A "
        "loss has such noise only where training itself is random: adapters, dropout."
    )
    return Result([Table("The same curriculum twice, with other random numbers", columns, cells)], notes=[note])
