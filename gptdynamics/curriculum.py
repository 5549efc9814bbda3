"""Seeded curricula and the learning-rate schedule."""

from __future__ import annotations

import numpy as np

from gptdynamics.configs import RunSettings

Curriculum = list[list[int]]


def run_seed(settings: RunSettings, index: int) -> list[int]:
    """Entropy of run `index`: the config's seed and the index."""
    return [settings.seed, index]


def draw_curriculum(settings: RunSettings, pool: list[int], index: int) -> Curriculum:
    """The batches of run `index`: a seeded subset of the pool, shuffled anew for each epoch.

    Args:
        settings: subset size, batch size, epochs and steps.
        pool: ids of the pool.
        index: number of the run.

    Returns:
        `[steps][batch]` pool ids, in training order.
    """
    rng = np.random.default_rng(run_seed(settings, index))
    subset = rng.choice(np.array(pool), size=settings.subset, replace=False)
    size = settings.batch_size
    batches: Curriculum = []
    for _ in range(settings.epochs):
        order = rng.permutation(subset)
        batches += [order[at : at + size].tolist() for at in range(0, len(order) - size + 1, size)]
    return batches[: settings.run_steps]


def linear_decay(peak: float, steps: int) -> list[float]:
    """The rate of each update: `peak` at the first, falling linearly, zero after the last (table 7)."""
    return [peak * (steps - done) / steps for done in range(steps)]
