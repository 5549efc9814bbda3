"""What memory dynamics predict of test examples that they were not fitted on: curve and response."""

from __future__ import annotations

import numpy as np

CURVE_COMPONENTS = 4
FOLDS = 5
UNSEEN_RIDGES = tuple(10.0**power for power in range(-4, 4))
# Share of what responses of test examples have in common with those of similar vectors.
SHARED = 0.9
# Mean square of what all responses have in common, next to that of psi' (which is 1 in all).
CONSTANT = 0.1


def response_features(psi: np.ndarray) -> np.ndarray:
    """Features `[M, 1 + L]` of test components `[M, L]` whose inner products say how alike two responses are."""
    return np.column_stack([np.full(len(psi), CONSTANT**0.5), psi])


def likeness(psi: np.ndarray) -> np.ndarray:
    """Prior covariance `[M, M]` of the responses of test examples, with trace M: alike vectors, alike responses."""
    features = response_features(psi)
    product = features @ features.T
    return SHARED * product * len(psi) / np.trace(product) + (1 - SHARED) * np.eye(len(psi))


def unseen_responses(weights: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """S of w = S'[1, psi'], the mean response given those of the seen: `[1 + L, D]` from `[M, D]`, `[M, L]`."""
    features = response_features(psi)
    scale = SHARED * len(psi) / np.square(features).sum()
    found = scale * features.T @ np.linalg.solve(likeness(psi), weights)
    found[0] *= CONSTANT**0.5
    return found


def ridge_by_left_out(features: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Ridge regression whose penalty is chosen by leaving out a fifth of the test examples at a time.

    Args:
        features: `[R, M, F]` of each run and test example; the first is constant and not penalised.
        wanted: `[R, M, W]`.

    Returns:
        `[F, W]`.
    """
    free = np.ones(features.shape[-1])
    free[0] = 0.0
    fold = np.arange(features.shape[1]) % min(FOLDS, features.shape[1])
    grams, crosses = [], []
    for out in range(fold.max() + 1):
        rows = features[:, fold == out].reshape(-1, features.shape[-1])
        grams.append(rows.T @ rows)
        crosses.append(rows.T @ wanted[:, fold == out].reshape(len(rows), -1))
    gram, cross = np.sum(grams, axis=0), np.sum(crosses, axis=0)
    unit = np.trace(gram) / len(gram)

    def solve(without: int | None, ridge: float) -> np.ndarray:
        penalty = np.diag(ridge * unit * free + 1e-9 * unit)
        if without is None:
            return np.linalg.solve(gram + penalty, cross)
        return np.linalg.solve(gram - grams[without] + penalty, cross - crosses[without])

    def error(ridge: float) -> float:
        if len(grams) < 2:
            return -ridge
        left = (wanted[:, fold == out] - features[:, fold == out] @ solve(out, ridge) for out in range(len(grams)))
        return float(sum(np.square(each).sum() for each in left))

    return solve(None, min(UNSEEN_RIDGES, key=error))


def unseen_curves(baseline: np.ndarray, initial: np.ndarray, psi: np.ndarray) -> dict[str, np.ndarray]:
    """How the latent of an unseen test example moves away from its first value on average.

    First values of single runs, not their mean, are what an unseen example will be known by: where they are
    noise, they are trusted as little as they deserve.

    Args:
        baseline: `[T + 1, M]` mean curves of the seen, as latents.
        initial: `[R, M]` first latents of each run.
        psi: `[M, L]`.

    Returns:
        `curve_basis` `[B, T + 1]`, `curve_coefficients` `[2 + L, B]` of 1, first value and psi', and
        `curve_range` `[2, B]`, a little more than the range of the seen.
    """
    change = baseline.T - initial[..., None]
    _, _, axes = np.linalg.svd(change.mean(0), full_matrices=False)
    basis = axes[:CURVE_COMPONENTS]
    basis = np.concatenate([basis, np.zeros((CURVE_COMPONENTS - len(basis), len(baseline)))])
    wanted = change @ basis.T
    ones = np.ones((*initial.shape, 1))
    # A BLEU of 20 must not weigh more against the penalty than all of psi'.
    centre, spread = initial.mean(), initial.std() or 1.0
    scaled = (initial[..., None] - centre) / spread
    features = np.concatenate([ones, scaled, np.broadcast_to(psi, (*initial.shape, psi.shape[1]))], -1)
    coefficients = ridge_by_left_out(features, wanted)
    coefficients[1] /= spread
    coefficients[0] -= centre * coefficients[1]
    low, high = wanted.min((0, 1)), wanted.max((0, 1))
    margin = 0.25 * (high - low)
    return {
        "curve_basis": basis,
        "curve_coefficients": coefficients,
        "curve_range": np.stack([low - margin, high + margin]),
    }
