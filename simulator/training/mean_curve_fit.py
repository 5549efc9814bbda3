"""Fitting the arrays of `MeanCurveDynamics`, for any kind: mean curves, limits, shift by the first value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from simulator.model.configuration_gptfluence import GPTfluenceConfig, Scale
from simulator.model.mean_curve_dynamics import MeanCurveDynamics

CURVE_COMPONENTS = 4
FOLDS = 5
UNSEEN_RIDGES = tuple(10.0**power for power in range(-4, 4))
# Effects are limited beyond so many times the largest of the training runs.
LIMIT = 1.5


Made = TypeVar("Made", bound=MeanCurveDynamics)


def dynamics_with_arrays(
    kind: type[Made], arrays: Mapping[str, np.ndarray], scale: Scale, first_step: int, **shapes: Any
) -> Made:
    """Dynamics of a kind with these arrays, by name, of a metric first measured at `first_step`.

    `shapes` are the fields of the configuration that only this kind needs, and how many examples there are.
    """
    config = GPTfluenceConfig(
        dynamics=kind.name,
        **scale.fields(),
        first_step=first_step,
        encoder_width=len(arrays["encoder_mean"]),
        test_components=arrays["test_projection"].shape[1],
        steps=len(arrays["tau"]) - 1,
        curve_components=CURVE_COMPONENTS,
        **{name: arrays[name].tolist() for name in ("decays", "fade_rates", "momenta", "curvatures")},
        **shapes,
    )
    dynamics = kind(config)
    dynamics.load_state_dict({name: torch.from_numpy(np.asarray(array)).float() for name, array in arrays.items()})
    return dynamics


def mean_curve_arrays(
    chunks: Iterable[tuple[np.ndarray, np.ndarray]],
    mean_effect: np.ndarray,
    mean_latent: np.ndarray,
    share: np.ndarray,
    step: np.ndarray,
) -> dict[str, np.ndarray]:
    """Mean curves of seen test examples, and how effects and first values are taken.

    Args:
        chunks: effects and latents `[r, M, S]` of all runs, some at a time.
        mean_effect, mean_latent: `[M, S]` their means over all runs.
        share: `[S]` shrinkage of effects.
        step: `[S]` measured steps.

    Returns:
        `baseline`, `shrinkage`, `limit`, `unseen_limit` and `carry` of `MeanCurveDynamics`.
    """
    largest, lasting, deviation, firsts = np.zeros(len(mean_latent)), 0.0, 0.0, 0
    for effect, latent in chunks:
        largest = np.maximum(largest, np.abs(effect).max((0, 2)))
        first = latent[..., 0] - mean_latent[:, 0]
        later = (latent - mean_latent - share * (effect - mean_effect))[..., 1:].mean(-1)
        lasting, deviation = lasting + float((first * later).sum()), deviation + float(np.square(first).sum())
        firsts += first.size
    # How much of a deviation at the first step is still there later; all of it where none is ever seen.
    carry = 1.0 if deviation < 1e-9 * firsts else min(max(lasting / deviation, 0.0), 1.0)
    every = np.arange(int(step[-1]) + 1)
    curves = mean_latent - share * mean_effect
    return {
        "baseline": np.stack([np.interp(every, step, curve) for curve in curves], axis=1),
        "shrinkage": np.interp(every, step, share),
        "limit": LIMIT * largest,
        "unseen_limit": LIMIT * largest.max(),
        "carry": np.array(carry),
    }


def unseen_curves(baseline: np.ndarray, initial: np.ndarray, psi: np.ndarray) -> dict[str, np.ndarray]:
    """How the latent of an unseen test example moves away from its first value on average.

    An unseen example has the first value of a single run, not a mean of several. So the fit is on first values of
    single runs: where they are noise, they are trusted as little as they deserve.

    From mean curves of the seen `[T + 1, M]`, first latents of each run `[R, M]` and psi `[M, L]`: `curve_basis`
    `[B, T + 1]`, `curve_coefficients` `[2 + L, B]` of 1, first value and psi', and `curve_range` `[2, B]`.
    """
    change = baseline.T - initial[..., None]
    _, _, axes = np.linalg.svd(change.mean(0), full_matrices=False)
    basis = axes[:CURVE_COMPONENTS]
    basis = np.concatenate([basis, np.zeros((CURVE_COMPONENTS - len(basis), len(baseline)))])
    targets = change @ basis.T
    ones = np.ones((*initial.shape, 1))
    # A BLEU of 20 must not weigh more against the penalty than all of psi'.
    centre, deviation = initial.mean(), initial.std() or 1.0
    scaled = (initial[..., None] - centre) / deviation
    features = np.concatenate([ones, scaled, np.broadcast_to(psi, (*initial.shape, psi.shape[1]))], -1)
    coefficients = ridge_by_left_out(features, targets)
    coefficients[1] /= deviation
    coefficients[0] -= centre * coefficients[1]
    low, high = targets.min((0, 1)), targets.max((0, 1))
    margin = 0.25 * (high - low)
    return {
        "curve_basis": basis,
        "curve_coefficients": coefficients,
        "curve_range": np.stack([low - margin, high + margin]),
    }


def ridge_by_left_out(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Ridge regression `[F, C]` whose penalty is chosen by leaving out a fifth of the test examples at a time.

    Of features `[R, M, F]`, the first of which is constant and not penalised, and targets `[R, M, C]`.
    """
    penalised = np.ones(features.shape[-1])
    penalised[0] = 0.0
    fold = np.arange(features.shape[1]) % min(FOLDS, features.shape[1])
    grams, crosses = [], []
    for out in range(fold.max() + 1):
        rows = features[:, fold == out].reshape(-1, features.shape[-1])
        grams.append(rows.T @ rows)
        crosses.append(rows.T @ targets[:, fold == out].reshape(len(rows), -1))
    gram, cross = np.sum(grams, axis=0), np.sum(crosses, axis=0)
    unit = np.trace(gram) / len(gram)

    def solve(without: int | None, ridge: float) -> np.ndarray:
        penalty = np.diag(ridge * unit * penalised + 1e-9 * unit)
        if without is None:
            return np.linalg.solve(gram + penalty, cross)
        return np.linalg.solve(gram - grams[without] + penalty, cross - crosses[without])

    def error(ridge: float) -> float:
        if len(grams) < 2:
            return -ridge
        left = (targets[:, fold == out] - features[:, fold == out] @ solve(out, ridge) for out in range(len(grams)))
        return float(sum(np.square(each).sum() for each in left))

    return solve(None, min(UNSEEN_RIDGES, key=error))
