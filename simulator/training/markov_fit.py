"""Fitting `dynamics="markov"`: the settings that are tried, the best of them, and residuals on runs left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch

from gptdynamics.configs import config_parts
from gptdynamics.dataset import Dynamics
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.markov_dynamics import MarkovDynamics
from simulator.settings.train import TrainSettings
from simulator.training.fitter import Fits, Fitter, OnPhase, OnProgress, Part, check_order, dynamics_and_inputs
from simulator.training.markov_data import MarkovData, free_running_error, rollout, weighted
from simulator.training.markov_training import Check, MarkovChoice, MarkovResult, MarkovTraining, train_markov
from simulator.training.session import Session
from simulator.training.trained import Fitted

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
PENALTIES = (1e-4, 1e-1)
HIDDEN = (16, 64)
# With all test examples, 8 rows an update: a sixth of the updates of an epoch of triples, where there are 100 of them.
ROWS = 8
# The paper gives the number of weights (11.4 M), not the width.
PAPER_HIDDEN = 64
PAPER_PENALTY = 1e-5
# Table 8.
FINETUNE_RATE, FINETUNE_EPOCHS = 1e-4, 300
INSTRUCT_EPOCHS = 50
# Table 6, by Pythia size; other base models take that of the smallest.
INSTRUCT_RATES = {"14m": 1e-6, "70m": 1e-6, "160m": 1e-6, "410m": 1e-5, "1b": 1e-5, "2.8b": 1e-5}
# Fits without some of the runs and test examples, for bands.
FOLDS = 5


def choices() -> list[MarkovChoice]:
    """Every setting that the preset `tuned` tries."""
    return [MarkovChoice(*values) for values in product(LEARNING_RATES, PENALTIES, HIDDEN)]


@dataclass(frozen=True)
class Preset:
    """Settings that are tried, and how each is trained."""

    choices: list[MarkovChoice]
    training: MarkovTraining

    def fixed(self, **values: Any) -> Preset:
        """The same, with some of the values of each setting given; None leaves a value as it is."""
        given = {name: value for name, value in values.items() if value is not None}
        return replace(self, choices=list(dict.fromkeys(replace(choice, **given) for choice in self.choices)))


def preset_of(name: str, configs: Sequence[str], objective: str, seed: int) -> Preset:
    """How markov is trained, by one of the names of `TrainSettings`.

    `tuned`: sixteen settings, at most 1,000 updates of 256 rows with all test examples, stopped early.
    `paper-finetune` (table 8): AdamW of rate 1e-4, at most 300 epochs. `paper-instruct` (table 6): of rate 1e-6, or
    1e-5 from 410M parameters on, at most 50 epochs. Both: batches of 128 (run, step, test example) triples, 200
    updates of warm-up, linear decay, lambda 1e-5 as weight decay, stopped after 10 epochs without a better validation
    (the paper does not say how many), random first weights. `paper-finetune-rows`: table 8, but for batches of 8 rows
    with all test examples, which train several times as fast.
    """
    if name == "tuned":
        return Preset(choices(), replace(MarkovTraining(seed=seed), objective=objective))
    instruct, rows = name == "paper-instruct", name == "paper-finetune-rows"
    rate = min(INSTRUCT_RATES.get(config_parts(config)[1], 1e-6) for config in configs) if instruct else FINETUNE_RATE
    training = MarkovTraining(
        epochs=INSTRUCT_EPOCHS if instruct else FINETUNE_EPOCHS,
        batch_rows=ROWS if rows else 128,
        triples=not rows,
        warmup=200,
        patience=10,
        objective=objective,
        from_persistence=False,
        seed=seed,
    )
    return Preset([MarkovChoice(rate, PAPER_PENALTY, PAPER_HIDDEN)], training)


@dataclass(frozen=True)
class MarkovFit:
    """The best model, its setting and validation error; `errors` are the free-running MSE of each config and metric."""

    dynamics: MarkovDynamics
    choice: MarkovChoice
    error: float
    errors: list[float]
    tried: list[tuple[MarkovChoice, float]]
    checks: list[Check]


def fit_markov(
    config: GPTfluenceConfig,
    training: Sequence[MarkovData],
    validation: Sequence[MarkovData],
    options: MarkovTraining | None = None,
    on_choice: Callable[[], None] = lambda: None,
    choices_to_try: Sequence[MarkovChoice] = (),
    session: Session | None = None,
) -> MarkovFit:
    """Train the `choices_to_try`, by default all of `choices`, and return the one with the least validation error.

    On one CPU settings are trained in parallel, one thread each; each has its own random numbers. On a GPU, or with
    several processes, they are trained one after another. Other arguments are those of `train_markov`.
    """
    options, session, choices_to_try = (
        options or MarkovTraining(),
        session or Session(),
        list(choices_to_try) or choices(),
    )

    def one(numbered: tuple[int, MarkovChoice]) -> MarkovResult:
        number, choice = numbered
        result = train_markov(config, training, validation, choice, options, session, f"setting-{number:02d}")
        on_choice()
        return result

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor((os.cpu_count() or 1) if session.side_by_side else 1) as pool:
            results = list(pool.map(one, enumerate(choices_to_try)))
    finally:
        torch.set_num_threads(threads)
    tried = [(choice, result.error) for choice, result in zip(choices_to_try, results, strict=True)]
    choice, best = min(zip(choices_to_try, results, strict=True), key=lambda pair: pair[1].error)
    errors = [free_running_error(best.dynamics, data) for data in validation]
    return MarkovFit(best.dynamics, choice, best.error, errors, tried, best.checks)


def markov_residuals(
    config: GPTfluenceConfig,
    training: Sequence[MarkovData],
    validation: Sequence[MarkovData],
    choice: MarkovChoice,
    options: MarkovTraining,
    session: Session | None = None,
    on_fold: Callable[[], None] = lambda: None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth minus free-running prediction of runs that a fit with this setting did not see, of each config and metric.

    A fit takes too long to leave out one run at a time: a fifth of the runs and a fifth of the test examples are left
    out together, so that five fits give residuals of seen and of unseen test examples. Of many runs, 64 are taken. The
    runs are training, then validation runs; a fold's fit is stopped by the runs of the next fold.
    """
    every = [data.joined(others) for data, others in zip(training, validation, strict=True)]
    folds = min(FOLDS, *(data.runs for data in every)) if len(every) > 1 else min(FOLDS, every[0].runs)
    residuals = [
        (np.full(tuple(data.values.shape), np.nan, np.float32), np.full(tuple(data.values.shape), np.nan, np.float32))
        for data in every
    ]
    for fold in range(folds):
        fitted, stopping = [], []
        for data in every:
            run_fold = np.arange(data.runs) % folds
            stop = (run_fold == (fold + 1) % folds) & (run_fold != fold)
            trained = _places(_test_fold(data) != fold)
            fitted.append(data.part(_places((run_fold != fold) & ~stop), trained))
            stopping.append(data.part(_places(stop), trained))
        dynamics = train_markov(config, fitted, stopping, choice, options, session, f"fold-{fold}").dynamics
        for data, (seen, unseen) in zip(every, residuals, strict=True):
            out = _places(np.arange(data.runs) % folds == fold)
            with torch.no_grad():
                residual = (data.values[out] - rollout(dynamics, data, out)).numpy()
            new = _test_fold(data) == fold
            seen[np.ix_(out, ~new)], unseen[np.ix_(out, new)] = residual[:, ~new], residual[:, new]
        on_fold()
    return residuals


def _test_fold(data: MarkovData) -> np.ndarray:
    return np.arange(data.tests) % min(FOLDS, max(data.tests, 2))


def _places(condition: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(condition))


class MarkovFitter(Fitter):
    """Markov whose factors come from encoder vectors, several configs and metrics together."""

    dynamics = "markov"
    has_closed_form = False
    has_checkpoints = True
    checked_on = ("validation runs", "the validation runs")

    @classmethod
    def serves(cls, settings: TrainSettings) -> bool:
        """Whether there are vectors to project."""
        return super().serves(settings) and settings.encoder != "index"

    @classmethod
    def check_runs(cls, settings: TrainSettings, runs: Dynamics, name: str) -> None:
        """See `Fitter`."""
        check_order(settings.order, runs, name)

    def fit(
        self, settings: TrainSettings, parts: list[Part], session: Session, on_phase: OnPhase, on_progress: OnProgress
    ) -> Fits:
        """See `Fitter`."""
        config = GPTfluenceConfig.of_parts([part.config for part in parts])
        training, validation = weighted(
            *(
                [
                    MarkovData.of(part.runs.split(split), part.pool, part.test, config.heads.index(part.config.metric))
                    for part in parts
                ]
                for split in ("train", "validation")
            )
        )
        preset = preset_of(settings.preset, settings.configs, settings.objective, settings.seed).fixed(
            learning_rate=settings.learning_rate, penalty=settings.penalty, hidden=settings.hidden
        )
        what = dynamics_and_inputs(settings)
        on_phase(f"{what}: fitting", len(preset.choices))
        fit = fit_markov(config, training, validation, preset.training, on_progress, preset.choices, session)
        residuals = None
        if settings.bands:
            on_phase(f"{what}: runs left out", FOLDS)
            residuals = markov_residuals(
                config, training, validation, fit.choice, preset.training, session, on_progress
            )
        for part in parts:
            part.config.hidden = fit.choice.hidden
        fitted = [
            Fitted.of(part.config, fit.choice, error, fit.tried, fit.checks)
            for part, error in zip(parts, fit.errors, strict=True)
        ]
        shared = {f"dynamics.{name}": value for name, value in fit.dynamics.state_dict().items()}
        return Fits(fitted, residuals, shared, [{} for _ in parts])
