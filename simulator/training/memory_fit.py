"""Fitting `dynamics="memory"`: ridge regression in closed form, settings chosen by leaving one run out.

With centred states X_r and centred values Y_r of run r (the mean over runs taken off at every step),
leaving r out of R runs changes the scatter matrices by a multiple of X_r'X_r, and the error on r is that
of the remaining runs' fit times R / (R - 1). So every fold costs one small eigendecomposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from gptdynamics.errors import DataError
from simulator.recurrence import decayed_sums

# As many settings as markov training tries.
DECAYS: tuple[tuple[float, ...], ...] = ((0.8, 0.95, 1.0), (0.0, 0.5, 0.8, 0.9, 0.95, 1.0))
COMPONENTS = (2, 32)
RIDGES = (0.01, 0.3, 10.0, 300.0)
CURVE_COMPONENTS = 4
UNSEEN_RIDGES = tuple(10.0**power for power in range(-2, 5))


@dataclass(frozen=True)
class MemoryChoice:
    """One setting of memory dynamics.

    Attributes:
        components: principal components of the encoder vectors.
        decays: rho, side by side.
        ridge: penalty on the responses, relative to the mean eigenvalue of the states' scatter.
    """

    components: int
    decays: tuple[float, ...]
    ridge: float


@dataclass(frozen=True)
class MemoryFit:
    """A fitted model: the choice, its leave-one-run-out error, and the arrays of `MemoryDynamics` by name."""

    choice: MemoryChoice
    error: float
    tried: list[tuple[MemoryChoice, float]]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Reduction:
    """Principal components of encoder vectors: psi(h) = (h - mean) @ projection, unit mean square in all."""

    mean: np.ndarray
    projection: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """psi `[n, K]` of vectors `[n, E]`."""
        return (vectors - self.mean) @ self.projection


def fit_reduction(vectors: np.ndarray, components: int) -> Reduction:
    """Principal components of `[n, E]` vectors; at most n - 1 and E of them."""
    mean = vectors.mean(0)
    _, size, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    keep = min(components, int((size > 1e-6 * size[0]).sum()) if size[0] > 0 else 1)
    scale = np.sqrt((size[:keep] ** 2).sum() / len(vectors)) or 1.0
    return Reduction(mean, axes[:keep].T / scale)


def choices() -> list[MemoryChoice]:
    """Every setting that is tried."""
    return [MemoryChoice(*values) for values in product(COMPONENTS, DECAYS, RIDGES)]


def _states(visits: np.ndarray, relative_rate: np.ndarray, psi: np.ndarray, decays: tuple[float, ...]) -> np.ndarray:
    """Unscaled m `[R, T + 1, P, K]` from shares `[R, T, N]`, rates over the reference rate `[R, T]` and psi."""
    import torch

    inputs = relative_rate[..., None] * (visits @ psi)
    return decayed_sums(torch.from_numpy(inputs), torch.tensor(decays, dtype=torch.float64)).numpy()


def _solve_each_ridge(scatter: np.ndarray, cross: np.ndarray, ridges: tuple[float, ...]) -> list[np.ndarray]:
    """Ridge solutions `[D, M]`, one for each penalty relative to the mean eigenvalue."""
    values, vectors = np.linalg.eigh(scatter)
    values = values.clip(min=0)
    unit = values.mean() or 1.0
    turned = vectors.T @ cross
    return [vectors @ (turned / (values + ridge * unit)[:, None]) for ridge in ridges]


def leave_one_run_out(states: np.ndarray, values: np.ndarray, ridges: tuple[float, ...]) -> np.ndarray:
    """Mean squared error on runs left out, for each ridge: `[len(ridges)]`.

    Args:
        states: `[R, S, D]`.
        values: `[R, S, M]` what is predicted, a mean curve and a linear response to the states.
        ridges: relative penalties.
    """
    count = len(states)
    x, y = states - states.mean(0), values - values.mean(0)
    scatter = np.einsum("rsd,rse->rde", x, x)
    cross = np.einsum("rsd,rsm->rdm", x, y)
    total_scatter, total_cross = scatter.sum(0), cross.sum(0)
    grow = count / (count - 1)
    errors = np.zeros(len(ridges))
    for run in range(count):
        fits = _solve_each_ridge(total_scatter - grow * scatter[run], total_cross - grow * cross[run], ridges)
        for at, fit in enumerate(fits):
            errors[at] += np.square(grow * (y[run] - x[run] @ fit)).mean()
    return errors / count


def fit_memory(
    visits: np.ndarray,
    rates: np.ndarray,
    step: np.ndarray,
    values: np.ndarray,
    pool: np.ndarray,
    test: np.ndarray,
) -> MemoryFit:
    """Choose settings by leaving one run out, then fit on all runs.

    Args:
        visits: `[R, T, N]` share of each pool example in each batch.
        rates: `[R, T]` learning rates, the same in every run.
        step: `[S]` measured steps.
        values: `[R, S, M]`.
        pool: `[N, E]` encoder vectors.
        test: `[M, E]` encoder vectors.

    Raises:
        DataError: there are fewer than three runs, or their learning rates differ.
    """
    if len(values) < 3:
        raise DataError(f"memory dynamics need at least 3 training and validation runs; there are {len(values)}")
    if np.abs(rates - rates[0]).max() > 1e-6 * rates.max():
        raise DataError("runs with different learning rates cannot be fitted together")
    reference = float(rates.max())
    relative = rates / reference
    visits, values, test, pool = (array.astype(np.float64) for array in (visits, values, test, pool))
    largest = fit_reduction(np.concatenate([pool, test]), max(COMPONENTS))
    every_decay = tuple(sorted({rho for decays in DECAYS for rho in decays}))
    psi = largest(pool)
    states = _states(visits, relative, psi - psi.mean(0), every_decay)[:, step]
    scale = np.sqrt(np.square(states).mean((0, 1, 3)))
    states = states / np.where(scale > 0, scale, 1.0)[:, None]
    tried: list[tuple[MemoryChoice, float]] = []
    for components, decays in product(COMPONENTS, DECAYS):
        chosen = states[:, :, [every_decay.index(rho) for rho in decays], :components]
        errors = leave_one_run_out(chosen.reshape(*chosen.shape[:2], -1), values, RIDGES)
        tried += [(MemoryChoice(components, decays, r), float(e)) for r, e in zip(RIDGES, errors, strict=True)]
    choice, error = min(tried, key=lambda pair: pair[1])
    which = [every_decay.index(rho) for rho in choice.decays]
    reduction = Reduction(largest.mean, largest.projection[:, : choice.components])
    x = states[:, :, which, : choice.components].reshape(*states.shape[:2], -1)
    arrays = _fit_all(x, values, reduction(test), choice.ridge, int(step[-1]), step)
    arrays |= {
        "encoder_mean": reduction.mean,
        "projection": reduction.projection,
        "pool_centre": reduction(pool).mean(0),
        "decays": np.array(choice.decays),
        "state_scale": np.where(scale > 0, scale, 1.0)[which],
        "tau": np.concatenate([[0.0], relative[0].cumsum()]),
        "reference_rate": np.array(reference),
    }
    choice = MemoryChoice(reduction.projection.shape[1], choice.decays, choice.ridge)
    return MemoryFit(choice, error, tried, {name: array.astype(np.float32) for name, array in arrays.items()})


def _fit_all(
    x: np.ndarray, values: np.ndarray, psi_test: np.ndarray, ridge: float, last: int, step: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean curve and responses of seen test examples, and what predicts both for unseen ones."""
    centred, moved = x - x.mean(0), values - values.mean(0)
    scatter = np.einsum("rsd,rse->de", centred, centred)
    cross = np.einsum("rsd,rsm->dm", centred, moved)
    weights = _solve_each_ridge(scatter, cross, (ridge,))[0]
    measured = values.mean(0) - x.mean(0) @ weights
    carry = _carried_share(moved[:, 0], (moved - centred @ weights)[:, 1:].mean(1))
    every = np.arange(last + 1)
    baseline = np.stack([np.interp(every, step, column) for column in measured.T], axis=1)
    basis, coefficients = _unseen_curves(baseline, psi_test)
    return {
        "baseline": baseline,
        "weights": weights.T,
        "carry": np.array(carry),
        "response": _unseen_responses(weights.T, psi_test),
        "curve_basis": basis,
        "curve_coefficients": coefficients,
    }


def _carried_share(first: np.ndarray, later: np.ndarray) -> float:
    """How much of a deviation at step 0 is still there later, between 0 and 1; 1 where none is ever seen.

    Args:
        first: `[R, M]` deviations from the mean over runs at step 0.
        later: `[R, M]` mean deviations of the later steps.
    """
    size = np.square(first).sum()
    return 1.0 if size < 1e-9 * first.size else float(np.clip((first * later).sum() / size, 0.0, 1.0))


def _ridge_by_left_out(features: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Ridge regression whose penalty is chosen by leaving out one row at a time, in closed form.

    Args:
        features: `[n, F]`; the first column is constant and not penalised.
        wanted: `[n, W]`.

    Returns:
        `[F, W]`.
    """
    free = np.ones(features.shape[1])
    free[0] = 0.0
    gram = features.T @ features
    unit = np.trace(gram) / len(gram)
    best, best_error = np.zeros((features.shape[1], wanted.shape[1])), np.inf
    for ridge in UNSEEN_RIDGES:
        solve = np.linalg.solve(gram + np.diag(ridge * unit * free + 1e-9 * unit), features.T)
        fit = solve @ wanted
        leverage = np.einsum("nf,fn->n", features, solve)
        error = np.square((wanted - features @ fit) / (1 - leverage.clip(max=0.999))[:, None]).mean()
        if error < best_error:
            best, best_error = fit, error
    return best


def _unseen_curves(baseline: np.ndarray, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change curves of unseen test examples: a basis `[B, grid]` and coefficients `[2 + K, B]`."""
    change = (baseline - baseline[0]).T
    _, _, axes = np.linalg.svd(change, full_matrices=False)
    basis = axes[:CURVE_COMPONENTS]
    basis = np.concatenate([basis, np.zeros((CURVE_COMPONENTS - len(basis), baseline.shape[0]))])
    features = np.column_stack([np.ones(len(psi)), baseline[0], psi])
    return basis, _ridge_by_left_out(features, change @ basis.T)


def _unseen_responses(weights: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """S of w = S'[1, psi]: `[1 + K, D]` from the seen examples' responses `[M, D]`."""
    return _ridge_by_left_out(np.column_stack([np.ones(len(psi)), psi]), weights)
