"""What `tangent` fits for each test example: its own response to what the shared coefficients leave over.

The shared coefficients say what a product of gradients does to test examples on the whole. Some take more of it than
that, others less. So each has a response of its own to the first few patterns of the pool: a ridge regression in closed
form, as in `memory`, on what the coefficients leave over of the same runs. It is kept where it predicts runs left out
no worse (`tangent_choice.choose_own`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from simulator.model.tangent_dynamics import OWN_FILTERS
from simulator.training.leave_one_run_out import RunSums, growth_of, ridge_solution
from simulator.training.tangent_features import FittedRuns, Regression

# Penalties that are tried; with the last there is no response. Weaker ones make effects less sure, and hardly better.
NONE = float("inf")
OWN_RIDGES = (10.0, 100.0, NONE)
# Fewer runs say nothing of single test examples.
FEWEST_RUNS = 5
# Kernels of fewer pool or test examples have no patterns (`kernel_patterns`).
FEWEST_EXAMPLES = 4


def principal_filters(responses: torch.Tensor) -> np.ndarray:
    """The combinations of filters that tell most of what they hold, `[J, F]`.

    Args:
        responses: `[S, F, T]` what a unit at each update is in each filter at the measured steps.
    """
    held = responses.transpose(0, 1).flatten(1).numpy()
    size = np.sqrt(np.square(held).mean(1))
    size = np.where(size > 0, size, 1.0)
    axes, _, _ = np.linalg.svd(held / size[:, None], full_matrices=False)
    return np.asarray(axes[:, :OWN_FILTERS].T / size)


@dataclass(frozen=True)
class OwnStates:
    """What runs hold of the patterns that test examples respond to. R runs, S measured steps, E = K * J states.

    Attributes:
        states: `[R, S, E]`.
        latent: `[R, M, S]` of the metric.
        covariance: `[M, M]` prior covariance of the responses of test examples (`memory_states.likeness`).
    """

    states: np.ndarray
    latent: np.ndarray
    covariance: np.ndarray

    def responses(self, effects: np.ndarray, which: np.ndarray, tests: np.ndarray, ridge: float) -> np.ndarray:
        """Responses `[E, m]` of some test examples to what `effects` `[r, m, S]` leave over of some runs."""
        left_over = self.latent[which][:, tests] - effects
        return RunSums.of(self.states[which], left_over, self.covariance[np.ix_(tests, tests)]).solution(ridge)

    def effects(self, responses: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Effects `[r, m, S]` in some runs of responses `[E, m]`, not centred."""
        return (self.states[which] @ responses).swapaxes(1, 2)

    def without_each_run(self, regression: Regression, ridge: float, ridges: Sequence[float]) -> np.ndarray:
        """The responses `[R, K, E, M]` of the fits without each run, for K ridges.

        What is left over is that of the shared coefficients fitted without the run, with the penalty `ridge`. It is
        linear in them, so that the sums over runs are made once.
        """
        growth, weights = growth_of(len(self.states)), regression.weights_without_runs((ridge,))[:, 0]
        prior, basis = np.linalg.eigh(self.covariance)
        total = self._sums(regression, 0)
        for run in range(1, len(weights)):
            # One run at a time: the sums with the features are large.
            for every, each in zip(total, self._sums(regression, run), strict=True):
                every += each
        responses = np.empty((len(weights), len(ridges), *total[1].shape))
        for run, own in enumerate(weights):
            scatter, of_latent, of_features = (
                every - growth * each for every, each in zip(total, self._sums(regression, run), strict=True)
            )
            cross = (of_latent - np.tensordot(own, of_features, 1)) @ basis
            eigen = np.linalg.eigh(scatter)
            responses[run] = [ridge_solution(eigen, cross, each, prior) @ basis.T for each in ridges]
        return responses

    def left_out_effects(self, responses: np.ndarray) -> np.ndarray:
        """Effects `[K, R, M, S]` in each run by the responses without it, centred over the other runs."""
        centred = growth_of(len(self.states)) * self._centred
        return np.einsum("rse,rkem->krms", centred, responses, optimize=True)

    @cached_property
    def _centred(self) -> np.ndarray:
        return self.states - self.states.mean(0)

    @cached_property
    def _mean_latent(self) -> np.ndarray:
        return self.latent.mean(0)

    def _sums(self, regression: Regression, run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of one run: `[E, E]` products of states, `[E, M]` with latents, `[D, E, M]` with the shared features."""
        states = self._centred[run]
        latent = self.latent[run] - self._mean_latent
        features = regression.features[run] - regression.mean
        return (
            states.T @ states,
            states.T @ latent.T,
            np.einsum("se,dms->dem", states, features, optimize=True),
        )


def pattern_states(
    runs: FittedRuns, shares: torch.Tensor, filters: np.ndarray, responses: Sequence[torch.Tensor]
) -> np.ndarray:
    """What combinations of filters hold of each pattern at the measured steps: `[R, S, K * J]`.

    Args:
        runs: R runs.
        shares: `[N, K]` of pool examples in each pattern.
        filters: `[J, F]` combinations.
        responses: `filter_responses` of the runs.
    """
    combined = torch.from_numpy(filters)
    states = []
    for run, response in enumerate(responses):
        batches = runs.visits.take([run]).spread(len(shares))[0].double() @ shares.double()
        states.append(torch.einsum("jf,sft,tk->skj", combined, response, batches).flatten(1).numpy())
    return np.stack(states)
