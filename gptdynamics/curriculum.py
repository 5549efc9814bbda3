"""Seeded curricula and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gptdynamics.configs import RunSettings, run_parts

if TYPE_CHECKING:
    from gptdynamics.dataset.recorded import RecordSettings

Curriculum = list[list[int]]
# A counterfactual run leaves out this share of the rows that its base run trains on.
LEAVE_OUT = 0.2


def visited_rows(curriculum: Sequence[Sequence[int]]) -> set[int]:
    """The pool ids that occur in a curriculum."""
    return set().union(*curriculum)


def run_seed(settings: RunSettings | RecordSettings, run: str) -> list[int]:
    """Entropy of a run: the config's seed, the run's number, and 1 if it trains on unseen pool rows.

    A counterfactual run has the same random numbers as the run that it repeats.
    """
    parts = run_parts(run)
    if parts.base is not None:
        return run_seed(settings, parts.base)
    return [settings.seed, parts.index, 1] if parts.unseen else [settings.seed, parts.index]


def left_out(settings: RunSettings, run: str, leave_out: float = LEAVE_OUT) -> list[int]:
    """The pool rows that a counterfactual run leaves out, ascending: a random share of those that its base run visits.

    They are determined by the config's seed, the base run and the run's number. Other runs leave out no rows.

    Args:
        settings: of the config.
        run: its name.
        leave_out: the share.
    """
    parts = run_parts(run)
    if parts.base is None:
        return []
    visited = sorted(visited_rows(draw_curriculum(settings, parts.base)))
    rng = np.random.default_rng([settings.seed, run_parts(parts.base).index, 2, parts.index])
    chosen: list[int] = rng.choice(visited, size=round(leave_out * len(visited)), replace=False).tolist()
    return sorted(chosen)


def draw_curriculum(settings: RunSettings, run: str) -> Curriculum:
    """The batches of a run, `[steps][batch]` pool ids: a seeded subset, equal for each task, shuffled in each epoch.

    A counterfactual run has the batches of its base run without the rows that it leaves out; some may be empty.
    """
    parts = run_parts(run)
    if parts.base is not None:
        left_out_ids = set(left_out(settings, run))
        return [
            [pool_id for pool_id in batch if pool_id not in left_out_ids]
            for batch in draw_curriculum(settings, parts.base)
        ]
    rng = np.random.default_rng(run_seed(settings, run))
    ids = np.array(settings.unseen_pool_ids if parts.unseen else settings.pool_ids)
    tasks = settings.parts
    subset = np.concatenate(
        [rng.choice(ids[ids % tasks == part], size=settings.subset, replace=False) for part in range(tasks)]
    )
    size = settings.batch_size
    batches: Curriculum = []
    for _ in range(settings.epochs):
        order = rng.permutation(subset)
        batches += [order[start : start + size].tolist() for start in range(0, len(order) - size + 1, size)]
    return batches[: settings.run_steps]


def linear_decay(peak: float, steps: int) -> list[float]:
    """The rate of each update: `peak` at the first, falling linearly, zero after the last (table 7)."""
    return [peak * (steps - update) / steps for update in range(steps)]
