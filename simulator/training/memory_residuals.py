"""Residuals of `dynamics="memory"` on runs left out: what the simulator that is shipped would miss of new runs.

The arrays are fitted again without a run, with the same settings, and loaded into the dynamics that are shipped. So the
limits of effects, the first value and the range of the metric count here as they do in `simulate`. What is chosen over
all runs (the settings, and how much of predicted effects shows in the other runs) is not chosen again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from simulator.model.configuration_gptfluence import GPTfluenceConfig, Scale
from simulator.model.curricula import Members
from simulator.model.dynamics import SimulationInputs
from simulator.model.memory_dynamics import MemoryDynamics
from simulator.training.memory_arrays import fit_arrays
from simulator.training.unseen_fit import CURVE_COMPONENTS, FOLDS


@dataclass(frozen=True)
class FittedRuns:
    """The runs that are left out in turn, and the setting that they are fitted with.

    R runs, S measured steps, N pool and M test examples.

    Attributes:
        visits: of each update, `[R, T, W]`.
        rates: `[T]` learning rates.
        step: `[S]` measured steps.
        states: `[R, S, D]` of the setting.
        values: `[R, S, M]`.
        pool, test: `[N, E]` and `[M, E]` encoder vectors.
        psi_test: `[M, L]` components of the test examples.
        ridge: penalty of the setting.
        scale: of the metric.
        common: the arrays of `MemoryDynamics` that no run changes, by name.
    """

    visits: Members
    rates: np.ndarray
    step: np.ndarray
    states: np.ndarray
    values: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    psi_test: np.ndarray
    ridge: float
    scale: Scale
    common: Mapping[str, np.ndarray]

    def dynamics_of(self, runs: np.ndarray, tests: np.ndarray, share: np.ndarray) -> MemoryDynamics:
        """The dynamics that fitting to some runs and test examples gives.

        Args:
            runs, tests: their places.
            share: `[S]` of effects that shows.
        """
        part = [(self.states[runs], self.values[runs][..., tests])]
        arrays = fit_arrays(partial(iter, part), self.psi_test[tests], self.ridge, share, self.step, self.scale)
        return memory_dynamics(arrays | dict(self.common), self.scale, int(self.step[0]))

    def residuals(self, dynamics: MemoryDynamics, runs: np.ndarray, tests: np.ndarray, seen: bool) -> np.ndarray:
        """Truth minus prediction from the first value on: `[runs, S, tests]`.

        Args:
            dynamics: fitted without these runs.
            runs, tests: places.
            seen: whether the dynamics were fitted on these test examples, in this order.
        """
        truth = self.values[runs][..., tests]
        places = torch.arange(len(tests)) if seen else torch.full((len(tests),), -1)
        with torch.no_grad():
            predicted = dynamics.trajectories(
                SimulationInputs(
                    self.visits.take(runs).spread(len(self.pool)),
                    torch.from_numpy(self.rates).float()[None],
                    torch.from_numpy(self.pool).float(),
                    torch.from_numpy(self.test[tests]).float(),
                    places,
                    torch.from_numpy(truth[:, :1]).float(),
                )
            )
        found: np.ndarray = truth - predicted[:, torch.from_numpy(self.step)].numpy()
        return found.astype(np.float32)


def memory_dynamics(arrays: Mapping[str, np.ndarray], scale: Scale, first_step: int) -> MemoryDynamics:
    """The dynamics with these arrays.

    Args:
        arrays: by their names in `MemoryDynamics`.
        scale: of the metric that they predict.
        first_step: the first measured step.
    """
    names = ("decays", "fadings", "momenta", "forgettings")
    config = GPTfluenceConfig(
        dynamics="memory",
        **scale.fields(),
        first_step=first_step,
        encoder_width=len(arrays["encoder_mean"]),
        components=arrays["train_projection"].shape[1],
        test_components=arrays["test_projection"].shape[1],
        test_ids=list(range(len(arrays["weights"]))),
        test_keys=[""] * len(arrays["weights"]),
        steps=len(arrays["tau"]) - 1,
        curve_components=CURVE_COMPONENTS,
        **{name: arrays[name].tolist() for name in names},
    )
    dynamics = MemoryDynamics(config)
    dynamics.load_state_dict({name: torch.from_numpy(np.asarray(array)).float() for name, array in arrays.items()})
    return dynamics


def seen_residuals(fitted: FittedRuns, shares: np.ndarray) -> np.ndarray:
    """Residuals `[R, S, M]` of each run by a fit without it.

    Args:
        fitted: the runs.
        shares: `[R, S]` of effects that shows in the other runs.
    """
    count, tests = len(fitted.values), np.arange(fitted.values.shape[2])

    def each() -> Iterator[np.ndarray]:
        for run in range(count):
            dynamics = fitted.dynamics_of(np.flatnonzero(np.arange(count) != run), tests, shares[run])
            yield fitted.residuals(dynamics, np.array([run]), tests, seen=True)

    return np.concatenate(list(each()))


def unseen_residuals(fitted: FittedRuns, share: np.ndarray) -> np.ndarray:
    """Residuals `[R, S, M]` of runs and test examples left out together, a fifth of each at a time; else NaN.

    Args:
        fitted: the runs.
        share: `[S]` of effects that shows.
    """
    run_count, _, test_count = fitted.values.shape
    found = np.full(fitted.values.shape, np.nan, dtype=np.float32)
    run_fold, test_fold = np.arange(run_count) % FOLDS, np.arange(test_count) % FOLDS
    for fold in range(FOLDS):
        runs, tests = np.flatnonzero(run_fold == fold), np.flatnonzero(test_fold == fold)
        if not len(tests) or len(tests) > test_count - 2:
            continue
        dynamics = fitted.dynamics_of(np.flatnonzero(run_fold != fold), np.flatnonzero(test_fold != fold), share)
        part = fitted.residuals(dynamics, runs, tests, seen=False)
        found[np.ix_(runs, np.arange(len(fitted.step)), tests)] = part
    return found
