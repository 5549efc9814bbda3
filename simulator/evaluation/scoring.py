"""The figures of one method: all-steps MSE and MAE, final-step Spearman, skill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """One line of an evaluation; None where a figure is undefined.

    Attributes:
        method, model, config, metric, split: what was scored.
        mse, mae: mean over the scored steps of a trajectory, then mean over (run, test example);
            `_std` is the deviation over (run, test example).
        spearman: rank correlation over test examples at the last step, mean over runs; `_std` over runs, None of one.
        skill: 1 - SSE / SSE of the mean curve, over trajectories that move.
        coverage: share of truths inside the 90% band, or None where there is no band.
        runs, examples: how many of each.
        still: trajectories that never move; they are left out of `skill`.
        note: why the method has no figures, or None.
        coverage_uncertainty: standard error of `coverage` by run, or None.
    """

    method: str
    model: str | None
    config: str
    metric: str
    split: str
    mse: float | None
    mse_std: float | None
    mae: float | None
    mae_std: float | None
    spearman: float | None
    spearman_std: float | None
    skill: float | None
    coverage: float | None
    runs: int
    examples: int
    still: int
    note: str | None = None
    coverage_uncertainty: float | None = None


@dataclass(frozen=True)
class Figures:
    """The figures of `Row` that depend on predictions."""

    mse: float | None
    mse_std: float | None
    mae: float | None
    mae_std: float | None
    spearman: float | None
    spearman_std: float | None
    skill: float | None
    still: int


def _final_spearman(predicted: np.ndarray, truth: np.ndarray) -> tuple[float | None, float | None]:
    """Mean and deviation over runs of the rank correlation over test examples, `[R, M]` each; one run has none."""
    from scipy.stats import spearmanr

    found = [
        float(spearmanr(p, t).statistic)
        for p, t in zip(predicted, truth, strict=True)
        if np.ptp(p) > 0 and np.ptp(t) > 0
    ]
    if len(found) < len(truth):
        return None, None
    return float(np.mean(found)), float(np.std(found)) if len(found) > 1 else None


def undefined(truth: np.ndarray, history: int) -> Figures:
    """No figures but how many trajectories never move; arguments as of `score`."""
    still = np.ptp(truth[:, history:], axis=1) == 0
    return Figures(None, None, None, None, None, None, None, int(still.sum()))


def score(predicted: np.ndarray, truth: np.ndarray, mean_curve: np.ndarray, history: int) -> Figures:
    """Score predictions against ground truth.

    Args:
        predicted: `[R, S, M]`.
        truth: `[R, S, M]`.
        mean_curve: `[R, S, M]` predictions of the mean curve, the reference of skill.
        history: how many first values any method was given; they are not scored.

    Returns:
        The figures; all None where a prediction is not finite (it blew up).
    """
    if not np.isfinite(predicted[:, history:]).all():
        return undefined(truth, history)
    predicted, truth, mean_curve = (array[:, history:].astype(np.float64) for array in (predicted, truth, mean_curve))
    still = np.ptp(truth, axis=1) == 0
    square = np.square(predicted - truth).mean(1)
    absolute = np.abs(predicted - truth).mean(1)
    reference = np.square(mean_curve - truth).mean(1)[~still].sum()
    spearman, spearman_std = _final_spearman(predicted[:, -1], truth[:, -1])
    return Figures(
        mse=float(square.mean()),
        mse_std=float(square.std()),
        mae=float(absolute.mean()),
        mae_std=float(absolute.std()),
        spearman=spearman,
        spearman_std=spearman_std,
        skill=float(1 - square[~still].sum() / reference) if reference > 0 else None,
        still=int(still.sum()),
    )
