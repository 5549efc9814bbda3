"""What memory dynamics regress on: filtered means of batches, in a few principal components of encoder vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from simulator.model.curricula import Members, update_mask
from simulator.model.recurrence import FilterBank

# Settings, scales, bands and the predictions for unseen test examples are chosen on at most so many runs. Mean curves
# and responses are fitted to all runs, so many at a time.
TUNED_RUNS = 64
# Share of what responses of test examples have in common with those of similar vectors.
SHARED = 0.9
# Mean square of what all responses have in common, next to that of psi' (which is 1 in all).
CONSTANT = 0.1


@dataclass(frozen=True)
class Filters:
    """Time constants side by side: every decay with every fade rate, every momentum with every curvature.

    Attributes:
        decays: rho, the share of an effect that is left after the next update.
        fade_rates: kappa times the tau of a whole run: a last batch counts exp(-kappa) of what a first one does.
        momenta: b; AdamW has 0.9.
        curvatures: lambda times the tau of a whole run.
    """

    decays: tuple[float, ...] = ()
    fade_rates: tuple[float, ...] = ()
    momenta: tuple[float, ...] = ()
    curvatures: tuple[float, ...] = ()

    def arrays(self, end: float) -> dict[str, np.ndarray]:
        """The time constants of a run whose tau ends at `end`, by their names in `FilterBank`."""
        rates = {"fade_rates": self.fade_rates, "curvatures": self.curvatures}
        constants = {"decays": np.array(self.decays), "momenta": np.array(self.momenta)}
        return constants | {name: np.array(values) / (end or 1.0) for name, values in rates.items()}


FEW = Filters(momenta=(0.0, 0.9), curvatures=(0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0))
MANY = Filters(
    (0.0, 0.2, 0.4, 0.55, 0.65, 0.75, 0.82, 0.87, 0.91, 0.94, 0.97, 0.985, 1.0),
    (-2.0, 0.0, 2.0, 6.0, 16.0),
    FEW.momenta,
    FEW.curvatures,
)


@dataclass(frozen=True)
class Reduction:
    """Principal components of encoder vectors of unit length.

    Attributes:
        mean: `[E]`.
        axes: `[E, C]`, scaled so that psi' = (h - mean) @ axes has unit mean square in all.
        sizes: `[C]` deviations along the axes over the first's. psi of pool examples is multiplied by their
            squares: a component that few examples differ in needs more evidence before it counts.
    """

    mean: np.ndarray
    axes: np.ndarray
    sizes: np.ndarray

    def train_axes(self, components: int) -> np.ndarray:
        """`[E, K]` for pool examples."""
        return self.axes[:, :components] * self.sizes[:components] ** 2


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; rows of zeros stay."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)


def fit_reduction(vectors: np.ndarray, components: int) -> Reduction:
    """Principal components of `[n, E]` vectors; at most n - 1 and E of them."""
    mean = vectors.mean(0)
    _, size, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    count = min(components, int((size > 1e-6 * size[0]).sum()) if size[0] > 0 else 1)
    scale = np.sqrt((size[:count] ** 2).sum() / len(vectors)) or 1.0
    return Reduction(mean, axes[:count].T / scale, size[:count] / (size[0] or 1.0))


def centred_components(pool: np.ndarray, reduction: Reduction, components: int) -> np.ndarray:
    """psi - psi_mean of the pool `[N, K]`."""
    psi = (pool - reduction.mean) @ reduction.train_axes(components)
    return psi - psi.mean(0)


def spread(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count`, evenly spaced: all of them where they are no more."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def states_of(
    visits: Members, relative: np.ndarray, psi: np.ndarray, filters: Filters, scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """m and n `[R, T + 1, F * K]` over their scales, and the scales `[F]`; by default every filter's mean square is 1.

    `visits` are those of each update, `relative` `[T]` rates over the largest, `psi` `[N, K]` of the pool, centred.
    """
    places, shares = visits.places.numpy(), visits.shares.numpy().astype(np.float64)
    means = torch.from_numpy((psi[places] * shares[..., None]).sum(2))
    end = float(relative.cumsum()[-1]) if len(relative) else 0.0
    constants = {name: torch.from_numpy(array) for name, array in filters.arrays(end).items()}
    bank = FilterBank(**constants, end=torch.tensor(end, dtype=torch.float64))
    rates = torch.from_numpy(relative.astype(np.float64))[None]
    states = bank.states(means, rates, update_mask(visits.shares)).numpy()
    if scale is None:
        scale = np.sqrt(np.square(states).mean((0, 1, 3)))
        scale = np.where(scale > 0, scale, 1.0)
    return (states / scale[:, None]).reshape(*states.shape[:2], -1), scale


def response_features(psi: np.ndarray) -> np.ndarray:
    """Features `[M, 1 + L]` of test components `[M, L]` whose inner products say how similar two responses are."""
    return np.column_stack([np.full(len(psi), CONSTANT**0.5), psi])


def likeness(psi: np.ndarray) -> np.ndarray:
    """Prior covariance `[M, M]` of the responses of test examples, with trace M: similar vectors, similar responses."""
    features = response_features(psi)
    product = features @ features.T
    return SHARED * product * len(psi) / np.trace(product) + (1 - SHARED) * np.eye(len(psi))


def unseen_responses(weights: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """S of w = S'[1, psi'], the mean response given those of the seen: `[1 + L, D]` from `[M, D]`, `[M, L]`."""
    features = response_features(psi)
    scale = SHARED * len(psi) / np.square(features).sum()
    responses = scale * features.T @ np.linalg.solve(likeness(psi), weights)
    responses[0] *= CONSTANT**0.5
    return responses
