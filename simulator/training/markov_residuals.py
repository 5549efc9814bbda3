"""Residuals of markov on runs left out, for bands.

A fit takes too long to leave out one run at a time: a fifth of the runs and a fifth of the test examples are
left out together, so that five fits give residuals of seen and of unseen test examples.
"""

from __future__ import annotations

import numpy as np
import torch

from simulator.configuration_gptfluence import GPTfluenceConfig
from simulator.training.markov_fit import MarkovChoice, MarkovData, MarkovTraining, train_markov

FOLDS = 5


def _part(data: MarkovData, runs: np.ndarray, tests: np.ndarray) -> MarkovData:
    return MarkovData(data.visits[runs], data.values[runs][..., tests], data.pool, data.test[tests])


def markov_residuals(
    config: GPTfluenceConfig,
    training: MarkovData,
    validation: MarkovData,
    choice: MarkovChoice,
    how: MarkovTraining,
) -> tuple[np.ndarray, np.ndarray]:
    """Truth minus free-running prediction of runs that a fit with this setting did not see.

    Args:
        config: as for `fit_markov`.
        training, validation: as for `fit_markov`; a fold's fit is stopped by the runs of the next fold.
        choice: the setting.
        how: how long it is trained.

    Returns:
        Residuals `[R, S, M]` of training, then validation runs, of test examples that were trained on, and of those
        that were not; NaN where there is none.
    """
    data = MarkovData(
        torch.cat([training.visits, validation.visits]),
        torch.cat([training.values, validation.values]),
        training.pool,
        training.test,
    )
    runs, tests = len(data.values), data.values.size(-1)
    folds = min(FOLDS, runs)
    run_fold, test_fold = np.arange(runs) % folds, np.arange(tests) % min(FOLDS, max(tests, 2))
    seen, unseen = (np.full(tuple(data.values.shape), np.nan, dtype=np.float32) for _ in range(2))
    every = np.arange(tests)
    for fold in range(folds):
        out, kept = np.flatnonzero(run_fold == fold), np.flatnonzero(test_fold != fold)
        stopping = np.flatnonzero(run_fold == (fold + 1) % folds)
        fitted = np.flatnonzero((run_fold != fold) & (run_fold != (fold + 1) % folds))
        dynamics, _ = train_markov(config, _part(data, fitted, kept), _part(data, stopping, kept), choice, how)
        left = _part(data, out, every)
        with torch.no_grad():
            predicted = dynamics(left.visits, left.pool, left.test, left.values[:, : config.order])
        residual = (left.values - predicted).numpy()
        new = np.flatnonzero(test_fold == fold)
        seen[np.ix_(out, np.arange(seen.shape[1]), kept)] = residual[..., kept]
        unseen[np.ix_(out, np.arange(seen.shape[1]), new)] = residual[..., new]
    return seen, unseen
