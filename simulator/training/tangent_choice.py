"""Choosing the settings of `dynamics="tangent"`: by runs left out, and by retrainings of validation runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np

from simulator.attribution.lds import rank_correlations
from simulator.training.leave_one_run_out import shrunk_residuals
from simulator.training.mean_curve_fit import FOLDS
from simulator.training.memory_states import FEW, MANY, Filters, spread
from simulator.training.own_responses import NONE
from simulator.training.reference_kernels import ReferenceKernels, fitted_kernels
from simulator.training.tangent_features import FittedRuns, Regression, filter_responses, filtered_kernels
from simulator.training.tangent_prior import prior_weights
from simulator.training.validation_retrainings import Retrainings

SCALINGS = (0.5, 1.0)
# More groups with more filters would be more coefficients than a few dozen runs determine. Where runs do not tell
# settings apart, since there is but one, the first is taken.
GROUPS_AND_FILTERS = (("base_early_late", FEW), ("all", FEW), ("all", MANY))
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Settings are compared at so many measured steps, evenly spread.
TUNED_STEPS = 25
# What ranks retrainings better may have an error that is larger by this share of the least; so may a stronger ridge,
# which tends to.
TOLERATED = 0.1


@dataclass(frozen=True)
class TangentChoice:
    """One setting.

    Attributes:
        grouping: of checkpoints, `all` or `base_early_late`.
        scaling: exponent of the root mean square that kernels are divided by.
        filters: time constants.
        ridge: relative penalty on coefficients.
        prior: whether they are drawn towards those of our releases, and not towards zero.
        own_ridge: relative penalty on each test example's own response; infinite: it has none.
    """

    grouping: str
    scaling: float
    filters: Filters
    ridge: float
    prior: bool
    own_ridge: float = NONE


Setting = tuple[str, float, Filters, bool]


@dataclass(frozen=True)
class Tried:
    """How good a setting was with each of K ridges, which ascend.

    Attributes:
        errors: `[K, R]` mean squared error of each run that was left out.
        scores: `[K]` mean LDS over retrainings of validation runs; None: there are none.
    """

    errors: np.ndarray
    scores: np.ndarray | None


Key = TypeVar("Key")


def choose_setting(tried: Mapping[Key, Tried]) -> tuple[Key, int]:
    """The setting and the place of its ridge.

    What predicts runs left out best does not rank retrainings best. So of all whose error is within a standard error of
    the best, or a tenth above it, that with the highest score is taken; without scores, the strongest ridge of the best
    setting.
    """
    best = min(tried, key=lambda setting: tried[setting].errors.mean(1).min())
    least = tried[best].errors[tried[best].errors.mean(1).argmin()]
    allowed = {}
    for setting, each in tried.items():
        worse = each.errors - least
        runs = len(least)
        margin = worse.std(1, ddof=1) / np.sqrt(runs) if runs > 1 else np.zeros(len(worse))
        allowed[setting] = np.flatnonzero(worse.mean(1) <= np.maximum(margin, TOLERATED * least.mean()))
    if tried[best].scores is None:
        return best, int(allowed[best][-1])
    ranked = [
        (float(each.scores[place]), int(place), setting)
        for setting, each in tried.items()
        if each.scores is not None
        for place in allowed[setting]
    ]
    _, place, setting = max(ranked, key=lambda one: one[:2])
    return setting, place


def choices_of(tried: Mapping[Setting, Tried]) -> dict[TangentChoice, tuple[Tried, int]]:
    """Every setting with every ridge: how good the setting was, and the place of the ridge."""
    return {
        TangentChoice(*setting[:3], ridge, setting[3]): (results, place)
        for setting, results in tried.items()
        for place, ridge in enumerate(RIDGES)
    }


def best_choice(tried: Mapping[Setting, Tried]) -> TangentChoice:
    """What `choose_setting` chooses."""
    setting, place = choose_setting(tried)
    return TangentChoice(*setting[:3], RIDGES[place], setting[3])


def choose_own(tried: Tried) -> int:
    """The place of the penalty on own responses; the last is without them.

    Of those that predict runs left out no worse than the last, by more than a standard error, the one that
    `choose_setting` chooses.
    """
    worse = tried.errors - tried.errors[-1]
    allowed = np.flatnonzero(worse.mean(1) <= worse.std(1, ddof=1) / np.sqrt(worse.shape[1]))
    scores = None if tried.scores is None else tried.scores[allowed]
    return int(allowed[choose_setting({"own": Tried(tried.errors[allowed], scores)})[1]])


def judged_runs(reference_runs: np.ndarray) -> np.ndarray:
    """`[R]` which runs settings are chosen by: those that kernels were not taken of, where there are enough."""
    return ~reference_runs if (~reference_runs).sum() > 1 else np.ones_like(reference_runs)


def try_settings(
    runs: FittedRuns,
    references: list[ReferenceKernels],
    reference_runs: np.ndarray,
    retrainings: Sequence[Retrainings],
) -> dict[Setting, Tried]:
    """Every grouping with its filters, and every scaling, with and without a prior."""
    judged = judged_runs(reference_runs)
    few = runs.at_steps(spread(len(runs.step), TUNED_STEPS))
    repeated = [few.of_curricula(each.curricula, each.step) for each in retrainings]
    responses = {
        filters: [filter_responses(each, filters) for each in (few, *repeated)] for _, filters in GROUPS_AND_FILTERS
    }
    tried = {}
    for (grouping, filters), scaling in product(GROUPS_AND_FILTERS, SCALINGS):
        try:
            kernels = fitted_kernels(references, grouping, scaling)
        except ValueError:
            continue
        features, *asked = (
            filtered_kernels(each, kernels, own) for each, own in zip((few, *repeated), responses[filters], strict=True)
        )
        plain = Regression.of(features, few.latent)
        prior = prior_weights(grouping, scaling, filters)
        candidates = {False: plain} if len(few.values) > 2 else {}
        if prior is not None:
            candidates[True] = plain.towards(prior)
        for drawn, regression in candidates.items():
            residuals, _, _ = shrunk_residuals(regression.left_out_effects(RIDGES), few.values, few.scale)
            errors = np.square(residuals).mean((2, 3))[:, judged]
            scores = _scores(regression, asked, retrainings) if retrainings else None
            tried[grouping, scaling, filters, drawn] = Tried(errors, scores)
    return tried


def _scores(regression: Regression, features: list[np.ndarray], retrainings: Sequence[Retrainings]) -> np.ndarray:
    """The mean LDS with each ridge, over base runs, test examples and measured steps, of features `[n, D, M, S]`."""
    every, folds = np.arange(len(regression.features)), np.arange(FOLDS)
    weights = np.stack([regression.weights(ridge, every, folds) for ridge in RIDGES]) / regression.size
    effects = [np.einsum("rdms,kd->krms", asked, weights, optimize=True) for asked in features]
    return mean_lds(effects, retrainings)


def mean_lds(effects: list[np.ndarray], retrainings: Sequence[Retrainings]) -> np.ndarray:
    """The mean LDS of K settings, over base runs, test examples and measured steps, of effects `[K, n, M, S]`."""
    scores = np.zeros(len(effects[0]))
    for each, predicted in zip(retrainings, effects, strict=True):
        flat = predicted.reshape(*predicted.shape[:2], -1)
        correlations = rank_correlations(flat, each.values.reshape(len(each.values), -1))
        scores += np.nan_to_num(correlations).mean(1) / len(retrainings)
    return scores
