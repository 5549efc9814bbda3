"""What `tangent` regresses on: filtered kernels of batches, and the sums that a fit to some of the runs needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.reading import run_array
from simulator.model.configuration_gptfluence import Scale
from simulator.model.curricula import Members, update_mask
from simulator.model.latent import to_latent
from simulator.model.recurrence import FilterBank
from simulator.training.fitter import check_one_schedule
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
        values: `[R, M, S]`.
        scale: of the metric.
        pool_ids: of the N pool examples.
    """

    visits: Members
    rates: np.ndarray
    step: np.ndarray
    values: np.ndarray
    scale: Scale
    pool_ids: Sequence[int]

    @classmethod
    def of(cls, runs: Dynamics, scale: Scale) -> FittedRuns:
        """Of runs whose learning rates are the same.

        Raises:
            DataError: their learning rates differ.
        """
        check_one_schedule(runs, f"{runs.config}, {runs.metric}")
        rates = runs.learning_rate
        pool_ids = [example.id for example in runs.pool]
        visits = Members.between(runs.curricula, pool_ids, range(rates.shape[1] + 1))
        return cls(visits, rates[0], runs.step, runs.values.astype(np.float64), scale, pool_ids)

    @property
    def reference_rate(self) -> float:
        """The largest rate; runs that learn nothing have a rate of zero throughout."""
        return float(self.rates.max()) or 1.0

    @property
    def latent(self) -> np.ndarray:
        """`[R, M, S]`."""
        return to_latent(torch.from_numpy(self.values), self.scale).numpy()

    def at_steps(self, chosen: np.ndarray) -> FittedRuns:
        """The same at some of the measured steps, by their places."""
        return replace(self, step=self.step[chosen], values=self.values[..., chosen])

    def of_curricula(self, curricula: Sequence[Curriculum], step: np.ndarray) -> FittedRuns:
        """Other runs on the same pool at the same rates, whose values at the steps `[S]` are not known."""
        visits = Members.between(curricula, self.pool_ids, range(len(self.rates) + 1))
        values = np.full((len(curricula), self.values.shape[1], len(step)), np.nan)
        return replace(self, visits=visits, step=step, values=values)


def filter_responses(runs: FittedRuns, filters: Filters) -> list[torch.Tensor]:
    """What one unit at each update is in each filter at the measured steps: `[S, F, T]` of each run."""
    relative = torch.from_numpy(runs.rates / runs.reference_rate).double()[None]
    end = float(relative.sum())
    constants = {name: torch.from_numpy(array).double() for name, array in filters.arrays(end).items()}
    bank = FilterBank(**constants, end=torch.tensor(end, dtype=torch.float64))
    has_update = update_mask(runs.visits.shares)
    updates = torch.eye(relative.size(1), dtype=torch.float64)[None]
    count = len(runs.values)
    if has_update is None:
        return [bank.states(updates, relative)[0, runs.step]] * count
    return [bank.states(updates, relative, has_update[run : run + 1])[0, runs.step] for run in range(count)]


def filtered_kernels(runs: FittedRuns, kernels: torch.Tensor, responses: Sequence[torch.Tensor]) -> np.ndarray:
    """The features of each run, test example and step, `[R, G * F, M, S]` float32.

    Of kernels `[G, N, M]` and the `filter_responses` of the runs.
    """
    count, tests, steps = runs.values.shape
    features = run_array((count, len(kernels) * responses[0].size(1), tests, steps))
    for run, response in enumerate(responses):
        shares = runs.visits.take([run]).spread(kernels.size(1))[0].double()
        batches = torch.einsum("tn,gnm->gmt", shares, kernels)
        features[run] = torch.einsum("sft,gmt->gfms", response, batches).flatten(0, 1).float().numpy()
    return features


@dataclass(frozen=True)
class Regression:
    """Ridge regression of latents on features, by run and fold of test examples. D features, R runs, V folds.

    What is fitted is how far coefficients are from `prior`. Each measured step counts alike, however far runs are apart
    at it: else the ends of runs, where they are near each other, would hardly count.

    Attributes:
        features: `[R, D, M, S]` float32, divided by `size`.
        size: `[D]` root mean square of each feature.
        scatter: `[R, V, D, D]` sums of products of features, centred over runs.
        cross: `[R, V, D, 1]` sums of features times targets, less what the prior predicts.
        prior: `[D]` for features divided by `size`; 0: none.
        moved: root mean square of how far latents are from their first values.
    """

    features: np.ndarray
    size: np.ndarray
    scatter: np.ndarray
    cross: np.ndarray
    prior: np.ndarray
    moved: float

    @classmethod
    def of(cls, features: np.ndarray, latent: np.ndarray) -> Regression:
        """Without a prior; of features `[R, D, M, S]`, which are changed in place, and latents `[R, M, S]`."""
        count, width, tests, _ = features.shape
        squares, mean = np.zeros(width), np.zeros(features.shape[1:])
        for run in features:
            squares += np.square(run).sum((1, 2), dtype=np.float64)
            mean += run / count
        size = np.sqrt(squares / (features.size / width))
        size = np.where(size > 0, size, 1.0)
        for run in range(count):
            features[run] /= size[:, None, None]
        mean /= size[:, None, None]
        target = latent - latent.mean(0)
        spread = np.sqrt(np.square(target).mean((0, 1)))
        share = np.where(spread > 0, spread.mean() / np.where(spread > 0, spread, 1.0), 0.0)
        fold = np.arange(tests) % FOLDS
        scatter, cross = np.zeros((count, FOLDS, width, width)), np.zeros((count, FOLDS, width, 1))
        for run in range(count):
            centred = (features[run] - mean) * share
            for number in range(FOLDS):
                part = centred[:, fold == number].reshape(width, -1)
                scatter[run, number] = part @ part.T
                cross[run, number, :, 0] = part @ (target[run] * share)[fold == number].reshape(-1)
        moved = float(np.sqrt(np.square(latent - latent[..., :1]).mean()))
        return cls(features, size, scatter, cross, np.zeros(width), moved)

    def towards(self, weights: np.ndarray) -> Regression:
        """With a prior `[D]` for features that are not divided by `size`, as large as the runs say.

        Its size is that of the regression on what it predicts; that which is shipped counts as one run more, since
        two runs would make anything of it, and one says nothing. What is shipped was fitted on other tasks: it is made
        smaller where it would move the values of a run further than they have moved.
        """
        prior = weights * self.size
        predicted = np.sqrt(
            np.mean([np.square(self.effects(run, prior[None])).mean() for run in range(len(self.cross))])
        )
        shipped = min(1.0, self.moved / float(predicted)) if predicted > 0 else 1.0
        scatter, cross = self.scatter.sum((0, 1)), self.cross.sum((0, 1))[:, 0]
        power = float(prior @ scatter @ prior)
        others = len(self.cross) - 1
        share = max(float(prior @ cross), 0.0) / power if power > 0 else 1.0
        prior = prior * (others * share + shipped) / (others + 1)
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
        every = len(folds) == FOLDS
        scatter, cross = self._over_folds if every else (each[:, folds].sum(1) for each in (self.scatter, self.cross))
        return RunSums(scatter[runs], cross[runs], np.eye(1))

    @cached_property
    def _over_folds(self) -> tuple[np.ndarray, np.ndarray]:
        """`scatter` and `cross` of all test examples, which fits without a run are made of."""
        return self.scatter.sum(1), self.cross.sum(1)

    @cached_property
    def mean(self) -> np.ndarray:
        """Features averaged over runs: `[D, M, S]`."""
        return self.features.mean(0, dtype=np.float64)

    def effects(self, run: int, weights: np.ndarray, tests: np.ndarray | None = None) -> np.ndarray:
        """Effects `[K, M, S]` in one run by coefficients `[K, D]`, not centred; of some test examples or all."""
        features = self.features[run]
        # A choice of test examples is a copy, and these arrays are large.
        if tests is not None and len(tests) < features.shape[1]:
            features = features[:, tests]
        flat = weights.astype(np.float32) @ features.reshape(len(features), -1)
        return flat.reshape(-1, *features.shape[1:]).astype(np.float64)

    def left_out_effects(self, ridges: Sequence[float]) -> np.ndarray:
        """Effects `[K, R, M, S]` in each run by the fit without it, centred over the other runs, for K ridges.

        Of one run alone they are zero: it is the mean curve.
        """
        weights = self.weights_without_runs(ridges)
        count, width, *shape = self.features.shape
        if count == 1:
            # Rounding would leave effects of nothing, which no run bears out.
            return np.zeros((len(ridges), count, *shape))
        mean = self.mean.reshape(width, -1)
        effects = np.empty((len(ridges), count, *shape))
        for run, own in enumerate(weights):
            centre = (own @ mean).reshape(-1, *shape)
            effects[:, run] = growth_of(count) * (self.effects(run, own) - centre)
        return effects
