"""Fitting `dynamics="tangent"`: one ridge vector for all test examples, settings chosen by leaving one run out.

Features of a run, a step and a test example are the filtered kernels of its batches; the target is how far the latent
of the metric is from its mean over runs. The runs whose kernels are used count in the fit, but not in the choice.
Coefficients are drawn towards those of our releases (`tangent_prior.py`) where that predicts runs left out better; a
single run has nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from simulator.attribution.lds import rank_correlations
from simulator.model.configuration_gptfluence import Scale
from simulator.model.tangent_dynamics import TangentDynamics, kernel_examples
from simulator.settings.train import TrainSettings
from simulator.training.fitter import OnProgress, Part, PartFit, Residuals, SeparateFitter, check_one_schedule
from simulator.training.leave_one_run_out import shrunk_residuals
from simulator.training.left_out_residuals import LeftOutResiduals
from simulator.training.mean_curve_fit import (
    CURVE_COMPONENTS,
    FOLDS,
    dynamics_with_arrays,
    mean_curve_arrays,
    unseen_curves,
)
from simulator.training.memory_states import FEW, MANY, Filters, fit_reduction, spread, unit_length
from simulator.training.new_kernels import example_sources, reference_record
from simulator.training.reference_kernels import ReferenceKernels, fitted_kernels, reference_kernels
from simulator.training.tangent_features import FittedRuns, Regression, filter_responses, filtered_kernels
from simulator.training.tangent_prior import prior_weights
from simulator.training.validation_retrainings import Retrainings, validation_retrainings

SCALINGS = (0.5, 1.0)
# More groups with more filters would be more coefficients than a few dozen runs determine. Where runs do not tell
# settings apart, since there is but one, the first is taken.
GROUPS_AND_FILTERS = (("base_early_late", FEW), ("all", FEW), ("all", MANY))
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Settings are compared at so many measured steps, evenly spread.
TUNED_STEPS = 25
TEST_COMPONENTS = 64
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
    """

    grouping: str
    scaling: float
    filters: Filters
    ridge: float
    prior: bool


@dataclass(frozen=True)
class TangentFit:
    """The chosen setting, its error on runs left out, what was tried, and the arrays of `TangentDynamics`."""

    choice: TangentChoice
    error: float
    tried: list[tuple[TangentChoice, float]]
    arrays: dict[str, np.ndarray]
    residuals: Residuals | None


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


def choose_setting(tried: Mapping[Setting, Tried]) -> tuple[Setting, int]:
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


def fit_tangent(
    runs: FittedRuns,
    references: list[ReferenceKernels],
    reference_runs: np.ndarray,
    bands: bool = True,
    retrainings: Sequence[Retrainings] = (),
) -> TangentFit:
    """Choose settings by leaving one run out, then fit on all runs.

    Args:
        runs: of the fit; one or two leave nothing to choose by.
        references: kernels of some of them.
        reference_runs: `[R]` whether a run is one of these.
        bands: whether to compute residuals of fits without some of the runs; of at least three.
        retrainings: of validation runs; they choose among what predicts runs left out about as well as the best.

    Raises:
        DataError: no grouping fits the checkpoints of the kernels.
    """
    tried = _tried(runs, references, reference_runs, retrainings)
    if not tried:
        raise DataError("the kernels have no checkpoint that can be used: take them again with more checkpoints")
    setting, place = choose_setting(tried)
    choice = TangentChoice(*setting[:3], RIDGES[place], setting[3])
    listed = [
        (TangentChoice(*each[:3], ridge, each[3]), float(error))
        for each, results in tried.items()
        for ridge, error in zip(RIDGES, results.errors.mean(1), strict=True)
    ]
    fitted = ChosenFit(runs, references, choice)
    residuals = fitted.residuals() if bands and len(runs.values) > 2 else None
    return TangentFit(choice, dict(listed)[choice], listed, fitted.arrays(), residuals)


def _tried(
    runs: FittedRuns,
    references: list[ReferenceKernels],
    reference_runs: np.ndarray,
    retrainings: Sequence[Retrainings],
) -> dict[Setting, Tried]:
    """Every grouping with its filters, and every scaling, with and without a prior."""
    judged = ~reference_runs if (~reference_runs).sum() > 1 else np.ones_like(reference_runs)
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
    scores = np.zeros(len(RIDGES))
    for each, asked in zip(retrainings, features, strict=True):
        effects = np.einsum("rdms,kd->krms", asked, weights, optimize=True)
        correlations = rank_correlations(effects.reshape(*effects.shape[:2], -1), each.values.reshape(len(asked), -1))
        scores += np.nan_to_num(correlations).mean(1) / len(retrainings)
    return scores


class ChosenFit:
    """The fit of one setting, to all runs or to some of them. R runs, S measured steps, M test examples.

    Args:
        runs: all runs.
        references: kernels.
        choice: the setting.
    """

    def __init__(self, runs: FittedRuns, references: list[ReferenceKernels], choice: TangentChoice) -> None:
        self.runs, self.choice = runs, choice
        self.kernels = fitted_kernels(references, choice.grouping, choice.scaling)
        responses = filter_responses(runs, choice.filters)
        plain = Regression.of(filtered_kernels(runs, self.kernels, responses), runs.latent)
        prior = prior_weights(choice.grouping, choice.scaling, choice.filters) if choice.prior else None
        self.regression = plain if prior is None else plain.towards(prior)
        self.columns = unit_length(self.kernels.mean(0).T.numpy())
        self.reduction = fit_reduction(self.columns, TEST_COMPONENTS)

    @cached_property
    def _shrinkage(self) -> tuple[np.ndarray, np.ndarray]:
        """Shrinkage of effects `[S]`, and from the runs but each `[R, S]`."""
        effects = self.regression.left_out_effects((self.choice.ridge,))
        _, share, shares = shrunk_residuals(effects, self.runs.values, self.runs.scale)
        return share[0], shares[0]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `TangentDynamics`, by name."""
        count, tests, _ = self.runs.values.shape
        without = self.regression.weights_without_runs((self.choice.ridge,))[:, 0]
        share, _ = self._shrinkage
        return self._fit(np.arange(count), np.arange(tests), share) | {"weights_without": self._unscaled(without)}

    def residuals(self) -> Residuals:
        """Of runs left out, of seen and of unseen test examples, `[R, M, S]` each."""
        runs, kernels = self.runs, self.kernels.float()
        seen = torch.arange(kernels.size(2))
        examples = kernel_examples(kernels, kernels, seen)
        left_out = LeftOutResiduals(self._dynamics, runs.visits, runs.rates, runs.step, runs.values, examples)
        share, shares = self._shrinkage
        return left_out.of_seen(shares), left_out.of_unseen(share)

    def _unscaled(self, weights: np.ndarray) -> np.ndarray:
        """Coefficients `[..., D]` for features that are not scaled, `[..., G, F]`."""
        return (weights / self.regression.size).reshape(*weights.shape[:-1], len(self.kernels), -1)

    def _fit(self, which: np.ndarray, tests: np.ndarray, share: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of the fit to some runs and test examples, by their places."""
        runs, regression = self.runs, self.regression
        weights = regression.weights(self.choice.ridge, which, np.unique(tests % FOLDS))
        effects = [regression.effects(run, weights[None], tests)[0] for run in which]
        latent = runs.latent[np.ix_(which, tests)]
        pairs = ((effect[None], each[None]) for effect, each in zip(effects, latent, strict=True))
        curves = mean_curve_arrays(pairs, np.mean(effects, axis=0), latent.mean(0), share, runs.step)
        tau = np.concatenate([[0.0], (runs.rates / runs.reference_rate).cumsum()])
        psi = (self.columns[tests] - self.reduction.mean) @ self.reduction.axes
        return {
            **curves,
            **unseen_curves(curves["baseline"], latent[..., 0], psi),
            "weights": self._unscaled(weights),
            "kernels": self.kernels[..., tests].numpy(),
            "encoder_mean": self.reduction.mean,
            "test_projection": self.reduction.axes,
            "tau": tau,
            "reference_rate": np.array(runs.reference_rate),
            **self.choice.filters.arrays(float(tau[-1])),
        }

    def _dynamics(self, which: np.ndarray, tests: np.ndarray, share: np.ndarray) -> TangentDynamics:
        arrays = self._fit(which, tests, share)
        return tangent_dynamics(arrays, self.choice, self.runs.scale, int(self.runs.step[0]))


def tangent_dynamics(
    arrays: dict[str, np.ndarray], choice: TangentChoice, scale: Scale, first_step: int
) -> TangentDynamics:
    """The dynamics with these arrays, by name, of a metric first measured at `first_step`."""
    _, pool, tests = arrays["kernels"].shape
    groups, filters = arrays["weights"].shape
    shapes = {"grouping": choice.grouping, "pool_keys": [""] * pool, "test_keys": [""] * tests}
    empty = {"weights_without": np.zeros((0, groups, filters))}
    return dynamics_with_arrays(TangentDynamics, empty | arrays, scale, first_step, **shapes)


class TangentFitter(SeparateFitter):
    """Coefficients that all test examples share, over kernels of reference runs."""

    dynamics = "tangent"

    @classmethod
    def check_runs(cls, settings: TrainSettings, runs: Dynamics, name: str) -> None:
        """See `Fitter`."""
        check_one_schedule(runs, name)

    def fit_part(self, settings: TrainSettings, part: Part, on_progress: OnProgress) -> PartFit:
        """See `SeparateFitter`."""
        chosen, config = part.runs.split("train", "validation"), part.config
        references = reference_kernels(part.runs)
        is_reference = np.array([run in {each.run for each in references} for run in chosen.runs])
        fit = fit_tangent(
            FittedRuns.of(chosen, config.scale),
            references,
            is_reference,
            settings.bands,
            validation_retrainings(part.runs),
        )
        for name, values in asdict(fit.choice.filters).items():
            setattr(config, name, list(values))
        config.grouping, config.scaling, config.ridge = fit.choice.grouping, fit.choice.scaling, fit.choice.ridge
        config.references = [reference_record(part.runs, each) for each in references]
        config.pool_sources, config.test_sources = (
            example_sources(examples) for examples in (part.runs.pool, part.runs.test)
        )
        config.fitted_runs = len(chosen.runs)
        config.test_components, config.curve_components = fit.arrays["test_projection"].shape[1], CURVE_COMPONENTS
        on_progress()
        weights = {name: torch.from_numpy(np.asarray(array)).float() for name, array in fit.arrays.items()}
        return PartFit(fit.choice, fit.error, fit.tried, weights, fit.residuals)
