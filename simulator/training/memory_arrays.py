"""The arrays of `dynamics="memory"` for one setting, and residuals of fits without some of the runs.

For residuals the arrays are fitted again without a run, with the same settings. So the limits of effects, the first
value and the range of the metric count as they do in `simulate`. What is chosen over all runs (the settings and the
shrinkage) is not chosen again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from simulator.model.configuration_gptfluence import GPTfluenceConfig, Scale
from simulator.model.curricula import Members
from simulator.model.dynamics import SimulationInputs
from simulator.model.latent import to_latent
from simulator.model.memory_dynamics import MemoryDynamics
from simulator.training.leave_one_run_out import ridge_solution
from simulator.training.mean_curve_fit import CURVE_COMPONENTS, FOLDS, mean_curve_arrays, unseen_curves
from simulator.training.memory_states import TUNED_RUNS, likeness, spread, unseen_responses

# States `[r, S, D]` and values `[r, S, M]` of some runs.
Chunk = tuple[np.ndarray, np.ndarray]


def fit_arrays(
    chunks: Callable[[], Iterable[Chunk]],
    psi_test: np.ndarray,
    ridge: float,
    share: np.ndarray,
    step: np.ndarray,
    scale: Scale,
) -> dict[str, np.ndarray]:
    """Mean curve and responses of seen test examples, and what predicts both for unseen ones.

    `chunks` gives all runs, some at a time, and is called three times. `psi_test` is `[M, L]`, `share` `[S]` the
    shrinkage of effects at the measured steps `step` `[S]`.
    """

    def latents() -> Iterator[Chunk]:
        for x, values in chunks():
            yield x, to_latent(torch.from_numpy(values), scale).numpy()

    sum_x: np.ndarray = np.zeros(1)
    sum_latent: np.ndarray = np.zeros(1)
    firsts = []
    for x, latent in latents():
        sum_x, sum_latent = sum_x + x.sum(0), sum_latent + latent.sum(0)
        # A view would keep all runs in memory.
        firsts.append(latent[:, 0].copy())
    initial = np.concatenate(firsts)
    mean_x, mean_latent = sum_x / len(initial), sum_latent / len(initial)
    scatter, cross = np.zeros(2)
    for x, latent in latents():
        x, latent = x - mean_x, latent - mean_latent
        scatter = scatter + np.einsum("rsd,rse->de", x, x, optimize=True)
        cross = cross + np.einsum("rsd,rsm->dm", x, latent, optimize=True)
    prior, basis = np.linalg.eigh(likeness(psi_test))
    weights = ridge_solution(np.linalg.eigh(scatter), cross @ basis, ridge, prior) @ basis.T
    effects = ((x @ weights, latent) for x, latent in latents())
    arrays = mean_curve_arrays(effects, mean_x @ weights, mean_latent, share, step)
    return arrays | {
        "weights": weights.T,
        "response": unseen_responses(weights.T, psi_test),
        **unseen_curves(arrays["baseline"], initial[spread(len(initial), TUNED_RUNS)], psi_test),
    }


def memory_dynamics(arrays: Mapping[str, np.ndarray], scale: Scale, first_step: int) -> MemoryDynamics:
    """The dynamics with these arrays, by name, of a metric first measured at `first_step`."""
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
        **{name: arrays[name].tolist() for name in ("decays", "fadings", "momenta", "forgettings")},
    )
    dynamics = MemoryDynamics(config)
    dynamics.load_state_dict({name: torch.from_numpy(np.asarray(array)).float() for name, array in arrays.items()})
    return dynamics


@dataclass(frozen=True)
class FittedRuns:
    """The runs of a fit, some of which are left out in turn, and its setting. R runs, S measured steps.

    Attributes:
        visits, rates: of each update, `[R, T, W]` and `[T]`.
        step: `[S]` measured steps.
        states, values: `[R, S, D]` and `[R, S, M]`.
        pool, test, psi_test: `[N, E]` and `[M, E]` encoder vectors, and `[M, L]` components.
        ridge, scale: penalty of the setting, scale of the metric.
        common: the arrays of `MemoryDynamics` that do not depend on the runs, by name.
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

    def _fit(self, runs: np.ndarray, tests: np.ndarray, share: np.ndarray) -> MemoryDynamics:
        part = [(self.states[runs], self.values[runs][..., tests])]
        arrays = fit_arrays(partial(iter, part), self.psi_test[tests], self.ridge, share, self.step, self.scale)
        return memory_dynamics(arrays | dict(self.common), self.scale, int(self.step[0]))

    def _residuals(self, dynamics: MemoryDynamics, runs: np.ndarray, tests: np.ndarray, seen: bool) -> np.ndarray:
        """Truth minus prediction `[runs, S, tests]`; `seen`: the dynamics were fitted on these test examples."""
        truth = self.values[runs][..., tests]
        inputs = SimulationInputs(
            visits=self.visits.take(runs).spread(len(self.pool)),
            rates=torch.from_numpy(self.rates).float()[None],
            pool=torch.from_numpy(self.pool).float(),
            test=torch.from_numpy(self.test[tests]).float(),
            seen=torch.arange(len(tests)) if seen else torch.full((len(tests),), -1),
            initial=torch.from_numpy(truth[:, :1]).float(),
        )
        with torch.no_grad():
            predicted = dynamics.trajectories(inputs)[:, torch.from_numpy(self.step)].numpy()
        residuals: np.ndarray = truth - predicted
        return residuals.astype(np.float32)

    def seen_residuals(self, shares: np.ndarray) -> np.ndarray:
        """Residuals `[R, S, M]` of each run by a fit without it; `shares` `[R, S]`: shrinkage from the other runs."""
        every, tests = np.arange(len(self.values)), np.arange(self.values.shape[2])
        parts = []
        for run in every:
            dynamics = self._fit(np.flatnonzero(every != run), tests, shares[run])
            parts.append(self._residuals(dynamics, np.array([run]), tests, seen=True))
        return np.concatenate(parts)

    def unseen_residuals(self, share: np.ndarray) -> np.ndarray:
        """Residuals `[R, S, M]` of runs and test examples left out together, a fifth of each at a time; else NaN."""
        run_count, _, test_count = self.values.shape
        residuals = np.full(self.values.shape, np.nan, dtype=np.float32)
        run_fold, test_fold = np.arange(run_count) % FOLDS, np.arange(test_count) % FOLDS
        for fold in range(FOLDS):
            runs, tests = np.flatnonzero(run_fold == fold), np.flatnonzero(test_fold == fold)
            if not len(tests) or len(tests) > test_count - 2:
                continue
            dynamics = self._fit(np.flatnonzero(run_fold != fold), np.flatnonzero(test_fold != fold), share)
            part = self._residuals(dynamics, runs, tests, seen=False)
            residuals[np.ix_(runs, np.arange(len(self.step)), tests)] = part
        return residuals
