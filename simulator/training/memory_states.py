"""What memory dynamics regress on: filtered sums of what batches held, in a few principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from simulator.model.curricula import Members
from simulator.model.recurrence import decayed_sums, optimiser_sums

# Settings, scales, bands and what is said of unseen test examples are chosen by so many runs at most; with more, too,
# mean curves and responses are fitted to all, so many at a time.
TUNED_RUNS = 64


@dataclass(frozen=True)
class Filters:
    """Time constants side by side: every decay with every fading, every momentum with every forgetting.

    Attributes:
        decays: rho, the share of an effect that the next update leaves.
        fadings: kappa times the tau of a whole run: a last batch counts exp(-kappa) of what a first one does.
        momenta: b; 0.9 is AdamW's.
        forgettings: lambda times the tau of a whole run.
    """

    decays: tuple[float, ...] = ()
    fadings: tuple[float, ...] = ()
    momenta: tuple[float, ...] = ()
    forgettings: tuple[float, ...] = ()


FEW = Filters(momenta=(0.0, 0.9), forgettings=(0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0))
MANY = Filters(
    (0.0, 0.2, 0.4, 0.55, 0.65, 0.75, 0.82, 0.87, 0.91, 0.94, 0.97, 0.985, 1.0),
    (-2.0, 0.0, 2.0, 6.0, 16.0),
    FEW.momenta,
    FEW.forgettings,
)


@dataclass(frozen=True)
class Reduction:
    """Principal components of encoder vectors of unit length.

    Attributes:
        mean: `[E]`.
        axes: `[E, C]`, scaled so that psi' = (h - mean) @ axes has unit mean square in all.
        sizes: `[C]` deviations along the axes over the first's. psi of pool examples is multiplied by their
            squares: a component that few examples differ in must show more before it counts.
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
    keep = min(components, int((size > 1e-6 * size[0]).sum()) if size[0] > 0 else 1)
    scale = np.sqrt((size[:keep] ** 2).sum() / len(vectors)) or 1.0
    return Reduction(mean, axes[:keep].T / scale, size[:keep] / (size[0] or 1.0))


def spread(count: int, most: int) -> np.ndarray:
    """Places of at most so many of `count`, evenly spread: all of them where they are no more."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def states_of(
    visits: Members, relative: np.ndarray, psi: np.ndarray, filters: Filters, scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scaled m and n, and the scales.

    Args:
        visits: of each update, `[R, T, W]`.
        relative: `[T]` rates over the largest.
        psi: `[N, K]` of the pool, centred.
        filters: time constants.
        scale: `[F]`, where it is known already.

    Returns:
        `[R, T + 1, F * K]` and `[F]`.
    """
    tau = np.concatenate([[0.0], relative.cumsum()])
    strength = relative[:, None] * np.exp(-np.outer(tau[:-1] / (tau[-1] or 1.0), filters.fadings))
    places, shares = visits.places.numpy(), visits.shares.numpy().astype(np.float64)
    shown = torch.from_numpy((psi[places] * shares[..., None]).sum(2))
    inputs = torch.from_numpy(strength)[:, :, None] * shown[:, :, None, :]
    decays, momenta, forgettings, rates = (
        torch.tensor(each, dtype=torch.float64)
        for each in (filters.decays, filters.momenta, np.array(filters.forgettings) / (tau[-1] or 1.0), relative)
    )
    summed = decayed_sums(inputs.flatten(2), decays).unflatten(-1, inputs.shape[2:]).flatten(2, 3)
    states = torch.cat([summed, optimiser_sums(shown, rates[None], momenta, forgettings)], 2).numpy()
    if scale is None:
        scale = np.sqrt(np.square(states).mean((0, 1, 3)))
        scale = np.where(scale > 0, scale, 1.0)
    return (states / scale[:, None]).reshape(*states.shape[:2], -1), scale


def centred_components(pool: np.ndarray, reduction: Reduction, components: int) -> np.ndarray:
    """psi - psi_mean of the pool `[N, K]`."""
    psi = (pool - reduction.mean) @ reduction.train_axes(components)
    return psi - psi.mean(0)
