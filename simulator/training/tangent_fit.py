"""Fitting `dynamics="tangent"`: one ridge vector for all test examples, settings chosen by leaving one run out.

Features of a run, a step and a test example are the filtered kernels of its batches; the target is how far the latent
of the metric is from its mean over runs. The runs whose kernels are used count in the fit, but not in the choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.dataset.reading import run_array
from gptdynamics.errors import DataError
from simulator.model.configuration_gptfluence import GPTfluenceConfig, Scale
from simulator.model.curricula import Members, updates_made
from simulator.model.dynamics import EncodedExamples
from simulator.model.latent import to_latent
from simulator.model.recurrence import FilterBank
from simulator.model.tangent_dynamics import GROUPINGS, TangentDynamics
from simulator.settings.train import TrainSettings
from simulator.training.fitter import OnProgress, Part, PartFit, SeparateFitter
from simulator.training.leave_one_run_out import RunSums, growth_of, shrunk_residuals
from simulator.training.left_out_residuals import LeftOutResiduals
from simulator.training.mean_curve_fit import CURVE_COMPONENTS, FOLDS, mean_curve_arrays, unseen_curves
from simulator.training.memory_states import FEW, MANY, Filters, fit_reduction, unit_length
from simulator.training.reference_kernels import ReferenceKernels, mean_of_references, reference_kernels

FEWEST_RUNS = 3
SCALINGS = (0.5, 1.0)
FILTERS = (FEW, MANY)
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Settings are compared at so many measured steps, evenly spread.
TUNED_STEPS = 25
TEST_COMPONENTS = 64


@dataclass(frozen=True)
class TangentChoice:
    """One setting: groups of checkpoints, scaling of kernels, time constants, and relative penalty on coefficients."""

    grouping: str
    scaling: float
    filters: Filters
    ridge: float


@dataclass(frozen=True)
class FittedRuns:
    """The runs of a fit. R runs, T updates, N pool examples, M test examples, S measured steps.

    Attributes:
        visits: `[R, T, W]`.
        rates: `[T]` learning rates, the same in every run.
        step: `[S]` measured steps.
        values: `[R, S, M]`.
        scale: of the metric.
    """

    visits: Members
    rates: np.ndarray
    step: np.ndarray
    values: np.ndarray
    scale: Scale

    @classmethod
    def of(cls, runs: Dynamics, scale: Scale) -> FittedRuns:
        """Of runs whose learning rates are the same.

        Raises:
            DataError: there are too few runs, or their learning rates differ.
        """
        rates = runs.learning_rate
        if len(runs.runs) < FEWEST_RUNS:
            raise DataError(f"tangent needs at least {FEWEST_RUNS} training and validation runs, not {len(runs.runs)}")
        if np.abs(rates - rates[0]).max() > 1e-6 * rates.max():
            raise DataError("runs with different learning rates cannot be fitted together")
        every = range(rates.shape[1] + 1)
        visits = Members.between(runs.curricula, [example.id for example in runs.pool], every)
        return cls(visits, rates[0], runs.step, runs.values.astype(np.float64), scale)

    @property
    def reference_rate(self) -> float:
        """The largest rate; runs that learn nothing have a rate of zero throughout."""
        return float(self.rates.max()) or 1.0

    @property
    def latent(self) -> np.ndarray:
        """`[R, S, M]`."""
        return to_latent(torch.from_numpy(self.values), self.scale).numpy()

    def at_steps(self, chosen: np.ndarray) -> FittedRuns:
        """The same at some of the measured steps, by their places."""
        return FittedRuns(self.visits, self.rates, self.step[chosen], self.values[:, chosen], self.scale)


def filtered_kernels(runs: FittedRuns, kernels: torch.Tensor, filters: Filters) -> np.ndarray:
    """The features of each run, step and test example, `[R, S, G * F, M]` float32, of kernels `[G, N, M]`."""
    relative = torch.from_numpy(runs.rates / runs.reference_rate).double()[None]
    end = float(relative.sum())
    constants = {name: torch.from_numpy(array).double() for name, array in filters.arrays(end).items()}
    bank = FilterBank(**constants, end=torch.tensor(end, dtype=torch.float64))
    made = updates_made(runs.visits.shares)
    updates = torch.eye(relative.size(1), dtype=torch.float64)[None]
    every = bank.states(updates, relative)[0, runs.step] if made is None else None
    count, steps, tests = runs.values.shape
    features = run_array((count, steps, len(kernels) * bank.size, tests))
    for run in range(count):
        shares = runs.visits.take([run]).spread(kernels.size(1))[0].double()
        batches = torch.einsum("tn,gnm->gtm", shares, kernels)
        own = bank.states(updates, relative, made[run : run + 1])[0, runs.step] if made is not None else every
        features[run] = torch.einsum("sft,gtm->sgfm", own, batches).flatten(1, 2).float().numpy()
    return features


@dataclass(frozen=True)
class Regression:
    """Sums of the ridge regression, by run and fold of test examples. D features, R runs, V folds.

    Attributes:
        features: `[R, S, D, M]` float32, divided by `size`.
        size: `[D]` root mean square of each feature.
        scatter: `[R, V, D, D]` sums of products of features, centred over runs.
        cross: `[R, V, D, 1]` sums of features times targets.
    """

    features: np.ndarray
    size: np.ndarray
    scatter: np.ndarray
    cross: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, latent: np.ndarray) -> Regression:
        """Of features `[R, S, D, M]`, which are changed in place, and latents `[R, S, M]`."""
        count, _, width, tests = features.shape
        squares: np.ndarray = np.zeros(width)
        mean: np.ndarray = np.zeros(features.shape[1:])
        for run in features:
            squares += np.square(run).sum((0, 2), dtype=np.float64)
            mean += run / count
        size = np.sqrt(squares / (features.size / width))
        size = np.where(size > 0, size, 1.0)
        for run in range(count):
            features[run] /= size[:, None]
        mean /= size[:, None]
        target = latent - latent.mean(0)
        fold = np.arange(tests) % FOLDS
        scatter, cross = np.zeros((count, FOLDS, width, width)), np.zeros((count, FOLDS, width, 1))
        for run in range(count):
            centred = (features[run] - mean).transpose(2, 0, 1)
            for number in range(FOLDS):
                rows = centred[fold == number].reshape(-1, width)
                scatter[run, number] = rows.T @ rows
                cross[run, number, :, 0] = rows.T @ target[run].T[fold == number].reshape(-1)
        return cls(features, size, scatter, cross)

    def sums(self, runs: np.ndarray | None = None, folds: np.ndarray | None = None) -> RunSums:
        """The sums of some runs and folds, by their places; default: of all."""
        runs = np.arange(len(self.cross)) if runs is None else runs
        folds = np.arange(FOLDS) if folds is None else folds
        chosen = np.ix_(runs, folds)
        return RunSums(self.scatter[chosen].sum(1), self.cross[chosen].sum(1), np.eye(1))

    def effects(self, weights: np.ndarray) -> Iterator[np.ndarray]:
        """Of each run the effects `[..., S, M]` by weights `[R, ..., D]` or `[D]`, not centred."""
        every = np.broadcast_to(weights, (len(self.features), *weights.shape)) if weights.ndim == 1 else weights
        for run, own in zip(self.features, every, strict=True):
            yield np.einsum("sdm,...d->...sm", run, own, optimize=True)


def left_out_effects(regression: Regression, ridges: tuple[float, ...]) -> np.ndarray:
    """Effects `[K, R, S, M]` in each run by the fit without it, centred over the other runs, for K ridges."""
    weights = np.stack([each[..., 0] for each in regression.sums().without_each_run(ridges)])
    count, steps, _, tests = regression.features.shape
    mean = regression.features.mean(0, dtype=np.float64)
    effects = np.empty((len(ridges), count, steps, tests))
    for run, own in enumerate(regression.effects(weights)):
        centre = np.einsum("sdm,kd->ksm", mean, weights[run], optimize=True)
        effects[:, run] = growth_of(count) * (own - centre)
    return effects


def strongest_ridge(errors: np.ndarray) -> int:
    """The last of K ridges, which ascend, whose error is within a standard error of the best: errors `[K, R]` by run.

    The ridge of the least error predicts skill best, but ranks retrainings worse than stronger ones do.
    """
    best = int(errors.mean(1).argmin())
    worse = errors - errors[best]
    allowed = worse.std(1, ddof=1) / np.sqrt(errors.shape[1]) if errors.shape[1] > 1 else np.zeros(len(errors))
    return int(np.flatnonzero(worse.mean(1) <= allowed)[-1])


@dataclass(frozen=True)
class TangentFit:
    """The chosen setting, its error on runs left out, what was tried, and the arrays of `TangentDynamics`."""

    choice: TangentChoice
    error: float
    tried: list[tuple[TangentChoice, float]]
    arrays: dict[str, np.ndarray]
    residuals: tuple[np.ndarray, np.ndarray] | None


def fit_tangent(
    runs: FittedRuns, references: list[ReferenceKernels], reference_runs: np.ndarray, bands: bool = True
) -> TangentFit:
    """Choose settings by leaving one run out, then fit on all runs.

    Args:
        runs: of the fit.
        references: kernels of some of them.
        reference_runs: `[R]` whether a run is one of these.
        bands: whether to compute residuals of fits without some of the runs.

    Raises:
        DataError: no grouping fits the checkpoints of the kernels.
    """
    judged = ~reference_runs if (~reference_runs).sum() > 1 else np.ones_like(reference_runs)
    places = np.unique(np.linspace(0, len(runs.step) - 1, min(TUNED_STEPS, len(runs.step))).round().astype(int))
    few = runs.at_steps(places)
    latent = few.latent
    tried: list[tuple[TangentChoice, float]] = []
    best: tuple[float, np.ndarray, TangentChoice] | None = None
    for grouping, scaling in product(GROUPINGS, SCALINGS):
        try:
            kernels = mean_of_references(references, grouping, scaling)
        except ValueError:
            continue
        for filters in FILTERS:
            regression = Regression.of(filtered_kernels(few, kernels, filters), latent)
            residuals, _, _ = shrunk_residuals(left_out_effects(regression, RIDGES), few.values, few.scale)
            errors = np.square(residuals).mean((2, 3))[:, judged]
            choices = [TangentChoice(grouping, scaling, filters, ridge) for ridge in RIDGES]
            tried += zip(choices, errors.mean(1).tolist(), strict=True)
            if best is None or errors.mean(1).min() < best[0]:
                best = float(errors.mean(1).min()), errors, choices[strongest_ridge(errors)]
    if best is None:
        raise DataError("the kernels have no checkpoint that can be used: take them again with more checkpoints")
    _, errors, choice = best
    return _fit_choice(runs, references, choice, tried, bands)


def _fit_choice(
    runs: FittedRuns,
    references: list[ReferenceKernels],
    choice: TangentChoice,
    tried: list[tuple[TangentChoice, float]],
    bands: bool,
) -> TangentFit:
    """The fit of one setting to all runs at all measured steps."""
    kernels = mean_of_references(references, choice.grouping, choice.scaling)
    regression = Regression.of(filtered_kernels(runs, kernels, choice.filters), runs.latent)
    effects = left_out_effects(regression, (choice.ridge,))
    _, share, shares = shrunk_residuals(effects, runs.values, runs.scale)
    columns = unit_length(kernels.mean(0).T.numpy())
    reduction = fit_reduction(columns, TEST_COMPONENTS)
    psi = (columns - reduction.mean) @ reduction.axes
    relative = runs.rates / runs.reference_rate
    tau = np.concatenate([[0.0], relative.cumsum()])
    shape = (len(kernels), -1)

    def plain(weights: np.ndarray) -> np.ndarray:
        """Weights `[..., D]` for features that are not scaled, `[..., G, F]`."""
        return (weights / regression.size).reshape(*weights.shape[:-1], *shape)

    latent = runs.latent

    def arrays_of(which: np.ndarray, tests: np.ndarray, folds: np.ndarray, share: np.ndarray) -> dict[str, np.ndarray]:
        sums = regression.sums(which, folds)
        weights = sums.solution(choice.ridge)[:, 0]
        own = [np.einsum("sdm,d->sm", regression.features[run][..., tests], weights, optimize=True) for run in which]
        known = latent[which][..., tests]
        pairs = ((effect[None], each[None]) for effect, each in zip(own, known, strict=True))
        curves = mean_curve_arrays(pairs, np.mean(own, axis=0), known.mean(0), share, runs.step)
        return {
            **curves,
            **unseen_curves(curves["baseline"], known[:, 0], psi[tests]),
            "weights": plain(weights),
            "kernels": kernels[..., tests].numpy(),
            "encoder_mean": reduction.mean,
            "test_projection": reduction.axes,
            "tau": tau,
            "reference_rate": np.array(runs.reference_rate),
            **choice.filters.arrays(float(tau[-1])),
        }

    every_run, every_test = np.arange(len(runs.values)), np.arange(runs.values.shape[2])
    without = np.concatenate([each[..., 0] for each in regression.sums().without_each_run((choice.ridge,))])
    arrays = arrays_of(every_run, every_test, np.arange(FOLDS), share[0]) | {"weights_without": plain(without)}
    residuals = None
    if bands:

        def fit_some(which: np.ndarray, tests: np.ndarray, share: np.ndarray) -> TangentDynamics:
            some = arrays_of(which, tests, np.unique(tests % FOLDS), share)
            return tangent_dynamics(some, choice, runs.scale, int(runs.step[0]))

        grouped = kernels.float()
        examples = EncodedExamples(
            grouped.transpose(0, 1).flatten(1), grouped.mean(0).T, torch.arange(len(every_test)), grouped
        )
        left_out = LeftOutResiduals(fit_some, runs.visits, runs.rates, runs.step, runs.values, examples)
        residuals = left_out.of_seen(shares[0]), left_out.of_unseen(share[0])
    return TangentFit(choice, dict(tried)[choice], tried, arrays, residuals)


def tangent_dynamics(
    arrays: dict[str, np.ndarray], choice: TangentChoice, scale: Scale, first_step: int
) -> TangentDynamics:
    """The dynamics with these arrays, by name, of a metric first measured at `first_step`."""
    config = GPTfluenceConfig(
        dynamics="tangent",
        **scale.fields(),
        first_step=first_step,
        grouping=choice.grouping,
        encoder_width=len(arrays["encoder_mean"]),
        test_components=arrays["test_projection"].shape[1],
        pool_keys=[""] * arrays["kernels"].shape[1],
        test_keys=[""] * arrays["kernels"].shape[2],
        steps=len(arrays["tau"]) - 1,
        curve_components=CURVE_COMPONENTS,
        **{name: arrays[name].tolist() for name in ("decays", "fadings", "momenta", "forgettings")},
    )
    dynamics = TangentDynamics(config)
    empty = {"weights_without": np.zeros((0, *arrays["weights"].shape))}
    state = {name: torch.from_numpy(np.asarray(array)).float() for name, array in (empty | arrays).items()}
    dynamics.load_state_dict(state)
    return dynamics


class TangentFitter(SeparateFitter):
    """Coefficients that all test examples share, over kernels of reference runs."""

    dynamics = "tangent"

    def fit_part(self, settings: TrainSettings, part: Part, on_progress: OnProgress) -> PartFit:
        """See `SeparateFitter`."""
        chosen, config = part.runs.split("train", "validation"), part.config
        references = reference_kernels(part.runs)
        names = {each.run for each in references}
        fit = fit_tangent(
            FittedRuns.of(chosen, config.scale),
            references,
            np.array([run in names for run in chosen.runs]),
            settings.bands,
        )
        for name, values in asdict(fit.choice.filters).items():
            setattr(config, name, list(values))
        config.grouping, config.scaling, config.ridge = fit.choice.grouping, fit.choice.scaling, fit.choice.ridge
        config.references = [{"run": each.run, "step": each.step.tolist()} for each in references]
        config.fitted_runs = len(chosen.runs)
        config.test_components, config.curve_components = fit.arrays["test_projection"].shape[1], CURVE_COMPONENTS
        on_progress()
        weights = {name: torch.from_numpy(np.asarray(array)).float() for name, array in fit.arrays.items()}
        return PartFit(fit.choice, fit.error, fit.tried, weights, fit.residuals)
