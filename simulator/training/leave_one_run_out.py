"""Ridge regression by leaving one run out, and how far its predictions are shrunk, for any kind of dynamics.

With features X_r and targets Y_r of run r, centred over runs at every step, leaving r out of R runs changes the sums of
X'X and X'Y by R / (R - 1) times those of r, and the error on r is R / (R - 1) times that of the remaining runs' fit. So
a fit without a run costs one small eigendecomposition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from simulator.model.configuration_gptfluence import Scale
from simulator.model.latent import from_latent, to_latent

# Measured steps over which the shrinkage is averaged.
SHRINKAGE_WINDOW = 9


def ridge_solution(
    scatter: tuple[np.ndarray, np.ndarray], cross: np.ndarray, ridge: float, prior: np.ndarray
) -> np.ndarray:
    """Coefficients `[D, C]` of C targets in the eigenbasis of their prior covariance.

    Args:
        scatter: eigenvalues and eigenvectors of X'X.
        cross: X'Y `[D, C]`.
        ridge: penalty, relative to the mean eigenvalue; it is divided by the target's prior eigenvalue.
        prior: `[C]` eigenvalues of the prior covariance.
    """
    values, vectors = scatter
    values = values.clip(min=0)
    unit = values.mean() or 1.0
    return vectors @ ((vectors.T @ cross) / (values[:, None] + ridge * unit / prior.clip(min=1e-9)))


@dataclass(frozen=True)
class RunSums:
    """The sums that a ridge regression needs, by run. R runs, D features, C targets.

    Attributes:
        scatter: X'X `[R, D, D]`.
        cross: X'Y `[R, D, C]`.
        covariance: `[C, C]` prior covariance of the coefficients of different targets.
    """

    scatter: np.ndarray
    cross: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray, latent: np.ndarray, covariance: np.ndarray) -> RunSums:
        """Of states `[R, S, D]` that all test examples share, and latents `[R, M, S]`, not yet centred."""
        x, y = states - states.mean(0), latent - latent.mean(0)
        scatter = np.einsum("rsd,rse->rde", x, x, optimize=True)
        return cls(scatter, np.einsum("rsd,rms->rdm", x, y, optimize=True), covariance)

    def solution(self, ridge: float) -> np.ndarray:
        """The coefficients of the fit to all runs: `[D, C]`."""
        prior, basis = np.linalg.eigh(self.covariance)
        scatter = np.linalg.eigh(self.scatter.sum(0))
        return ridge_solution(scatter, self.cross.sum(0) @ basis, ridge, prior) @ basis.T

    def without_each_run(self, ridges: Sequence[float]) -> Iterator[np.ndarray]:
        """For each run the coefficients of the fits without it: `[len(ridges), D, C]`."""
        prior, basis = np.linalg.eigh(self.covariance)
        cross = self.cross @ basis
        total_scatter, total_cross = self.scatter.sum(0), cross.sum(0)
        growth = growth_of(len(cross))
        for run in range(len(cross)):
            scatter = np.linalg.eigh(total_scatter - growth * self.scatter[run])
            cross_without = total_cross - growth * cross[run]
            yield np.stack([ridge_solution(scatter, cross_without, ridge, prior) @ basis.T for ridge in ridges])


def growth_of(runs: int) -> float:
    """What centred values of a run are multiplied by to be centred over the other runs; 1 where there are none."""
    return runs / (runs - 1) if runs > 1 else 1.0


def shrinkage(products: np.ndarray, squares: np.ndarray, runs: int) -> np.ndarray:
    """The share of predicted effects that is real at every step, between 0 and 1: a regression of truth on prediction.

    From sums `[..., S]` over so many runs of truth times prediction, and of squared predictions. All of the effects
    count as real in one further run: a few runs would else often say that nothing is, and then no row matters.
    """
    steps = products.shape[-1]
    # As a matrix of ones near the diagonal: at the ends the window is what is left of it.
    near = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps))) <= SHRINKAGE_WINDOW // 2
    products, squares = products @ near, squares @ near
    real = np.where(squares > 0, (products / np.where(squares > 0, squares, 1.0)).clip(0.0, 1.0), 1.0)
    return (runs * real + 1) / (runs + 1)


def shrunk_residuals(
    effects: np.ndarray, values: np.ndarray, scale: Scale
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth minus prediction of each run by a fit without it, its effects shrunk as the other runs say.

    Effects are not limited and first values are not given here, as they are in `simulate`.

    Args:
        effects: `[K, R, M, S]` by each of K settings, in the latent, centred over the runs of the fit.
        values: `[R, M, S]`.
        scale: of the metric.

    Returns:
        Residuals `[K, R, M, S]`; shrinkage from all runs `[K, S]`, and from the runs but each `[K, R, S]`.
    """
    latent = to_latent(torch.from_numpy(values), scale).numpy()
    deviation = growth_of(len(values)) * (latent - latent.mean(0))
    products, squares = (effects * deviation).sum(-2), np.square(effects).sum(-2)
    # A single run differs from no other.
    count = len(values) if len(values) > 1 else 0
    products_without = products.sum(1, keepdims=True) - products, squares.sum(1, keepdims=True) - squares
    shares = shrinkage(*products_without, max(count - 1, 0))
    residuals = np.empty_like(effects)
    for run in range(len(values)):
        predicted = torch.from_numpy(latent[run] - deviation[run] + shares[:, run, None] * effects[:, run])
        residuals[:, run] = values[run] - from_latent(predicted, scale).numpy()
    return residuals, shrinkage(products.sum(1), squares.sum(1), count), shares


def leave_one_run_out(
    states: np.ndarray, values: np.ndarray, covariance: np.ndarray, ridges: Sequence[float], scale: Scale
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`shrunk_residuals` of ridge regressions with K relative penalties on states that all test examples share.

    `states` is `[R, S, D]`, `values` `[R, M, S]`, whose latents are a mean curve and a linear response to the states;
    `covariance` `[M, M]` is the prior covariance of the responses.
    """
    latent = to_latent(torch.from_numpy(values), scale).numpy()
    fits = RunSums.of(states, latent, covariance).without_each_run(ridges)
    centred = growth_of(len(states)) * (states - states.mean(0))
    effects = np.empty((len(ridges), *values.shape))
    for run, responses in enumerate(fits):
        effects[:, run] = np.einsum("sd,kdm->kms", centred[run], responses, optimize=True)
    return shrunk_residuals(effects, values, scale)


def responses_without_runs(
    states: np.ndarray, values: np.ndarray, covariance: np.ndarray, ridge: float, scale: Scale
) -> np.ndarray:
    """The responses of the fits without each run, `[R, D, M]`; arguments as of `leave_one_run_out`."""
    latent = to_latent(torch.from_numpy(values), scale).numpy()
    return np.concatenate(list(RunSums.of(states, latent, covariance).without_each_run([ridge])))
