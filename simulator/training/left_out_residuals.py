"""Residuals of runs that a fit did not see, which bands are made of.

The arrays of a kind of dynamics are fitted again without a run, with the same settings. So the limits of effects, the
first value and the range of the metric count as they do in `simulate`. What is chosen over all runs (the settings and
the shrinkage) is not chosen again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from simulator.model.curricula import Members
from simulator.model.dynamics import EncodedExamples, SimulationInputs
from simulator.model.mean_curve_dynamics import MeanCurveDynamics
from simulator.training.mean_curve_fit import FOLDS

# The dynamics fitted on some runs and test examples, by their places, with the shrinkage `[S]` of effects.
FitSome = Callable[[np.ndarray, np.ndarray, np.ndarray], MeanCurveDynamics]


@dataclass(frozen=True)
class LeftOutResiduals:
    """Truth minus prediction of runs that were left out of the fit. R runs, S measured steps, M test examples.

    Attributes:
        fit: with the settings that were chosen.
        visits, rates: of each update, `[R, T, W]` and `[T]`.
        step: `[S]` measured steps.
        values: `[R, M, S]`.
        examples: all pool and test examples.
    """

    fit: FitSome
    visits: Members
    rates: np.ndarray
    step: np.ndarray
    values: np.ndarray
    examples: EncodedExamples

    def _of(self, dynamics: MeanCurveDynamics, runs: np.ndarray, tests: np.ndarray, seen: bool) -> np.ndarray:
        """Residuals `[runs, tests, S]`; `seen`: the dynamics were fitted on these test examples."""
        truth = self.values[np.ix_(runs, tests)]
        examples = self.examples.of_tests(torch.from_numpy(tests))
        places = torch.arange(len(tests)) if seen else torch.full((len(tests),), -1)
        inputs = SimulationInputs(
            visits=self.visits.take(runs).spread(len(examples.pool)),
            rates=torch.from_numpy(self.rates).float()[None],
            examples=replace(examples, seen=places),
            initial=torch.from_numpy(truth[..., :1]).float(),
        )
        with torch.no_grad():
            predicted = dynamics.trajectories(inputs)[..., torch.from_numpy(self.step)].numpy()
        residuals: np.ndarray = truth - predicted
        return residuals.astype(np.float32)

    def of_seen(self, shares: np.ndarray) -> np.ndarray:
        """Residuals `[R, M, S]` of each run by a fit without it; `shares` `[R, S]`: shrinkage from the other runs."""
        every, tests = np.arange(len(self.values)), np.arange(self.values.shape[1])
        parts = []
        for run in every:
            dynamics = self.fit(np.flatnonzero(every != run), tests, shares[run])
            parts.append(self._of(dynamics, np.array([run]), tests, seen=True))
        return np.concatenate(parts)

    def of_unseen(self, share: np.ndarray) -> np.ndarray:
        """Residuals `[R, M, S]` of runs and test examples left out together, a fifth of each at a time; else NaN."""
        run_count, test_count, _ = self.values.shape
        residuals = np.full(self.values.shape, np.nan, dtype=np.float32)
        run_fold, test_fold = np.arange(run_count) % FOLDS, np.arange(test_count) % FOLDS
        for fold in range(FOLDS):
            runs, tests = np.flatnonzero(run_fold == fold), np.flatnonzero(test_fold == fold)
            if not len(tests) or len(tests) > test_count - 2:
                continue
            dynamics = self.fit(np.flatnonzero(run_fold != fold), np.flatnonzero(test_fold != fold), share)
            residuals[np.ix_(runs, tests)] = self._of(dynamics, runs, tests, seen=False)
        return residuals
