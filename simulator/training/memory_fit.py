"""Fitting `dynamics="memory"`: ridge regression in closed form, settings chosen by leaving one run out.

With centred states X_r and centred latents Y_r of run r (the mean over runs taken off at every step),
leaving r out of R runs changes the scatter matrices by a multiple of X_r'X_r, and the error on r is that
of the remaining runs' fit times R / (R - 1). So every fold costs one small eigendecomposition.

What the fits without a run predict is compared with that run at every step: where it is too much (at the end
of a run, mostly, whose rates are too small to move anything), effects are taken at the share that shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from gptdynamics.errors import DataError
from simulator.model.configuration_gptfluence import Scale, scale_of
from simulator.model.curricula import Members
from simulator.model.latent import from_latent, to_latent
from simulator.training.memory_arrays import Chunk, fit_arrays, ridge_solution
from simulator.training.memory_residuals import FittedRuns, seen_residuals, unseen_residuals
from simulator.training.memory_states import (
    FEW,
    MANY,
    TUNED_RUNS,
    Filters,
    centred_components,
    fit_reduction,
    spread,
    states_of,
    unit_length,
)
from simulator.training.unseen_fit import likeness

LOSS = scale_of("loss")
# One of the six runs that a simulator needs is a test run.
FEWEST_RUNS = 5
TEST_COMPONENTS = 64
# Measured steps over which the share of an effect that shows is averaged.
SHARE_WINDOW = 9

FILTERS = (FEW, MANY)
COMPONENTS = (1, 8)
RIDGES = (1e-6, 1e-4, 1e-2, 1.0)


@dataclass(frozen=True)
class MemoryChoice:
    """One setting of memory dynamics.

    Attributes:
        components: principal components of the pool's encoder vectors.
        filters: time constants.
        ridge: penalty on the responses, relative to the mean eigenvalue of the states' scatter.
    """

    components: int
    filters: Filters
    ridge: float


@dataclass(frozen=True)
class MemoryFit:
    """A fitted model.

    Attributes:
        choice: the setting that won.
        error: its mean squared error on runs left out, before effects are limited and first values are given.
        tried: every setting with its error.
        arrays: the arrays of `MemoryDynamics` by name.
        residuals: `[R, S, M]` truth minus prediction of each run by a fit without it; None: not asked for.
        unseen_residuals: `[R, S, M]` likewise by fits without the run and the test example; NaN where none was made.
    """

    choice: MemoryChoice
    error: float
    tried: list[tuple[MemoryChoice, float]]
    arrays: dict[str, np.ndarray]
    residuals: np.ndarray | None
    unseen_residuals: np.ndarray | None


def choices() -> list[MemoryChoice]:
    """Every setting that is tried."""
    return [MemoryChoice(*values) for values in product(COMPONENTS, FILTERS, RIDGES)]


def leave_one_run_out(
    states: np.ndarray,
    values: np.ndarray,
    covariance: np.ndarray,
    ridges: tuple[float, ...],
    scale: Scale,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth minus prediction of each run by a fit without it, and how much of predicted effects shows.

    Settings are compared by these. Effects are not limited and first values are not given here, as they are in what
    `memory_residuals` gives.

    Args:
        states: `[R, S, D]`.
        values: `[R, S, M]`, whose latents are a mean curve and a linear response to the states.
        covariance: `[M, M]` prior covariance of the responses.
        ridges: relative penalties.
        scale: of the metric.

    Returns:
        Residuals `[len(ridges), R, S, M]`, with shares from the other runs; shares `[len(ridges), S]` from all runs;
        and shares `[len(ridges), R, S]` from the runs but each.
    """
    count = len(states)
    latent = to_latent(torch.from_numpy(values), scale).numpy()
    alike, turn = np.linalg.eigh(covariance)
    x, y = states - states.mean(0), latent - latent.mean(0)
    scatter = np.einsum("rsd,rse->rde", x, x, optimize=True)
    cross = np.einsum("rsd,rsm->rdm", x, y, optimize=True) @ turn
    total_scatter, total_cross = scatter.sum(0), cross.sum(0)
    grow = count / (count - 1)
    effects = np.empty((len(ridges), *values.shape))
    for run in range(count):
        folded = np.linalg.eigh(total_scatter - grow * scatter[run])
        for at, ridge in enumerate(ridges):
            fit = ridge_solution(folded, total_cross - grow * cross[run], ridge, alike) @ turn.T
            effects[at, run] = grow * (x[run] @ fit)
    along, size = (effects * grow * y).sum(-1), np.square(effects).sum(-1)
    residuals = np.empty_like(effects)
    shares = _shown_share(along.sum(1, keepdims=True) - along, size.sum(1, keepdims=True) - size)
    for run in range(count):
        predicted = torch.from_numpy(latent[run] - grow * y[run] + shares[:, run, :, None] * effects[:, run])
        residuals[:, run] = values[run] - from_latent(predicted, scale).numpy()
    return residuals, _shown_share(along.sum(1), size.sum(1)), shares


def responses_without_runs(
    states: np.ndarray, values: np.ndarray, covariance: np.ndarray, ridge: float, scale: Scale
) -> np.ndarray:
    """The responses that a fit without each run would have: `[R, D, M]`.

    Args:
        states: `[R, S, D]`.
        values: `[R, S, M]`.
        covariance: `[M, M]` prior covariance of the responses.
        ridge: relative penalty.
        scale: of the metric.
    """
    latent = to_latent(torch.from_numpy(values), scale).numpy()
    alike, turn = np.linalg.eigh(covariance)
    x, y = states - states.mean(0), latent - latent.mean(0)
    scatter = np.einsum("rsd,rse->rde", x, x, optimize=True)
    cross = np.einsum("rsd,rsm->rdm", x, y, optimize=True) @ turn
    grow = len(states) / (len(states) - 1)
    return np.stack(
        [
            ridge_solution(
                np.linalg.eigh(scatter.sum(0) - grow * scatter[run]), cross.sum(0) - grow * cross[run], ridge, alike
            )
            @ turn.T
            for run in range(len(states))
        ]
    )


def _shown_share(along: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Regression of truth on prediction at every step, between 0 and 1, from sums over the steps around it.

    Args:
        along: `[..., S]` sums of truth times prediction.
        size: `[..., S]` sums of squared predictions.
    """
    steps = along.shape[-1]
    # As a matrix of ones near the diagonal: at the ends the window is what is left of it.
    near = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps))) <= SHARE_WINDOW // 2
    along, size = along @ near, size @ near
    return np.where(size > 0, (along / np.where(size > 0, size, 1.0)).clip(0.0, 1.0), 1.0)


def fit_memory(
    visits: Members,
    rates: np.ndarray,
    step: np.ndarray,
    values: np.ndarray,
    pool: np.ndarray,
    test: np.ndarray,
    scale: Scale = LOSS,
    bands: bool = True,
) -> MemoryFit:
    """Choose settings by leaving one run out, then fit on all runs.

    Args:
        visits: pool examples of each batch and their shares, `[R, T, W]`.
        rates: `[R, T]` learning rates, the same in every run.
        step: `[S]` measured steps.
        values: `[R, S, M]`; at most `TUNED_RUNS` runs of them are in memory at once, so it may be a mapped file.
        pool: `[N, E]` encoder vectors.
        test: `[M, E]` encoder vectors.
        scale: of the metric; by default of the loss.
        bands: whether runs are left out once more, for residuals of the fitted model.

    Raises:
        DataError: there are too few runs, or their learning rates differ.
    """
    if len(values) < FEWEST_RUNS:
        raise DataError(
            f"memory dynamics need at least {FEWEST_RUNS} training and validation runs; there are {len(values)}: "
            f"collect at least {FEWEST_RUNS + 1} runs, one of which is for testing"
        )
    if np.abs(rates - rates[0]).max() > 1e-6 * rates.max():
        raise DataError("runs with different learning rates cannot be fitted together")
    # Runs that learn nothing have a rate of zero throughout.
    reference = float(rates.max()) or 1.0
    relative = rates[0] / reference
    chosen = spread(len(values), TUNED_RUNS)
    few_visits, few_values = visits.take(chosen), values[chosen].astype(np.float64)
    pool, test = unit_length(pool.astype(np.float64)), unit_length(test.astype(np.float64))
    reduction = fit_reduction(np.concatenate([pool, test]), max(TEST_COMPONENTS, *COMPONENTS))
    psi_test = (test - reduction.mean) @ reduction.axes
    covariance = likeness(psi_test)
    tried: list[tuple[MemoryChoice, float]] = []
    share, shares, best = np.empty(0), np.empty(0), np.inf
    for components, filters in product(COMPONENTS, FILTERS):
        states, _ = states_of(few_visits, relative, centred_components(pool, reduction, components), filters)
        left = leave_one_run_out(states[:, step], few_values, covariance, RIDGES, scale)
        for ridge, residual, shown, others in zip(RIDGES, *left, strict=True):
            tried.append((MemoryChoice(components, filters, ridge), float(np.square(residual).mean())))
            if tried[-1][1] < best:
                share, shares, best = shown, others, tried[-1][1]
    choice, error = min(tried, key=lambda pair: pair[1])
    psi = centred_components(pool, reduction, choice.components)
    states, state_scale = states_of(few_visits, relative, psi, choice.filters)
    few = states[:, step], few_values

    def chunks() -> Iterator[Chunk]:
        if len(chosen) == len(values):
            yield few
            return
        for part in np.array_split(np.arange(len(values)), -(-len(values) // TUNED_RUNS)):
            found, _ = states_of(visits.take(part), relative, psi, choice.filters, state_scale)
            yield found[:, step], values[part].astype(np.float64)

    train_axes = reduction.train_axes(choice.components)
    tau = np.concatenate([[0.0], relative.cumsum()])
    common = {
        "encoder_mean": reduction.mean,
        "train_projection": train_axes,
        "test_projection": reduction.axes,
        "pool_centre": ((pool - reduction.mean) @ train_axes).mean(0),
        "decays": np.array(choice.filters.decays),
        "fadings": np.array(choice.filters.fadings) / (tau[-1] or 1.0),
        "momenta": np.array(choice.filters.momenta),
        "forgettings": np.array(choice.filters.forgettings) / (tau[-1] or 1.0),
        "state_scale": state_scale,
        "tau": tau,
        "reference_rate": np.array(reference),
    }
    arrays = fit_arrays(chunks, psi_test, choice.ridge, share, step, scale) | common
    fitted = FittedRuns(few_visits, rates[0], step, *few, pool, test, psi_test, choice.ridge, scale, common)
    return MemoryFit(
        choice=MemoryChoice(train_axes.shape[1], choice.filters, choice.ridge),
        error=error,
        tried=tried,
        arrays={name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()},
        residuals=seen_residuals(fitted, shares) if bands else None,
        unseen_residuals=unseen_residuals(fitted, share) if bands else None,
    )
