"""Linear datamodelling scores (LDS; Park et al., 2023): how well predictions rank runs on changed training data.

Of each test example, Spearman's correlation over retrainings between predicted and true values; the score is the mean
over test examples. Where retrainings repeat several runs, only those of the same run are ranked together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLED = 300
# A rank correlation over fewer says next to nothing.
FEWEST_RETRAININGS = 8


@dataclass(frozen=True)
class Score:
    """A linear datamodelling score, or the difference of two.

    Attributes:
        value: mean over test examples (and over the runs that are repeated); None where undefined.
        low, high: ends of its 95% interval, retrainings and test examples drawn anew with replacement.
        examples: test examples that it is the mean over: those that move, and whose predictions do.
    """

    value: float | None
    low: float | None
    high: float | None
    examples: int


def rank_correlations(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Spearman's over runs for each test example, `[..., M]` from `[..., R, M]`; NaN where either is constant."""
    from scipy.stats import rankdata

    left, right = (rankdata(each, axis=-2) for each in (predicted, truth))
    left, right = (each - each.mean(-2, keepdims=True) for each in (left, right))
    size = np.sqrt(np.square(left).sum(-2) * np.square(right).sum(-2))
    return np.where(size > 0, (left * right).sum(-2) / np.where(size > 0, size, 1.0), np.nan)


def lds(predicted: np.ndarray, truth: np.ndarray, repeated: Sequence[Hashable] | None = None, seed: int = 0) -> Score:
    """How well predictions rank R retrainings by the true values of each test example.

    Args:
        predicted, truth: `[R, M]` values at one step; or `[R, M, S]` at several, of which the mean score is taken.
        repeated: the run that each retraining repeats; default: all the same one.
        seed: of the resamples.
    """
    return _scored((predicted,), truth, repeated, seed)


def lds_by_step(
    predicted: np.ndarray, truth: np.ndarray, repeated: Sequence[Hashable] | None = None, seed: int = 0
) -> list[Score]:
    """The score at each of S measured steps, of values `[R, M, S]`; arguments as of `lds`."""
    pairs = zip(np.moveaxis(predicted, -1, 0), np.moveaxis(truth, -1, 0), strict=True)
    return [lds(*pair, repeated, seed) for pair in pairs]


def lds_difference(
    first: np.ndarray,
    second: np.ndarray,
    truth: np.ndarray,
    repeated: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Score:
    """The score of the first method less that of the second, over test examples for which both are defined.

    Both are scored on the same resamples, so that what they share does not widen the interval. Arguments as of `lds`.
    """
    return _scored((first, second), truth, repeated, seed)


def _scored(methods: Sequence[np.ndarray], truth: np.ndarray, repeated: Sequence[Hashable] | None, seed: int) -> Score:
    """The score of one method, or of the first less that of the second."""
    # Values at one step are values at several, of which there is one.
    methods, truth = [_with_steps(one) for one in methods], _with_steps(truth)
    runs = [None] * len(truth) if repeated is None else list(repeated)
    groups = [np.array([index for index, run in enumerate(runs) if run == each]) for each in dict.fromkeys(runs)]
    each = np.stack([_less([_by_example(one[group], truth[group]) for one in methods]) for group in groups])
    tests = np.flatnonzero(np.isfinite(each).any(0))
    if not tests.size or not all(np.isfinite(one).all() for one in methods):
        return Score(None, None, None, 0)
    each = each[:, tests]
    rng = np.random.default_rng(seed)
    resampled = []
    for group in groups:
        drawn = group[rng.integers(len(group), size=(RESAMPLED, len(group)))]
        true = truth[:, tests][drawn]
        resampled.append(_less([_by_example(one[:, tests][drawn], true) for one in methods]))
    places = rng.integers(tests.size, size=(RESAMPLED, tests.size))
    means = np.concatenate([np.take_along_axis(one, places, axis=1) for one in resampled], axis=1)
    # A resample in which nothing moves says nothing.
    means = np.nanmean(means[np.isfinite(means).any(1)], axis=1)
    if not means.size:
        return Score(float(np.nanmean(each)), None, None, int(tests.size))
    low, high = np.quantile(means, [0.025, 0.975])
    return Score(float(np.nanmean(each)), float(low), float(high), int(tests.size))


def _by_example(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Correlations over runs, averaged over the steps where they are defined: `[..., M]` from `[..., R, M, S]`."""
    each = rank_correlations(*(values.reshape(*values.shape[:-2], -1) for values in (predicted, truth)))
    each = each.reshape(*each.shape[:-1], *truth.shape[-2:])
    defined = np.isfinite(each)
    steps = defined.sum(-1)
    return np.where(steps > 0, np.where(defined, each, 0.0).sum(-1) / np.maximum(steps, 1), np.nan)


def _with_steps(values: np.ndarray) -> np.ndarray:
    return values[..., None] if values.ndim == 2 else values


def _less(correlations: Sequence[np.ndarray]) -> np.ndarray:
    """The first less the second, where there is one."""
    return correlations[0] if len(correlations) == 1 else correlations[0] - correlations[1]
