"""How far a simulator can be trusted: counterfactual runs, simulated and really trained.

Where the dataset has the run made again with rows left out, those retrainings are taken, and none are trained for it.
Nothing of the counterfactual runs is given to any method: the simulator gets the first values of the run that they
are changes of, TracIn the gradient products of that run, the mean curve the training runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from gptdynamics.configs import run_parts
from gptdynamics.curriculum import visited_rows
from gptdynamics.dataset import Dynamics, read_dynamics
from gptdynamics.dataset.gradient_reading import has_products, read_products
from gptdynamics.errors import SettingsError
from gptdynamics.recorder.retraining import Recipe
from gptdynamics.runs import BenchContents
from simulator.attribution.counterfactuals import Counterfactual, draw_counterfactuals
from simulator.baselines import MeanCurve
from simulator.baselines.tracin import product_changes, test_places
from simulator.evaluation.selection import evenly_spaced
from simulator.model.curricula import visit_shares
from simulator.model.intervals import coverage
from simulator.model.what_if import WhatIf, simulate_many
from simulator.ownership import prepare_results_folder
from simulator.reporting.notebook_result import NotebookResult
from simulator.reporting.result import Result
from simulator.settings.use_cases import ValidateSettings
from simulator.use_cases.case import Case, load_case
from simulator.use_cases.recipe_trials import check_recipe, retrain_all
from simulator.use_cases.trial import Trial, time_trials
from simulator.use_cases.trials import train_all, trial_contents

# The default, at most.
TESTS = 50
LEFT_OUT = "leave_out"
# Fewer retrainings than a validation trains of a kind at least are no ranking.
FEWEST = 3
LEVELS = (0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True, repr=False)
class Validation(NotebookResult):
    """Counterfactual runs and what was predicted of them. R runs, S measured steps, M test examples.

    Attributes:
        config, metric, run: of the run that was changed.
        kinds: `[R]` of the runs; the first `recorded` of them are of the dataset.
        step: `[S]`.
        truth: `[R, M, S]` as trained.
        predicted: `[R, M, S]` by method.
        bands: lower and upper ends `[R, M, S]` by level, of those levels that the simulator has.
        simulated_seconds: of processor time, for all runs.
        trained_seconds: of processor time, for one run; None if all had been trained before.
    """

    settings: ValidateSettings
    config: str
    metric: str
    run: str
    kinds: list[str]
    step: np.ndarray
    truth: np.ndarray
    predicted: dict[str, np.ndarray]
    bands: dict[float, tuple[np.ndarray, np.ndarray]]
    simulated_seconds: float
    trained_seconds: float | None
    recorded: int = 0

    def result(self) -> Result:
        """Tables, figures and rows."""
        # The report builds on this module.
        from simulator.use_cases.validate_report import validation_result

        return validation_result(self)


@dataclass(frozen=True)
class _Drawn:
    """The counterfactuals of a case, the test examples they are measured on, and what they are trained on.

    The first of the changes are those of `recorded` runs of the dataset, if there are any; others are trained.
    """

    case: Case
    fact: Dynamics
    test_indices: list[int]
    changes: list[Counterfactual]
    recorded: Dynamics | None
    contents: BenchContents | None


def _draw(settings: ValidateSettings, recipe: Recipe | None = None) -> _Drawn:
    case = load_case(settings.model, settings.dataset, settings.config, settings.metric)
    fact = case.run(settings.run)
    ours = not check_recipe(fact, recipe, "validate")
    count = len(fact.test)
    if (settings.test_examples or 1) > count:
        raise SettingsError(f"test_examples={settings.test_examples}, but {fact.config} has {count}")
    test_indices = evenly_spaced(count, settings.test_examples or min(TESTS, count))
    contents = None
    if ours:
        contents = trial_contents(fact, [fact.test[index] for index in test_indices], settings.measured)
    run = case.model.what_if(fact)
    changes = draw_counterfactuals(run, settings.each, settings.share, settings.seed)
    recorded = _recorded(fact)
    if recorded is not None:
        left_out = [visited_rows(fact.curricula[0]) - visited_rows(curriculum) for curriculum in recorded.curricula]
        others = [change for change in changes if change.kind != LEFT_OUT]
        changes = [*[Counterfactual(LEFT_OUT, run.drop(rows)) for rows in left_out], *others]
    return _Drawn(case, fact, test_indices, changes, recorded, contents)


def _recorded(fact: Dynamics) -> Dynamics | None:
    """The retrainings of a run that the dataset has, on the same test examples; None where they are too few."""
    every = read_dynamics(fact.source, fact.config, fact.metric, counterfactual=True)
    chosen = [index for index, run in enumerate(every.runs) if run_parts(run).base == fact.runs[0]]
    return every.take(chosen) if len(chosen) >= FEWEST and every.test == fact.test else None


def trainings_of(settings: ValidateSettings) -> tuple[int, int, int, float]:
    """How many real trainings there would be, of how many updates, measured on how many test examples.

    And about how many processor seconds they take.

    Those that `output` has already are counted, too.

    Raises:
        GPTDynamicsError: model, dataset or settings do not fit.
    """
    drawn = _draw(settings)
    recorded = len(drawn.recorded.runs) if drawn.recorded is not None else 0
    count, updates = len(drawn.changes) - recorded, len(drawn.fact.curricula[0])
    assert drawn.contents is not None
    cost = time_trials(drawn.contents, drawn.fact.curricula[0], settings.devices[0])
    tests = len(drawn.test_indices)
    return count, updates, tests, cost.opening + count * cost.training(updates, settings.measured, tests)


def validate(
    settings: ValidateSettings,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
    recipe: Recipe | None = None,
) -> Validation:
    """Draw, simulate and train counterfactual runs.

    Args:
        settings: which.
        on_phase, on_progress: told of the trainings.
        recipe: trains on batches and records it; for recorded runs, see `gptdynamics.recorder.retraining`.

    Raises:
        GPTDynamicsError: model, dataset or settings do not fit, or a training diverged.
    """
    prepare_results_folder(settings.output)
    drawn = _draw(settings, recipe)
    fact, case = drawn.fact, drawn.case
    alternatives = [change.run for change in drawn.changes]
    began = time.process_time()
    values = simulate_many(alternatives)
    simulated_seconds = time.process_time() - began
    recorded = len(drawn.recorded.runs) if drawn.recorded is not None else 0
    on_phase("real trainings", len(alternatives) - recorded)
    truth, step, seconds = _train(drawn, alternatives[recorded:], settings, recipe, on_progress)
    if drawn.recorded is not None:
        # What is compared must be measured at the same steps.
        step, ours, theirs = np.intersect1d(step, drawn.recorded.step, return_indices=True)
        recorded_values = drawn.recorded.values[:, drawn.test_indices][..., theirs]
        truth = np.concatenate([recorded_values, truth[..., ours]])
    bands: dict[float, tuple[np.ndarray, np.ndarray]] = {}
    for level in LEVELS:
        band = _band(case, alternatives[0], values, level)
        if band is not None:
            bands[level] = (_at(band[0], step, drawn.test_indices), _at(band[1], step, drawn.test_indices))
    seen = case.runs.split("train", "validation")
    curves = MeanCurve(seen).curve[drawn.test_indices]
    mean = np.stack([np.interp(step, fact.step, curve) for curve in curves])
    predicted = {case.method: _at(values, step, drawn.test_indices)}
    predicted["mean_curve"] = np.repeat(mean[None], len(truth), 0)
    traced = tracin(fact, drawn.test_indices, alternatives, step)
    if traced is not None:
        predicted["tracin_cp_10"] = traced
    return Validation(
        settings=replace(settings, test_examples=len(drawn.test_indices)),
        config=fact.config,
        metric=fact.metric,
        run=fact.runs[0],
        kinds=[change.kind for change in drawn.changes],
        step=step,
        truth=truth,
        predicted=predicted,
        bands=bands,
        simulated_seconds=simulated_seconds,
        trained_seconds=seconds,
        recorded=recorded,
    )


def _train(
    drawn: _Drawn,
    alternatives: list[WhatIf],
    settings: ValidateSettings,
    recipe: Recipe | None,
    on_progress: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """True values `[R, M, S]`, the S steps that they are of, and the processor seconds of one training."""
    fact, keep = drawn.fact, settings.output / "trials"
    if recipe is not None:
        places = evenly_spaced(len(fact.step), min(settings.measured, len(fact.step)))
        repeated = retrain_all(recipe, fact, [_plain(each) for each in alternatives], keep, on_progress)
        values = np.stack(repeated.results)[:, drawn.test_indices][..., places]
        return values, fact.step[places], repeated.each
    assert drawn.contents is not None
    trials = [Trial(_plain(each), fact.runs[0]) for each in alternatives]
    worked = train_all(drawn.contents, trials, keep, settings.devices, on_progress)
    trained = worked.results
    step = np.array(trained[0].generation_step if fact.definition.needs_text else trained[0].step)
    return np.stack([run.metrics[fact.metric] for run in trained]), step, worked.each


def _plain(run: WhatIf) -> list[list[int]]:
    return [list(batch) for batch in run.curriculum]


def _at(values: torch.Tensor, step: np.ndarray, test_indices: list[int]) -> np.ndarray:
    """`[R, M, T + 1]` at measured steps, of some test examples: `[R, m, S]`."""
    return values[:, test_indices][:, :, torch.from_numpy(step)].numpy()


def _band(case: Case, run: WhatIf, values: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Ends of the band, `[R, M, T + 1]` each; None if the simulator has none of this level."""
    if case.model.config.calibration_runs / (case.model.config.calibration_runs + 1) < level:
        return None
    return case.model.band(values, run.situation.examples.seen, level)


def tracin(fact: Dynamics, test_indices: list[int], alternatives: list[WhatIf], step: np.ndarray) -> np.ndarray | None:
    """What TracIn predicts of changed runs by the gradients of the run itself: `[R, M, S]`; None if none are recorded.

    Each visit changes a test loss by - eta / |batch| times the product of the two gradients at the last of ten
    checkpoints of the unchanged run (eq. 2), exact over all trainable parameters.

    Args:
        fact: the unchanged run.
        places: of the M test examples.
        alternatives: R changes of it.
        step: `[S]` measured steps.
    """
    if fact.metric != "loss" or not has_products(fact.source, fact.config, fact.runs[0]):
        return None
    products = read_products(fact.source, fact.config, fact.runs[0])
    values = products.values[:, :, test_places(fact, products.test_ids, fact.runs[0])][:, :, test_indices]
    curricula, weights = [each.curriculum for each in alternatives], [each.weights for each in alternatives]
    shares = visit_shares(curricula, products.pool_ids, weights).numpy()
    rates = np.array([each.learning_rate for each in alternatives])
    changes = product_changes(values, products.step, shares, rates)
    sums = np.pad(changes.cumsum(-1), ((0, 0), (0, 0), (1, 0)))[..., step]
    return (fact.values[0, test_indices, :1] + sums).astype(np.float32)


def covered(validation: Validation, level: float, kinds: tuple[str, ...]) -> tuple[float, float | None]:
    """Share of true values inside the band of a level, and its standard error by run; the first step is left out."""
    chosen = [index for index, kind in enumerate(validation.kinds) if kind in kinds]
    low, high = (each[chosen, :, 1:] for each in validation.bands[level])
    share = coverage(validation.truth[chosen, :, 1:], low, high)
    return share.share, share.uncertainty
