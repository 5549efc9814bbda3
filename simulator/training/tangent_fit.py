"""Fitting `dynamics="tangent"`: one ridge vector for all test examples, settings chosen by leaving one run out.

Features of a run, a step and a test example are the filtered kernels of its batches; the target is how far the latent
of the metric is from its mean over runs. The runs whose kernels are used count in the fit, but not in the choice.
Coefficients are drawn towards those of our releases (`tangent_prior.py`) where that predicts runs left out better; a
single run has nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError
from simulator.model.configuration_gptfluence import Scale
from simulator.model.tangent_dynamics import TangentDynamics, kernel_examples, pool_shares
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
from simulator.training.memory_states import fit_reduction, likeness, spread, unit_length
from simulator.training.new_kernels import example_sources, reference_record
from simulator.training.own_responses import (
    FEWEST_EXAMPLES,
    FEWEST_RUNS,
    OWN_RIDGES,
    OwnStates,
    pattern_states,
    principal_filters,
)
from simulator.training.reference_kernels import ReferenceKernels, fitted_kernels, reference_kernels
from simulator.training.tangent_choice import (
    TUNED_STEPS,
    TangentChoice,
    Tried,
    best_choice,
    choices_of,
    choose_own,
    judged_runs,
    mean_lds,
    try_settings,
)
from simulator.training.tangent_features import FittedRuns, Regression, filter_responses, filtered_kernels
from simulator.training.tangent_prior import prior_weights
from simulator.training.validation_retrainings import Retrainings, validation_retrainings

TEST_COMPONENTS = 64


@dataclass(frozen=True)
class TangentFit:
    """The chosen setting, its error on runs left out, what was tried, and the arrays of `TangentDynamics`."""

    choice: TangentChoice
    error: float
    tried: list[tuple[TangentChoice, float]]
    arrays: dict[str, np.ndarray]
    residuals: Residuals | None


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
    tried = try_settings(runs, references, reference_runs, retrainings)
    if not tried:
        raise DataError("the kernels have no checkpoint that can be used: take them again with more checkpoints")
    listed = {each: float(results.errors[place].mean()) for each, (results, place) in choices_of(tried).items()}
    choice = best_choice(tried)
    if len(runs.values) >= FEWEST_RUNS and min(len(runs.pool_ids), runs.values.shape[1]) >= FEWEST_EXAMPLES:
        few = ChosenFit(runs.at_steps(spread(len(runs.step), TUNED_STEPS)), references, choice)
        own = few.tried_own(judged_runs(reference_runs), retrainings)
        choices = [replace(choice, own_ridge=ridge) for ridge in OWN_RIDGES]
        listed |= dict(zip(choices, own.errors.mean(1).tolist(), strict=True))
        choice = choices[choose_own(own)]
    fitted = ChosenFit(runs, references, choice)
    residuals = fitted.residuals() if bands and len(runs.values) > 2 else None
    return TangentFit(choice, listed[choice], list(listed.items()), fitted.arrays(), residuals)


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
        self.filtered = filter_responses(runs, choice.filters)
        plain = Regression.of(filtered_kernels(runs, self.kernels, self.filtered), runs.latent)
        prior = prior_weights(choice.grouping, choice.scaling, choice.filters) if choice.prior else None
        self.regression = plain if prior is None else plain.towards(prior)
        self.columns = unit_length(self.kernels.mean(0).T.numpy())
        self.reduction = fit_reduction(self.columns, TEST_COMPONENTS)
        self.psi = (self.columns - self.reduction.mean) @ self.reduction.axes

    @cached_property
    def shares(self) -> torch.Tensor:
        """Of the pool in the patterns of own responses: `[N, K]`."""
        return pool_shares(self.kernels)

    @cached_property
    def own_filters(self) -> np.ndarray:
        """Combinations of filters of own responses: `[J, F]`."""
        return principal_filters(self.filtered[0])

    @cached_property
    def own(self) -> OwnStates:
        """What own responses are fitted on."""
        states = pattern_states(self.runs, self.shares, self.own_filters, self.filtered)
        return OwnStates(states, self.runs.latent, likeness(self.psi))

    @property
    def has_own(self) -> bool:
        """Whether test examples have responses of their own."""
        return np.isfinite(self.choice.own_ridge)

    def tried_own(self, judged: np.ndarray, retrainings: Sequence[Retrainings]) -> Tried:
        """How good each of `OWN_RIDGES` is; `judged` `[R]`: which runs count."""
        ridge, runs, regression = self.choice.ridge, self.runs, self.regression
        shared = regression.left_out_effects((ridge,))
        effects = shared + self.own.left_out_effects(self.own.without_each_run(regression, ridge, OWN_RIDGES))
        residuals, _, _ = shrunk_residuals(effects, runs.values, runs.scale)
        errors = np.square(residuals).mean((2, 3))[:, judged]
        if not retrainings:
            return Tried(errors, None)
        every, tests = np.arange(len(runs.values)), np.arange(runs.values.shape[1])
        weights = regression.weights(ridge, every, np.arange(FOLDS))
        fitted = np.stack([regression.effects(run, weights[None])[0] for run in range(len(every))])
        own = np.stack([self.own.responses(fitted, every, tests, each) for each in OWN_RIDGES])
        predicted = []
        for each in retrainings:
            repeated = runs.of_curricula(each.curricula, each.step)
            responses = filter_responses(repeated, self.choice.filters)
            features = filtered_kernels(repeated, self.kernels, responses)
            states = pattern_states(repeated, self.shares, self.own_filters, responses)
            of_shared = np.einsum("rdms,d->rms", features, weights / regression.size, optimize=True)
            predicted.append(of_shared + np.einsum("rse,kem->krms", states, own, optimize=True))
        return Tried(errors, mean_lds(predicted, retrainings))

    @cached_property
    def _shrinkage(self) -> tuple[np.ndarray, np.ndarray]:
        """Shrinkage of effects `[S]`, and from the runs but each `[R, S]`."""
        effects = self.regression.left_out_effects((self.choice.ridge,))
        if self.has_own:
            effects += self.own.left_out_effects(self._own_without)
        _, share, shares = shrunk_residuals(effects, self.runs.values, self.runs.scale)
        return share[0], shares[0]

    @cached_property
    def _own_without(self) -> np.ndarray:
        """Own responses `[R, 1, E, M]` of the fits without each run."""
        return self.own.without_each_run(self.regression, self.choice.ridge, (self.choice.own_ridge,))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `TangentDynamics`, by name."""
        count, tests, _ = self.runs.values.shape
        without = self.regression.weights_without_runs((self.choice.ridge,))[:, 0]
        share, _ = self._shrinkage
        arrays = self._fit(np.arange(count), np.arange(tests), share) | {"weights_without": self._unscaled(without)}
        if self.has_own:
            arrays["own_responses_without"] = np.stack([self._by_test(each[0]) for each in self._own_without])
        return arrays

    def residuals(self) -> Residuals:
        """Of runs left out, of seen and of unseen test examples, `[R, M, S]` each."""
        runs, kernels = self.runs, self.kernels.float()
        seen = torch.arange(kernels.size(2))
        examples = kernel_examples(kernels, self._own_shares, kernels, seen)
        left_out = LeftOutResiduals(self._dynamics, runs.visits, runs.rates, runs.step, runs.values, examples)
        share, shares = self._shrinkage
        return left_out.of_seen(shares), left_out.of_unseen(share)

    def _unscaled(self, weights: np.ndarray) -> np.ndarray:
        """Coefficients `[..., D]` for features that are not scaled, `[..., G, F]`."""
        return (weights / self.regression.size).reshape(*weights.shape[:-1], len(self.kernels), -1)

    def _by_test(self, responses: np.ndarray) -> np.ndarray:
        """Own responses `[E, M]` as `[M, K, J]`."""
        return responses.T.reshape(responses.shape[1], self.shares.size(1), -1)

    @property
    def _own_shares(self) -> torch.Tensor:
        return self.shares.float() if self.has_own else torch.zeros(self.kernels.size(1), 0)

    def _fit(self, which: np.ndarray, tests: np.ndarray, share: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of the fit to some runs and test examples, by their places."""
        runs, regression = self.runs, self.regression
        weights = regression.weights(self.choice.ridge, which, np.unique(tests % FOLDS))
        effects = np.stack([regression.effects(run, weights[None], tests)[0] for run in which])
        own_filters, own_responses = np.zeros((0, self.filtered[0].size(1))), np.zeros((len(tests), 0, 0))
        if self.has_own:
            responses = self.own.responses(effects, which, tests, self.choice.own_ridge)
            effects += self.own.effects(responses, which)
            own_filters, own_responses = self.own_filters, self._by_test(responses)
        coefficients = self._unscaled(weights)
        latent = runs.latent[np.ix_(which, tests)]
        curves = mean_curve_arrays([(effects, latent)], effects.mean(0), latent.mean(0), share, runs.step)
        tau = np.concatenate([[0.0], (runs.rates / runs.reference_rate).cumsum()])
        return {
            **curves,
            **unseen_curves(curves["baseline"], latent[..., 0], self.psi[tests]),
            "pool_shares": self._own_shares.numpy(),
            "own_filters": own_filters,
            "own_responses": own_responses,
            "own_responses_without": np.zeros((0, *own_responses.shape)),
            "weights": coefficients,
            "weights_without": np.zeros((0, *coefficients.shape)),
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
    shapes = {
        "grouping": choice.grouping,
        "pool_keys": [""] * pool,
        "test_keys": [""] * tests,
        "fitted_runs": len(arrays["weights_without"]),
        "own_patterns": arrays["pool_shares"].shape[1],
    }
    return dynamics_with_arrays(TangentDynamics, arrays, scale, first_step, **shapes)


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
        config.fitted_runs, config.own_patterns = len(chosen.runs), fit.arrays["pool_shares"].shape[1]
        config.test_components, config.curve_components = fit.arrays["test_projection"].shape[1], CURVE_COMPONENTS
        on_progress()
        weights = {name: torch.from_numpy(np.asarray(array)).float() for name, array in fit.arrays.items()}
        return PartFit(fit.choice, fit.error, fit.tried, weights, fit.residuals)
