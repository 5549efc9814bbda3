"""Fitting `dynamics="memory"`: ridge regression in closed form, settings chosen by leaving one run out.

With centred states X_r and centred latents Y_r of run r (the mean over runs taken off at every step),
leaving r out of R runs changes the scatter matrices by a multiple of X_r'X_r, and the error on r is that
of the remaining runs' fit times R / (R - 1). So every fold costs one small eigendecomposition.

Responses of test examples with like vectors are alike: their prior covariance is `likeness`. In the basis of
its eigenvectors each column is a ridge regression of its own, whose penalty is divided by the eigenvalue.

What the fits without a run predict is compared with that run at every step: where it is too much (at the end
of a run, mostly, whose rates are too small to move anything), effects are taken at the share that shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch

from gptdynamics.errors import DataError
from simulator.curricula import Members
from simulator.memory_dynamics import from_latent, to_latent
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
from simulator.training.unseen_fit import FOLDS, likeness, unseen_curves, unseen_responses

# One of the six runs that a simulator needs is a test run.
FEWEST_RUNS = 5
TEST_COMPONENTS = 64
# Effects so many times as large as the largest of the training runs are still taken as they are.
LIMIT = 1.5
# Measured steps over which the share of an effect that shows is averaged.
SHARE_WINDOW = 9


# States `[r, S, D]` and values `[r, S, M]` of some runs.
Chunk = tuple[np.ndarray, np.ndarray]

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
        error: its mean squared error on runs left out.
        tried: every setting with its error.
        arrays: the arrays of `MemoryDynamics` by name.
        residuals: `[R, S, M]` truth minus prediction of each run by a fit without it.
        unseen_residuals: `[R, S, M]` likewise by fits without the run and the test example; NaN where none was made.
    """

    choice: MemoryChoice
    error: float
    tried: list[tuple[MemoryChoice, float]]
    arrays: dict[str, np.ndarray]
    residuals: np.ndarray
    unseen_residuals: np.ndarray


def choices() -> list[MemoryChoice]:
    """Every setting that is tried."""
    return [MemoryChoice(*values) for values in product(COMPONENTS, FILTERS, RIDGES)]


def _ridge(scatter: tuple[np.ndarray, np.ndarray], cross: np.ndarray, ridge: float, alike: np.ndarray) -> np.ndarray:
    """Solution `[D, M]` in turned columns: penalty `ridge` (relative) over each column's eigenvalue `alike` `[M]`."""
    values, vectors = scatter
    values = values.clip(min=0)
    unit = values.mean() or 1.0
    return vectors @ ((vectors.T @ cross) / (values[:, None] + ridge * unit / alike.clip(min=1e-9)))


def leave_one_run_out(
    states: np.ndarray,
    values: np.ndarray,
    covariance: np.ndarray,
    ridges: tuple[float, ...],
    metric: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Truth minus prediction of each run by a fit without it, and how much of predicted effects shows.

    Args:
        states: `[R, S, D]`.
        values: `[R, S, M]`, whose latents are a mean curve and a linear response to the states.
        covariance: `[M, M]` prior covariance of the responses.
        ridges: relative penalties.
        metric: of the values.

    Returns:
        Residuals `[len(ridges), R, S, M]`, with shares from the other runs, and shares `[len(ridges), S]` from all.
    """
    count = len(states)
    latent = to_latent(torch.from_numpy(values), metric).numpy()
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
            fit = _ridge(folded, total_cross - grow * cross[run], ridge, alike) @ turn.T
            effects[at, run] = grow * (x[run] @ fit)
    along, size = (effects * grow * y).sum(-1), np.square(effects).sum(-1)
    residuals = np.empty_like(effects)
    for run in range(count):
        share = _shown_share(along.sum(1) - along[:, run], size.sum(1) - size[:, run])
        predicted = torch.from_numpy(latent[run] - grow * y[run] + share[..., None] * effects[:, run])
        residuals[:, run] = values[run] - from_latent(predicted, metric).numpy()
    return residuals, _shown_share(along.sum(1), size.sum(1))


def responses_without_runs(
    states: np.ndarray, values: np.ndarray, covariance: np.ndarray, ridge: float, metric: str
) -> np.ndarray:
    """The responses that a fit without each run would have: `[R, D, M]`.

    Args:
        states: `[R, S, D]`.
        values: `[R, S, M]`.
        covariance: `[M, M]` prior covariance of the responses.
        ridge: relative penalty.
        metric: of the values.
    """
    latent = to_latent(torch.from_numpy(values), metric).numpy()
    alike, turn = np.linalg.eigh(covariance)
    x, y = states - states.mean(0), latent - latent.mean(0)
    scatter = np.einsum("rsd,rse->rde", x, x, optimize=True)
    cross = np.einsum("rsd,rsm->rdm", x, y, optimize=True) @ turn
    grow = len(states) / (len(states) - 1)
    return np.stack(
        [
            _ridge(np.linalg.eigh(scatter.sum(0) - grow * scatter[run]), cross.sum(0) - grow * cross[run], ridge, alike)
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
    metric: str = "loss",
) -> MemoryFit:
    """Choose settings by leaving one run out, then fit on all runs.

    Args:
        visits: pool examples of each batch and their shares, `[R, T, W]`.
        rates: `[R, T]` learning rates, the same in every run.
        step: `[S]` measured steps.
        values: `[R, S, M]`; at most `TUNED_RUNS` runs of them are in memory at once, so it may be a mapped file.
        pool: `[N, E]` encoder vectors.
        test: `[M, E]` encoder vectors.
        metric: what the values are.

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
    residuals, share, best = np.empty(0), np.empty(0), np.inf
    for components, filters in product(COMPONENTS, FILTERS):
        states, _ = states_of(few_visits, relative, centred_components(pool, reduction, components), filters)
        left = leave_one_run_out(states[:, step], few_values, covariance, RIDGES, metric)
        for ridge, residual, shown in zip(RIDGES, *left, strict=True):
            tried.append((MemoryChoice(components, filters, ridge), float(np.square(residual).mean())))
            if tried[-1][1] < best:
                residuals, share, best = residual, shown, tried[-1][1]
    choice, error = min(tried, key=lambda pair: pair[1])
    psi = centred_components(pool, reduction, choice.components)
    states, scale = states_of(few_visits, relative, psi, choice.filters)
    few = states[:, step], few_values

    def chunks() -> Iterator[Chunk]:
        if len(chosen) == len(values):
            yield few
            return
        for part in np.array_split(np.arange(len(values)), -(-len(values) // TUNED_RUNS)):
            found, _ = states_of(visits.take(part), relative, psi, choice.filters, scale)
            yield found[:, step], values[part].astype(np.float64)

    arrays = _fit_all(chunks, psi_test, choice.ridge, share, step, metric)
    train_axes = reduction.train_axes(choice.components)
    tau = np.concatenate([[0.0], relative.cumsum()])
    arrays |= {
        "encoder_mean": reduction.mean,
        "train_projection": train_axes,
        "test_projection": reduction.axes,
        "pool_centre": ((pool - reduction.mean) @ train_axes).mean(0),
        "decays": np.array(choice.filters.decays),
        "fadings": np.array(choice.filters.fadings) / (tau[-1] or 1.0),
        "momenta": np.array(choice.filters.momenta),
        "forgettings": np.array(choice.filters.forgettings) / (tau[-1] or 1.0),
        "state_scale": scale,
        "tau": tau,
        "reference_rate": np.array(reference),
    }
    return MemoryFit(
        choice=MemoryChoice(train_axes.shape[1], choice.filters, choice.ridge),
        error=error,
        tried=tried,
        arrays={name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()},
        residuals=residuals.astype(np.float32),
        unseen_residuals=_unseen_residuals(*few, psi_test, choice.ridge, share, step, metric),
    )


def _fit_all(
    chunks: Callable[[], Iterable[Chunk]],
    psi_test: np.ndarray,
    ridge: float,
    share: np.ndarray,
    step: np.ndarray,
    metric: str,
) -> dict[str, np.ndarray]:
    """Mean curve and responses of seen test examples, and what predicts both for unseen ones.

    Args:
        chunks: gives all runs, some at a time; called three times.
        psi_test: `[M, L]`.
        ridge: of the setting that won.
        share: `[S]` of effects that shows.
        step: `[S]` measured steps.
        metric: of the values.
    """

    def latents() -> Iterator[Chunk]:
        for x, values in chunks():
            yield x, to_latent(torch.from_numpy(values), metric).numpy()

    sum_x: np.ndarray = np.zeros(1)
    sum_latent: np.ndarray = np.zeros(1)
    firsts = []
    for x, latent in latents():
        sum_x, sum_latent = sum_x + x.sum(0), sum_latent + latent.sum(0)
        # A view would keep all runs in memory.
        firsts.append(latent[:, 0].copy())
    initial = np.concatenate(firsts)
    mean_x, mean_latent = sum_x / len(initial), sum_latent / len(initial)
    alike, turn = np.linalg.eigh(likeness(psi_test))
    scatter, cross = np.zeros(2)
    for x, latent in latents():
        centred, moved = x - mean_x, latent - mean_latent
        scatter = scatter + np.einsum("rsd,rse->de", centred, centred, optimize=True)
        cross = cross + np.einsum("rsd,rsm->dm", centred, moved, optimize=True)
    weights = _ridge(np.linalg.eigh(scatter), cross @ turn, ridge, alike) @ turn.T
    measured = mean_latent - share[:, None] * (mean_x @ weights)
    every = np.arange(int(step[-1]) + 1)
    baseline = np.stack([np.interp(every, step, column) for column in measured.T], axis=1)
    largest, kept, deviation = np.zeros(len(psi_test)), 0.0, 0.0
    for x, latent in latents():
        largest = np.maximum(largest, np.abs(x @ weights).max((0, 1)))
        effect = share[:, None] * ((x - mean_x) @ weights)
        first, later = latent[:, 0] - mean_latent[0], (latent - mean_latent - effect)[:, 1:].mean(1)
        kept, deviation = kept + float((first * later).sum()), deviation + float(np.square(first).sum())
    # How much of a deviation at the first step is still there later; all of it where none is ever seen.
    carry = 1.0 if deviation < 1e-9 * initial.size else min(max(kept / deviation, 0.0), 1.0)
    limit = LIMIT * largest
    return {
        "baseline": baseline,
        "shown": np.interp(every, step, share),
        "weights": weights.T,
        "limit": limit,
        "unseen_limit": limit.max(),
        "carry": np.array(carry),
        "response": unseen_responses(weights.T, psi_test),
        **unseen_curves(baseline, initial[spread(len(initial), TUNED_RUNS)], psi_test),
    }


def _unseen_residuals(
    x: np.ndarray,
    values: np.ndarray,
    psi_test: np.ndarray,
    ridge: float,
    share: np.ndarray,
    step: np.ndarray,
    metric: str,
) -> np.ndarray:
    """Residuals of test examples and runs that both were left out, a fifth of each at a time."""
    found = np.full(values.shape, np.nan, dtype=np.float32)
    run_fold, test_fold = (np.arange(count) % FOLDS for count in (values.shape[0], values.shape[2]))
    for fold in range(FOLDS):
        runs, tests = np.flatnonzero(run_fold == fold), np.flatnonzero(test_fold == fold)
        if not len(tests) or len(tests) > values.shape[2] - 2:
            continue
        kept, others = run_fold != fold, test_fold != fold
        part = [(x[kept], values[kept][..., others])]
        fit = _fit_all(partial(iter, part), psi_test[others], ridge, share, step, metric)
        psi = psi_test[tests]
        first = to_latent(torch.from_numpy(values[runs, 0][:, tests]), metric).numpy()
        ones = np.ones((len(runs), len(tests), 1))
        features = np.concatenate([ones, first[..., None], np.broadcast_to(psi, (len(runs), *psi.shape))], -1)
        coefficients = (features @ fit["curve_coefficients"]).clip(*fit["curve_range"])
        effect = share[:, None] * (x[runs] @ (np.column_stack([np.ones(len(psi)), psi]) @ fit["response"]).T)
        change = np.einsum("bs,rmb->rsm", fit["curve_basis"][:, step], coefficients)
        latent = first[:, None] + change + effect
        predicted = from_latent(torch.from_numpy(latent), metric).numpy()
        predicted[:, 0] = values[runs, 0][:, tests]
        found[np.ix_(runs, np.arange(len(step)), tests)] = values[runs][..., tests] - predicted
    return found
