"""Bands around predicted trajectories: split conformal on the residuals of runs left out.

The score of a value is |truth - prediction| / scale, where the scale is the usual size of residuals at that
step and of that test example. A band of level p reaches as far as the quantile of the scores at p * (R + 1) / R,
R runs having been left out: runs are few, and it is runs that are exchangeable. Coverage is pointwise: of all
values of new runs a share p lies inside, not of whole trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

# Enough that a quantile between two of them is off by less than runs make it uncertain.
QUANTILES = 513


@dataclass(frozen=True)
class Coverage:
    """How often truth lies inside a band.

    Attributes:
        share: mean over runs of the share of values inside.
        uncertainty: standard error of that mean by run; None of a single run.
        runs: shares of the single runs.
    """

    share: float
    uncertainty: float | None
    runs: tuple[float, ...]


def coverage(truth: np.ndarray, low: np.ndarray, high: np.ndarray) -> Coverage:
    """The share of values inside a band, with its uncertainty by run.

    Args:
        truth, low, high: `[R, S, M]`, without the values that were given.

    Raises:
        ValueError: shapes differ, or nothing is to be compared.
    """
    if truth.shape != low.shape or truth.shape != high.shape or truth.size == 0:
        raise ValueError(f"truth {truth.shape}, low {low.shape} and high {high.shape} must have one shape, not empty")
    shares = ((truth >= low) & (truth <= high)).reshape(len(truth), -1).mean(1)
    error = float(shares.std(ddof=1) / len(shares) ** 0.5) if len(shares) > 1 else None
    return Coverage(float(shares.mean()), error, tuple(float(share) for share in shares))


def band_arrays(residuals: np.ndarray, unseen: np.ndarray, step: np.ndarray, history: int) -> dict[str, np.ndarray]:
    """What a simulator stores for bands, from residuals of runs left out.

    Args:
        residuals: `[R, S, M]`, NaN where there is none.
        unseen: likewise of test examples that were left out, too.
        step: `[S]` measured steps.
        history: first values that were given; their residuals are not used.

    Returns:
        `band_scale` `[T + 1, M]`, `band_scores` `[513]`, and both for unseen test examples, with scales `[T + 1]`.
    """
    every = np.arange(int(step[-1]) + 1)

    def scale(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(every, step[history:], column) for column in rows.T], axis=1)

    def quantiles(scores: np.ndarray) -> np.ndarray:
        scores = scores[np.isfinite(scores)]
        return np.quantile(scores, np.linspace(0, 1, QUANTILES)) if scores.size else np.full(QUANTILES, np.nan)

    square, square_unseen = (np.square(each[:, history:].astype(np.float64)) for each in (residuals, unseen))
    # One size a step and one an example: with few runs, a size for each pair would be noise.
    total = max(float(np.nanmean(square)), 1e-12)
    by_step, by_example = np.nanmean(square, axis=(0, 2)), np.nanmean(square, axis=(0, 1))
    size = np.sqrt((by_step / total)[:, None] * by_example[None, :]).clip(min=1e-3 * total**0.5)
    known = np.isfinite(square_unseen)
    sums = np.where(known, square_unseen, 0.0).sum((0, 2))
    counts = known.sum((0, 2)).clip(min=1)
    size_unseen = np.sqrt(sums / counts).clip(min=1e-3 * total**0.5)
    return {
        "band_scale": scale(size),
        "band_scores": quantiles(np.sqrt(square) / size),
        "unseen_band_scale": scale(size_unseen[:, None])[:, 0],
        "unseen_band_scores": quantiles(np.sqrt(square_unseen) / size_unseen[None, :, None]),
    }


def half_width(
    level: float, runs: int, scales: torch.Tensor, scores: torch.Tensor, what: str = "test examples"
) -> torch.Tensor:
    """How far a band of this level reaches to either side, of the shape of `scales`.

    Raises:
        ValueError: the model has no residuals, or too few runs were left out for this level.
    """
    if runs == 0 or bool(torch.isnan(scores).any()):
        raise ValueError(f"this model has no bands for {what}: train it again, with enough runs and test examples")
    most = runs / (runs + 1)
    if not 0 < level <= most:
        raise ValueError(f"interval={level} must be above 0 and, after {runs} runs left out, at most {most:.4g}")
    place = level / most * (len(scores) - 1)
    # Rounded up: never narrower than the level asks.
    return scales * scores[min(int(np.ceil(place - 1e-9)), len(scores) - 1)]
