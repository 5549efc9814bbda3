"""What `tangent` regresses on: filtered kernels of batches, and the sums that a fit to some of the runs needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.reading import run_array
from gptdynamics.errors import DataError
from simulator.model.configuration_gptfluence import Scale
from simulator.model.curricula import Members, updates_made
from simulator.model.latent import to_latent
from simulator.model.recurrence import FilterBank
from simulator.training.leave_one_run_out import RunSums, growth_of
from simulator.training.mean_curve_fit import FOLDS
from simulator.training.memory_states import Filters


@dataclass(frozen=True)
class FittedRuns:
    """The runs of a fit. R runs, T updates, N pool examples, M test examples, S measured steps.

    Attributes:
        visits: `[R, T, W]`.
        rates: `[T]` learning rates, the same in every run.
        step: `[S]` measured steps.
        values: `[R, S, M]`.
        scale: of the metric.
    """

    visits: Members
    rates: np.ndarray
    step: np.ndarray
    values: np.ndarray
    scale: Scale

    @classmethod
    def of(cls, runs: Dynamics, scale: Scale) -> FittedRuns:
        """Of runs whose learning rates are the same.

        Raises:
            DataError: their learning rates differ.
        """
        rates = runs.learning_rate
        if np.abs(rates - rates[0]).max() > 1e-6 * rates.max():
            raise DataError("runs with different learning rates cannot be fitted together")
        every = range(rates.shape[1] + 1)
        visits = Members.between(runs.curricula, [example.id for example in runs.pool], every)
        return cls(visits, rates[0], runs.step, runs.values.astype(np.float64), scale)

    @property
    def reference_rate(self) -> float:
        """The largest rate; runs that learn nothing have a rate of zero throughout."""
        return float(self.rates.max()) or 1.0

    @property
    def latent(self) -> np.ndarray:
        """`[R, S, M]`."""
        return to_latent(torch.from_numpy(self.values), self.scale).numpy()

    def at_steps(self, chosen: np.ndarray) -> FittedRuns:
        """The same at some of the measured steps, by their places."""
        return FittedRuns(self.visits, self.rates, self.step[chosen], self.values[:, chosen], self.scale)


def filtered_kernels(runs: FittedRuns, kernels: torch.Tensor, filters: Filters) -> np.ndarray:
    """The features of each run, step and test example, `[R, S, G * F, M]` float32, of kernels `[G, N, M]`."""
    relative = torch.from_numpy(runs.rates / runs.reference_rate).double()[None]
    end = float(relative.sum())
    constants = {name: torch.from_numpy(array).double() for name, array in filters.arrays(end).items()}
    bank = FilterBank(**constants, end=torch.tensor(end, dtype=torch.float64))
    made = updates_made(runs.visits.shares)
    updates = torch.eye(relative.size(1), dtype=torch.float64)[None]
    every = bank.states(updates, relative)[0, runs.step] if made is None else None
    count, steps, tests = runs.values.shape
    features = run_array((count, steps, len(kernels) * bank.size, tests))
    for run in range(count):
        shares = runs.visits.take([run]).spread(kernels.size(1))[0].double()
        batches = torch.einsum("tn,gnm->gtm", shares, kernels)
        own = bank.states(updates, relative, made[run : run + 1])[0, runs.step] if made is not None else every
        features[run] = torch.einsum("sft,gtm->sgfm", own, batches).flatten(1, 2).float().numpy()
    return features


@dataclass(frozen=True)
class Regression:
    """Ridge regression of latents on features, by run and fold of test examples. D features, R runs, V folds.

    What is fitted is how far coefficients are from `prior`.

    Attributes:
        features: `[R, S, D, M]` float32, divided by `size`.
        size: `[D]` root mean square of each feature.
        scatter: `[R, V, D, D]` sums of products of features, centred over runs.
        cross: `[R, V, D, 1]` sums of features times targets, less what the prior predicts.
        prior: `[D]` for features divided by `size`; 0: none.
    """

    features: np.ndarray
    size: np.ndarray
    scatter: np.ndarray
    cross: np.ndarray
    prior: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, latent: np.ndarray) -> Regression:
        """Without a prior; of features `[R, S, D, M]`, which are changed in place, and latents `[R, S, M]`."""
        count, _, width, tests = features.shape
        squares, mean = np.zeros(width), np.zeros(features.shape[1:])
        for run in features:
            squares += np.square(run).sum((0, 2), dtype=np.float64)
            mean += run / count
        size = np.sqrt(squares / (features.size / width))
        size = np.where(size > 0, size, 1.0)
        for run in range(count):
            features[run] /= size[:, None]
        mean /= size[:, None]
        target = latent - latent.mean(0)
        fold = np.arange(tests) % FOLDS
        scatter, cross = np.zeros((count, FOLDS, width, width)), np.zeros((count, FOLDS, width, 1))
        for run in range(count):
            centred = (features[run] - mean).transpose(2, 0, 1)
            for number in range(FOLDS):
                rows = centred[fold == number].reshape(-1, width)
                scatter[run, number] = rows.T @ rows
                cross[run, number, :, 0] = rows.T @ target[run].T[fold == number].reshape(-1)
        return cls(features, size, scatter, cross, np.zeros(width))

    def towards(self, weights: np.ndarray) -> Regression:
        """With a prior `[D]` for features that are not divided by `size`, as large as the runs say.

        Its size is that of the regression on what it predicts; where one run says nothing, it stays as it is.
        """
        prior = weights * self.size
        scatter, cross = self.scatter.sum((0, 1)), self.cross.sum((0, 1))[:, 0]
        power = float(prior @ scatter @ prior)
        prior = prior * (max(float(prior @ cross), 0.0) / power if power > 0 else 1.0)
        return replace(self, cross=self.cross - self.scatter @ prior[:, None], prior=prior)

    def weights(self, ridge: float, runs: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """Coefficients `[D]` of the fit to some runs and folds, by their places; one run alone leaves the prior."""
        if len(runs) == 1:
            return self.prior
        return self._sums(runs, folds).solution(ridge)[:, 0] + self.prior

    def weights_without_runs(self, ridges: Sequence[float]) -> np.ndarray:
        """Coefficients `[R, K, D]` of the fits without each run, for K ridges; one run alone leaves the prior."""
        count = len(self.cross)
        if count <= 2:
            return np.broadcast_to(self.prior, (count, len(ridges), len(self.prior)))
        sums = self._sums(np.arange(count), np.arange(FOLDS))
        return np.stack([each[..., 0] for each in sums.without_each_run(ridges)]) + self.prior

    def _sums(self, runs: np.ndarray, folds: np.ndarray) -> RunSums:
        chosen = np.ix_(runs, folds)
        return RunSums(self.scatter[chosen].sum(1), self.cross[chosen].sum(1), np.eye(1))

    def effects(self, weights: np.ndarray) -> Iterator[np.ndarray]:
        """Of each run its effects `[K, S, M]` by its own weights, of `[R, K, D]`; not centred."""
        for run, own in zip(self.features, weights, strict=True):
            yield np.einsum("sdm,kd->ksm", run, own, optimize=True)

    def left_out_effects(self, ridges: Sequence[float]) -> np.ndarray:
        """Effects `[K, R, S, M]` in each run by the fit without it, centred over the other runs, for K ridges."""
        weights = self.weights_without_runs(ridges)
        count, steps, _, tests = self.features.shape
        mean = self.features.mean(0, dtype=np.float64)
        effects = np.empty((len(ridges), count, steps, tests))
        for run, own in enumerate(self.effects(weights)):
            centre = np.einsum("sdm,kd->ksm", mean, weights[run], optimize=True)
            effects[:, run] = growth_of(count) * (own - centre)
        return effects
