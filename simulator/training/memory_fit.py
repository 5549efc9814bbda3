"""Fitting `dynamics="memory"`: ridge regression in closed form, settings chosen by leaving one run out.

What the fits without a run predict is compared with that run at every step. Where they predict too much (mostly at the
end of a run, whose rates are too small to change anything), effects are shrunk to the share that was real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from gptdynamics.errors import DataError, SettingsError
from simulator.model.configuration_gptfluence import Scale, scale_of
from simulator.model.curricula import Members
from simulator.model.dynamics import EncodedExamples
from simulator.model.memory_dynamics import MemoryDynamics
from simulator.settings.train import TrainSettings
from simulator.training.fitter import OnProgress, Part, PartFit, Residuals, SeparateFitter, check_one_schedule
from simulator.training.leave_one_run_out import leave_one_run_out
from simulator.training.left_out_residuals import LeftOutResiduals
from simulator.training.mean_curve_fit import CURVE_COMPONENTS
from simulator.training.memory_arrays import Chunk, fit_arrays, memory_dynamics
from simulator.training.memory_states import (
    FEW,
    MANY,
    TUNED_RUNS,
    Filters,
    centred_components,
    fit_reduction,
    likeness,
    spread,
    states_of,
    unit_length,
)

LOSS = scale_of("loss")
# One of the six runs that a simulator needs is a test run.
FEWEST_RUNS = 5
TEST_COMPONENTS = 64

FILTERS = (FEW, MANY)
COMPONENTS = (1, 8)
RIDGES = (1e-6, 1e-4, 1e-2, 1.0)


@dataclass(frozen=True)
class MemoryChoice:
    """One setting: principal components of the pool's vectors, time constants, and relative penalty on responses."""

    components: int
    filters: Filters
    ridge: float


@dataclass(frozen=True)
class MemoryFit:
    """The best setting, its error on runs left out before effects are limited, and the arrays of `MemoryDynamics`."""

    choice: MemoryChoice
    error: float
    tried: list[tuple[MemoryChoice, float]]
    arrays: dict[str, np.ndarray]
    residuals: Residuals | None


def choices() -> list[MemoryChoice]:
    """Every setting that is tried."""
    return [MemoryChoice(*values) for values in product(COMPONENTS, FILTERS, RIDGES)]


def fit_memory(
    visits: Members,
    rates: np.ndarray,
    step: np.ndarray,
    values: np.ndarray,
    pool: np.ndarray,
    test: np.ndarray,
    scale: Scale = LOSS,
    bands: bool = True,
) -> MemoryFit:
    """Choose settings by leaving one run out, then fit on all runs.

    Args:
        visits: pool examples of each batch and their shares, `[R, T, W]`.
        rates: `[R, T]` learning rates, the same in every run.
        step: `[S]` measured steps.
        values: `[R, M, S]`; it may be a mapped file, of which at most `TUNED_RUNS` runs are in memory at once.
        pool, test: `[N, E]` and `[M, E]` encoder vectors.
        scale: of the metric.
        bands: whether to compute residuals of fits without some of the runs.

    Raises:
        DataError: there are too few runs, or their learning rates differ.
    """
    if len(values) < FEWEST_RUNS:
        raise DataError(
            f"memory dynamics need at least {FEWEST_RUNS} training and validation runs; there are {len(values)}: "
            f"collect at least {FEWEST_RUNS + 1} runs, one of which is for testing"
        )
    if np.abs(rates - rates[0]).max() > 1e-6 * rates.max():
        raise DataError("runs with different learning rates cannot be fitted together")
    # Runs that learn nothing have a rate of zero throughout.
    reference = float(rates.max()) or 1.0
    relative = rates[0] / reference
    chosen = spread(len(values), TUNED_RUNS)
    few_visits, few_values = visits.take(chosen), values[chosen].astype(np.float64)
    pool, test = unit_length(pool.astype(np.float64)), unit_length(test.astype(np.float64))
    reduction = fit_reduction(np.concatenate([pool, test]), max(TEST_COMPONENTS, *COMPONENTS))
    psi_test = (test - reduction.mean) @ reduction.axes
    covariance = likeness(psi_test)
    tried: list[tuple[MemoryChoice, float]] = []
    share, shares, best = np.empty(0), np.empty(0), np.inf
    for components, filters in product(COMPONENTS, FILTERS):
        states, _ = states_of(few_visits, relative, centred_components(pool, reduction, components), filters)
        results = leave_one_run_out(states[:, step], few_values, covariance, RIDGES, scale)
        for ridge, residual, of_all, of_others in zip(RIDGES, *results, strict=True):
            tried.append((MemoryChoice(components, filters, ridge), float(np.square(residual).mean())))
            if tried[-1][1] < best:
                share, shares, best = of_all, of_others, tried[-1][1]
    choice, error = min(tried, key=lambda pair: pair[1])
    psi = centred_components(pool, reduction, choice.components)
    states, state_scale = states_of(few_visits, relative, psi, choice.filters)
    few = states[:, step], few_values

    def chunks() -> Iterator[Chunk]:
        if len(chosen) == len(values):
            yield few
            return
        for part in np.array_split(np.arange(len(values)), -(-len(values) // TUNED_RUNS)):
            states, _ = states_of(visits.take(part), relative, psi, choice.filters, state_scale)
            yield states[:, step], values[part].astype(np.float64)

    train_axes = reduction.train_axes(choice.components)
    tau = np.concatenate([[0.0], relative.cumsum()])
    common = {
        "encoder_mean": reduction.mean,
        "train_projection": train_axes,
        "test_projection": reduction.axes,
        "pool_centre": ((pool - reduction.mean) @ train_axes).mean(0),
        "state_scale": state_scale,
        "tau": tau,
        "reference_rate": np.array(reference),
        **choice.filters.arrays(float(tau[-1])),
    }
    arrays = fit_arrays(chunks, psi_test, choice.ridge, share, step, scale) | common

    def fit_some(runs: np.ndarray, tests: np.ndarray, share: np.ndarray) -> MemoryDynamics:
        part = [(few[0][runs], few_values[np.ix_(runs, tests)])]
        some = fit_arrays(lambda: iter(part), psi_test[tests], choice.ridge, share, step, scale)
        return memory_dynamics(some | common, scale, int(step[0]))

    pool_vectors, test_vectors = (torch.from_numpy(each).float() for each in (pool, test))
    examples = EncodedExamples(pool_vectors, test_vectors, torch.arange(len(test)))
    left_out = LeftOutResiduals(fit_some, few_visits, rates[0], step, few_values, examples)
    return MemoryFit(
        choice=MemoryChoice(train_axes.shape[1], choice.filters, choice.ridge),
        error=error,
        tried=tried,
        arrays={name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()},
        residuals=(left_out.of_seen(shares), left_out.of_unseen(share)) if bands else None,
    )


class MemoryFitter(SeparateFitter):
    """Mean curves and ridge regressions; a setting is checked on runs left out."""

    dynamics = "memory"

    @classmethod
    def check_settings(cls, settings: TrainSettings) -> None:
        """See `Fitter`."""
        if settings.encoder == "index":
            raise SettingsError(
                "memory needs vectors that say which examples are similar; index is for --dynamics markov"
            )
        if settings.order != 1:
            raise SettingsError(f"order={settings.order} is of markov; memory is given one value")

    @classmethod
    def check_runs(cls, settings: TrainSettings, runs: Dynamics, name: str) -> None:
        """See `Fitter`."""
        check_one_schedule(runs, name)

    def fit_part(self, settings: TrainSettings, part: Part, on_progress: OnProgress) -> PartFit:
        """See `SeparateFitter`."""
        chosen, config = part.runs.split("train", "validation"), part.config
        every = range(chosen.learning_rate.shape[1] + 1)
        fit = fit_memory(
            Members.between(chosen.curricula, [example.id for example in part.runs.pool], every),
            chosen.learning_rate,
            chosen.step,
            chosen.values,
            part.pool,
            part.test,
            config.scale,
            settings.bands,
        )
        config.components, config.test_components = fit.choice.components, fit.arrays["test_projection"].shape[1]
        for name, values in asdict(fit.choice.filters).items():
            setattr(config, name, list(values))
        config.curve_components, config.ridge = CURVE_COMPONENTS, fit.choice.ridge
        on_progress()
        weights = {name: torch.from_numpy(array) for name, array in fit.arrays.items()}
        return PartFit(fit.choice, fit.error, fit.tried, weights, fit.residuals)
