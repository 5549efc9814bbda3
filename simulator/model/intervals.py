"""Bands around predicted trajectories: conformal on the residuals of runs left out.

The score of a value is |truth - prediction| / scale, where the scale is the usual size of residuals at that step and of
that test example, in the other runs. A band reaches as far as a quantile of the scores of all R runs. Which quantile is
found by leaving runs out once more: the scores of each run are ranked among those of the other runs, and the quantile
is the one below which, averaged over runs, the wanted share of values has its rank. Where runs differ as a whole
this is far above the level, up to the largest score of all; where values differ within runs it is near the level.
Coverage is pointwise: of all values of new runs a share p lies inside, not of whole trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

# Enough that a quantile between two of them is off by less than runs make it uncertain.
QUANTILES = 513


@dataclass(frozen=True)
class Coverage:
    """Mean over runs of the share of true values inside a band, its standard error or None, and each run's share."""

    share: float
    uncertainty: float | None
    runs: tuple[float, ...]


def coverage(truth: np.ndarray, low: np.ndarray, high: np.ndarray) -> Coverage:
    """The share of values inside a band, with its uncertainty by run; arrays `[R, M, S]` without the values given.

    Raises:
        ValueError: shapes differ, or are empty.
    """
    if truth.shape != low.shape or truth.shape != high.shape or truth.size == 0:
        raise ValueError(f"truth {truth.shape}, low {low.shape} and high {high.shape} must have one shape, not empty")
    shares = ((truth >= low) & (truth <= high)).reshape(len(truth), -1).mean(1)
    error = float(shares.std(ddof=1) / len(shares) ** 0.5) if len(shares) > 1 else None
    return Coverage(float(shares.mean()), error, tuple(float(share) for share in shares))


def band_arrays(residuals: np.ndarray, unseen: np.ndarray, step: np.ndarray, history: int) -> dict[str, np.ndarray]:
    """What a simulator stores for bands, from residuals `[R, M, S]` of runs left out, NaN where there is none.

    `unseen` are those of test examples left out, too; the first `history` of the measured steps `step` were given.
    Returns `band_scale` `[T + 1, M]`, `band_scores` `[513]` at levels from 0 to R / (R + 1), and both for unseen test
    examples, with scales `[T + 1]`.
    """
    every = np.arange(int(step[-1]) + 1)

    def scale(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(every, step[history:], row) for row in rows], axis=1)

    square, square_unseen = (np.square(each[..., history:].astype(np.float64)) for each in (residuals, unseen))
    finite, finite_unseen = np.isfinite(square), np.isfinite(square_unseen)
    total = max(float(np.nanmean(square)), 1e-12)
    size, others = _sizes(square, finite, total)
    size_unseen, others_unseen = _step_sizes(square_unseen, finite_unseen, total)
    return {
        "band_scale": scale(size),
        "band_scores": _band_scores(np.sqrt(square) / others),
        "unseen_band_scale": scale(size_unseen[None])[:, 0],
        "unseen_band_scores": _band_scores(np.sqrt(square_unseen) / others_unseen[:, None]),
    }


def _mean_with_and_without(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over all runs, and over all but each, from sums and counts `[R, ...]`; NaN where there is no value."""
    total, count = sums.sum(0), counts.sum(0)
    # The rest of a sum of squares may come out a little below zero.
    sum_without, count_without = (total - sums).clip(min=0), count - counts
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, mean_others = total / count, sum_without / count_without
    return mean, np.where(count_without > 0, mean_others, mean)


def _sizes(square: np.ndarray, finite: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray]:
    """Usual sizes of residuals `[M, S]`, and those of the other runs `[R, M, S]`, from squares `[R, M, S]`.

    One size a step and one an example: with few runs, a size for each pair would be noise.
    """
    squares = np.where(finite, square, 0.0)
    (step, step_others), (example, example_others), (mean, mean_others) = (
        _mean_with_and_without(squares.sum(axes), finite.sum(axes)) for axes in (1, 2, (1, 2))
    )
    least = 1e-3 * total**0.5
    size = np.sqrt(example[:, None] * step / max(float(mean), 1e-12))
    others = np.sqrt(example_others[:, :, None] * step_others[:, None] / mean_others.clip(min=1e-12)[:, None, None])
    return size.clip(min=least), others.clip(min=least)


def _step_sizes(square: np.ndarray, finite: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray]:
    """Usual sizes of residuals of unseen test examples `[S]`, and those of the other runs `[R, S]`."""
    sums, counts = np.where(finite, square, 0.0).sum(1), finite.sum(1)
    least = 1e-3 * total**0.5
    size, others = (np.sqrt(np.nan_to_num(each)) for each in _mean_with_and_without(sums, counts))
    return size.clip(min=least), others.clip(min=least)


def _band_scores(scores: np.ndarray) -> np.ndarray:
    """How far bands of `QUANTILES` levels from 0 to R / (R + 1) reach, in scales, from scores `[R, M, S]`."""
    runs = [each[np.isfinite(each)] for each in scores]
    runs = [each for each in runs if each.size]
    if not runs:
        return np.full(QUANTILES, np.nan)
    levels = np.linspace(0, 1, QUANTILES) * len(scores) / (len(scores) + 1)
    every = np.sort(np.concatenate(runs))
    if len(runs) > 1:
        # Each run counts alike, however many of its values there are.
        ranks = np.concatenate([_ranks(each, every) for each in runs])
        weights = np.concatenate([np.full(each.size, 1 / each.size) for each in runs])
        order = np.argsort(ranks, kind="stable")
        passed = weights[order].cumsum() / len(runs)
        levels = ranks[order][np.searchsorted(passed, levels - 1e-12).clip(max=len(order) - 1)]
    band_scores: np.ndarray = every[np.ceil(levels * len(every) - 1e-9).astype(int).clip(1, len(every)) - 1]
    return band_scores


def _ranks(own: np.ndarray, every: np.ndarray) -> np.ndarray:
    """The share of the other runs' scores up to the first that reaches each of `own`, at most 1; `every` is sorted."""
    below = np.searchsorted(every, own) - np.searchsorted(np.sort(own), own)
    share: np.ndarray = ((below + 1) / (len(every) - len(own))).clip(max=1)
    return share


def half_width(
    level: float, runs: int, scales: torch.Tensor, scores: torch.Tensor, group: str = "test examples"
) -> torch.Tensor:
    """How far a band of this level reaches to either side, of the shape of `scales`.

    Raises:
        ValueError: the model has no residuals, or too few runs were left out for this level.
    """
    if runs == 0 or bool(torch.isnan(scores).any()):
        raise ValueError(f"this model has no bands for {group}: train it again, with enough runs and test examples")
    most = runs / (runs + 1)
    if not 0 < level <= most:
        raise ValueError(f"interval={level} must be above 0 and, after {runs} runs left out, at most {most:.4g}")
    place = level / most * (len(scores) - 1)
    # Rounded up: never narrower than the level asks.
    return scales * scores[min(int(np.ceil(place - 1e-9)), len(scores) - 1)]
