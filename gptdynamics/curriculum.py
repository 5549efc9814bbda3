"""Seeded curricula and the learning-rate schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gptdynamics.configs import RunSettings, run_parts

if TYPE_CHECKING:
    from gptdynamics.dataset.recorded import RecordSettings

Curriculum = list[list[int]]


def run_seed(settings: RunSettings | RecordSettings, run: str) -> list[int]:
    """Entropy of a run: the config's seed, the run's number, and 1 if it trains on unseen pool rows."""
    index, unseen = run_parts(run)
    return [settings.seed, index, 1] if unseen else [settings.seed, index]


def draw_curriculum(settings: RunSettings, run: str) -> Curriculum:
    """The batches of a run, `[steps][batch]` pool ids: a seeded subset, equal for each task, shuffled in each epoch."""
    rng = np.random.default_rng(run_seed(settings, run))
    ids = np.array(settings.unseen_pool_ids if run_parts(run)[1] else settings.pool_ids)
    parts = settings.parts
    subset = np.concatenate(
        [rng.choice(ids[ids % parts == part], size=settings.subset, replace=False) for part in range(parts)]
    )
    size = settings.batch_size
    batches: Curriculum = []
    for _ in range(settings.epochs):
        order = rng.permutation(subset)
        batches += [order[start : start + size].tolist() for start in range(0, len(order) - size + 1, size)]
    return batches[: settings.run_steps]


def linear_decay(peak: float, steps: int) -> list[float]:
    """The rate of each update: `peak` at the first, falling linearly, zero after the last (table 7)."""
    return [peak * (steps - done) / steps for done in range(steps)]
