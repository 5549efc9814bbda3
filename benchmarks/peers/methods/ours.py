"""Simulators, fitted on the training and validation runs of the dataset: they never see the run that is asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.peers.method import Fitted, Method
from benchmarks.peers.work import Curricula, Work

FORWARD = 1 / 3


def fit_runs(work: Work, name: str) -> Fitted:
    """Fit one of our simulators or Simfluence; its effects are differences of simulated runs."""
    from benchmarks.peers.make_work import read_runs
    from simulator.baselines.registry import fit_baseline
    from simulator.evaluation.simulated import Simulated
    from simulator.training import TrainSettings, train_simulator

    runs = read_runs(work.dataset, work.config, work.data)
    seen, fact = runs.split("train", "validation"), runs.take([runs.runs.index(work.run)])
    if name == "simfluence":
        method = fit_baseline("simfluence_linear", seen)
    else:
        encoder = "sentence" if name == "markov" else "gradient"
        settings = TrainSettings(work.dataset, work.config, "loss", name, encoder, bands=False)
        method = Simulated(train_simulator(settings, runs=seen).model)
    measured = np.isin(fact.step, work.step)

    def predict(curricula: Curricula) -> np.ndarray:
        times = len(curricula)
        changed = replace(
            fact,
            runs=fact.runs * times,
            curricula=curricula,
            learning_rate=np.repeat(fact.learning_rate, times, 0),
            # Only the first value is looked at.
            values=np.repeat(fact.values[..., :1], len(fact.step), -1).repeat(times, 0),
        )
        return method.predict(changed)[..., measured]

    def ask(tests: object) -> np.ndarray:
        without = [[[key for key in batch if key != row] for batch in work.curriculum] for row in work.rows]
        values = predict([work.curriculum, *without])
        return (values[:1] - values[1:])[:, tests]

    return Fitted(ask, predict)


def passes_of(work: Work, name: str, new_test: float) -> tuple[float, float]:
    """Training and measuring the runs that are fitted, and the gradients that are taken."""
    from gptdynamics.dataset import read_dynamics
    from gptdynamics.dataset.gradient_reading import read_products

    runs = read_dynamics(work.dataset, work.config).split("train", "validation")
    visits = sum(len(batch) for curriculum in runs.curricula for batch in curriculum)
    total = visits + FORWARD * len(runs.runs) * len(runs.step) * len(runs.test)
    examples = len(runs.pool) + len(runs.test)
    if name == "memory":
        total += examples
    if name == "tangent":
        from simulator.training.reference_kernels import reference_kernels
        from simulator.training.validation_retrainings import validation_retrainings

        kernels = reference_kernels(runs)
        total += sum(len(each.step) for each in kernels) * examples
        for again in validation_retrainings(runs):
            total += sum(len(batch) for curriculum in again.curricula for batch in curriculum)
            total += FORWARD * len(again.curricula) * len(again.step) * len(runs.test)
        new_test = sum(len(read_products(runs.source, runs.config, each.run).step) for each in kernels)
    return total, new_test


def _method(name: str, title: str, new_test: float, answers: tuple[str, ...], note: str) -> Method:
    fit: Callable[[Work], Fitted] = partial(fit_runs, name=name)
    return Method(name, title, fit, partial(passes_of, name=name, new_test=new_test), answers, note=note)


RUNS = ("order", "trajectory", "unseen_run")
METHODS = (
    _method("tangent", "tangent (ours)", 0, (*RUNS, "rate", "new_row", "new_test"), "gradients of other runs"),
    _method("memory", "memory (ours)", 1, (*RUNS, "rate", "new_row", "new_test"), "gradients of the base model"),
    _method("markov", "markov (the paper)", FORWARD, (*RUNS, "new_row", "new_test"), "sentence vectors, order 1"),
    _method("simfluence", "Simfluence", 0, RUNS, "linear, closed form"),
)
