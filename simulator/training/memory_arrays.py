"""The arrays of `dynamics="memory"` for one setting: mean curves, responses, and both for unseen test examples.

Responses of test examples with like vectors are alike: their prior covariance is `likeness`. In the basis of
its eigenvectors each column is a ridge regression of its own, whose penalty is divided by the eigenvalue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from simulator.model.configuration_gptfluence import Scale
from simulator.model.latent import to_latent
from simulator.training.memory_states import TUNED_RUNS, spread
from simulator.training.unseen_fit import likeness, unseen_curves, unseen_responses

# Effects so many times as large as the largest of the training runs are still taken as they are.
LIMIT = 1.5
# States `[r, S, D]` and values `[r, S, M]` of some runs.
Chunk = tuple[np.ndarray, np.ndarray]


def ridge_solution(
    scatter: tuple[np.ndarray, np.ndarray], cross: np.ndarray, ridge: float, alike: np.ndarray
) -> np.ndarray:
    """Solution `[D, M]` in turned columns: penalty `ridge` (relative) over each column's eigenvalue `alike` `[M]`."""
    values, vectors = scatter
    values = values.clip(min=0)
    unit = values.mean() or 1.0
    return vectors @ ((vectors.T @ cross) / (values[:, None] + ridge * unit / alike.clip(min=1e-9)))


def fit_arrays(
    chunks: Callable[[], Iterable[Chunk]],
    psi_test: np.ndarray,
    ridge: float,
    share: np.ndarray,
    step: np.ndarray,
    scale: Scale,
) -> dict[str, np.ndarray]:
    """Mean curve and responses of seen test examples, and what predicts both for unseen ones.

    Args:
        chunks: gives all runs, some at a time; called three times.
        psi_test: `[M, L]`.
        ridge: of the setting that won.
        share: `[S]` of effects that shows.
        step: `[S]` measured steps.
        scale: of the metric.
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
    alike, turn = np.linalg.eigh(likeness(psi_test))
    scatter, cross = np.zeros(2)
    for x, latent in latents():
        centred, moved = x - mean_x, latent - mean_latent
        scatter = scatter + np.einsum("rsd,rse->de", centred, centred, optimize=True)
        cross = cross + np.einsum("rsd,rsm->dm", centred, moved, optimize=True)
    weights = ridge_solution(np.linalg.eigh(scatter), cross @ turn, ridge, alike) @ turn.T
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
