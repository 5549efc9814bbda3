"""Seeded changes of a run: the same run without some examples, with others, in another order, on another subset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gptdynamics.errors import SettingsError
from simulator.model.what_if import WhatIf

TRIES = 200


@dataclass(frozen=True)
class Counterfactual:
    """A changed run, ready to be simulated, and the kind of its change, one of `KINDS`."""

    kind: str
    run: WhatIf


def _leave_out(run: WhatIf, count: int, rng: np.random.Generator) -> WhatIf:
    visited = _visited(run)
    for _ in range(TRIES):
        left_out = set(rng.choice(visited, size=count, replace=False).tolist())
        if all(set(batch) - left_out for batch in run.curriculum):
            return run.drop(left_out)
    raise SettingsError(
        f"leaving {count} of {len(visited)} examples out empties a batch, whichever they are: give a smaller share, or "
        "runs on more rows"
    )


def _replace(run: WhatIf, count: int, rng: np.random.Generator) -> WhatIf:
    visited = _visited(run)
    others = sorted(set(run.situation.pool_ids) - set(visited))
    if count > len(others):
        raise SettingsError(
            f"{count} examples are to be replaced, but the run leaves only {len(others)} of the pool unused: give a "
            "smaller share"
        )
    old, new = rng.choice(visited, size=count, replace=False), rng.choice(others, size=count, replace=False)
    return run.replace(dict(zip(old.tolist(), new.tolist(), strict=True)))


def _reorder(run: WhatIf, count: int, rng: np.random.Generator) -> WhatIf:
    return run.reorder((rng.permutation(len(run.curriculum)) + 1).tolist())


def _other_subset(run: WhatIf, count: int, rng: np.random.Generator) -> WhatIf:
    visited = _visited(run)
    others = rng.choice(np.array(run.situation.pool_ids), size=len(visited), replace=False)
    return run.replace(dict(zip(visited, others.tolist(), strict=True)))


KINDS: dict[str, Callable[[WhatIf, int, np.random.Generator], WhatIf]] = {
    "leave_out": _leave_out,
    "replace": _replace,
    "other_subset": _other_subset,
    "reorder": _reorder,
}
# What a linear datamodelling score is taken over: other data, whatever their order.
SUBSETS = ("leave_out", "replace", "other_subset")
# Those that take rows of the pool that the run does not visit.
OTHER_ROWS = ("replace", "other_subset")


def _visited(run: WhatIf) -> list[int]:
    return sorted(set().union(*run.curriculum))


def draw_counterfactuals(run: WhatIf, each: int, share: float, seed: int) -> list[Counterfactual]:
    """Draw `each` changes of every kind, which leave out or replace this share of the run's examples.

    A run that visits the whole pool has no changes of the kinds that need other rows of it.

    Raises:
        SettingsError: that many examples cannot be left out or replaced.
    """
    visited = len(_visited(run))
    count = max(1, round(share * visited))
    whole = visited == len(run.situation.pool_ids)
    return [
        # A generator each, so that asking for more changes none of those there were.
        Counterfactual(kind, change(run, count, np.random.default_rng([seed, kind_index, number])))
        for kind_index, (kind, change) in enumerate(KINDS.items())
        if not (whole and kind in OTHER_ROWS)
        for number in range(each)
    ]
