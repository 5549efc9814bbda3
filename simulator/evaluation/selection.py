"""Which of many examples, steps or runs are shown or measured."""

from __future__ import annotations

import numpy as np


def evenly_spaced(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` things, evenly spaced, the first and the last among them."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most)).round()})


def at_quantiles(errors: np.ndarray, parts: int, among: np.ndarray | None = None) -> list[tuple[int, int]]:
    """The (run, test example) pairs whose errors `[R, M]` are at the quantiles 1/parts to (parts - 1)/parts, each once.

    `among` `[R, M]` says whether a pair may be chosen; by default all may.
    """
    pairs = np.argwhere(np.ones(errors.shape, bool) if among is None else among)
    pairs = pairs[np.argsort(errors[tuple(pairs.T)], kind="stable")]
    indices = sorted({part * len(pairs) // parts for part in range(1, parts)})
    return [(int(run), int(test)) for run, test in (pairs[index] for index in indices if index < len(pairs))]
