"""The linear datamodelling score (Park et al., 2023) of predictions for many training sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLED = 300


@dataclass(frozen=True)
class Score:
    """A linear datamodelling score.

    Attributes:
        value: rank correlation over runs, mean over test examples; None where undefined.
        low, high: ends of its 95% interval, runs and test examples drawn anew with replacement.
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


def datamodelling_score(predicted: np.ndarray, truth: np.ndarray, seed: int = 0) -> Score:
    """How well predictions `[R, M]` rank R training runs by the true values `[R, M]` of each test example."""
    each = rank_correlations(predicted, truth)
    defined = np.flatnonzero(np.isfinite(each))
    if not defined.size or not np.isfinite(predicted).all():
        return Score(None, None, None, 0)
    rng = np.random.default_rng(seed)
    runs = rng.integers(len(truth), size=(RESAMPLED, len(truth)))
    resampled = rank_correlations(predicted[:, defined][runs], truth[:, defined][runs])
    tests = rng.integers(defined.size, size=(RESAMPLED, defined.size))
    # A resample in which nothing moves says nothing.
    drawn = np.take_along_axis(resampled, tests, axis=1)
    means = drawn[np.isfinite(drawn).any(1)]
    low, high = np.quantile(np.nanmean(means, axis=1), [0.025, 0.975])
    return Score(float(each[defined].mean()), float(low), float(high), int(defined.size))
