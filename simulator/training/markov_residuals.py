"""Residuals of markov on runs left out, for bands.

A fit takes too long to leave out one run at a time: a fifth of the runs and a fifth of the test examples are
left out together, so that five fits give residuals of seen and of unseen test examples. Of many runs, 64 are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import Members
from simulator.training.markov_data import MarkovData
from simulator.training.markov_fit import MarkovChoice, MarkovTraining, train_markov
from simulator.training.markov_objective import rollout
from simulator.training.memory_states import TUNED_RUNS, spread
from simulator.training.session import Session

FOLDS = 5

Residuals = tuple[np.ndarray, np.ndarray]


def _joined(training: MarkovData, validation: MarkovData) -> MarkovData:
    """Training, then validation runs, of both as large a share if they are many."""
    most = max(1, TUNED_RUNS * validation.runs // (training.runs + validation.runs))
    training, validation = _few(training, TUNED_RUNS - most), _few(validation, most)
    members = Members(
        torch.cat([training.members.places, validation.members.places]),
        torch.cat([training.members.shares, validation.members.shares]),
    )
    return replace(training, members=members, values=torch.cat([training.values, validation.values]))


def _few(data: MarkovData, most: int) -> MarkovData:
    if data.runs <= most:
        return data
    return data.part(torch.from_numpy(spread(data.runs, most)), torch.arange(data.tests))


def _where(wanted: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(wanted))


def markov_residuals(
    config: GPTfluenceConfig,
    training: Sequence[MarkovData],
    validation: Sequence[MarkovData],
    choice: MarkovChoice,
    how: MarkovTraining,
    session: Session | None = None,
    on_fold: Callable[[], None] = lambda: None,
) -> list[Residuals]:
    """Truth minus free-running prediction of runs that a fit with this setting did not see.

    Args:
        config, session: as for `fit_markov`.
        training, validation: as for `fit_markov`; a fold's fit is stopped by the runs of the next fold.
        choice: the setting.
        how: how it is trained.
        on_fold: called after each fit.

    Returns:
        For each config and metric, residuals `[R, S, M]` of training, then validation runs, of test examples that were
        trained on, and of those that were not; NaN where there is none.
    """
    every = [_joined(*pair) for pair in zip(training, validation, strict=True)]
    folds = min(FOLDS, *(data.runs for data in every)) if len(every) > 1 else min(FOLDS, every[0].runs)
    found = [
        (np.full(tuple(data.values.shape), np.nan, np.float32), np.full(tuple(data.values.shape), np.nan, np.float32))
        for data in every
    ]
    for fold in range(folds):
        fitted, stopping = [], []
        for data in every:
            run_fold = np.arange(data.runs) % folds
            kept = _where(_test_fold(data) != fold)
            stop = (run_fold == (fold + 1) % folds) & (run_fold != fold)
            fitted.append(data.part(_where((run_fold != fold) & ~stop), kept))
            stopping.append(data.part(_where(stop), kept))
        dynamics = train_markov(config, fitted, stopping, choice, how, session, f"fold-{fold}").dynamics
        for data, (seen, unseen) in zip(every, found, strict=True):
            out = _where(np.arange(data.runs) % folds == fold)
            with torch.no_grad():
                residual = (data.values[out] - rollout(dynamics, data, out)).numpy()
            new = _test_fold(data) == fold
            seen[np.ix_(out, np.arange(seen.shape[1]), ~new)] = residual[..., ~new]
            unseen[np.ix_(out, np.arange(seen.shape[1]), new)] = residual[..., new]
        on_fold()
    return found


def _test_fold(data: MarkovData) -> np.ndarray:
    return np.arange(data.tests) % min(FOLDS, max(data.tests, 2))
