"""Choosing k of N training examples for a target test set, each choice judged by really training on it.

A choice is simulated as if every batch were an even mixture of it, for as many updates, at the same rates, as the runs
that the simulator was trained on (`select_bound`); it is trained on in seeded orders, for the same number of updates
whatever it is. Every other test example is the target; the others, which no method sees, show what is owed to the
target alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from gptdynamics.configs import run_name
from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from gptdynamics.recorder.retraining import Recipe
from simulator.encoders import encode_cached, make_encoder
from simulator.ownership import prepare_results_folder
from simulator.reporting.notebook_result import NotebookResult
from simulator.reporting.result import Result
from simulator.settings.use_cases import SelectSettings
from simulator.use_cases.case import Case, load_case
from simulator.use_cases.recipe_trials import check_recipe, retrain_all
from simulator.use_cases.select_bound import MixtureBound, mixture_bound
from simulator.use_cases.select_methods import greedy, most_similar, one_shot
from simulator.use_cases.trial import Trial, time_trials
from simulator.use_cases.trials import train_all, trial_contents

# The default, at most.
COUNT = 32
CHOSEN = ("greedy", "one_shot", "tracin", "similarity", "length")


@dataclass(frozen=True, repr=False)
class Selection(NotebookResult):
    """Choices and what training on them gave. K trainings of a method: random choices, or orders of one choice.

    Attributes:
        config, metric: of what.
        higher_is_better: of the metric.
        updates: of every training.
        choices: `[K]` chosen pool ids, by method.
        target, others: ids of test examples.
        on_target, on_others: `[K]` final metric after training, by method; others may be empty.
        simulated: `[K]` simulated final metric on the target, by method.
        simulation_error: `[K]` how far off that may be, by method.
        seconds: of processor time of one training, or None.
        pool: the training examples that there were to choose from.
    """

    settings: SelectSettings
    config: str
    metric: str
    higher_is_better: bool
    updates: int
    choices: dict[str, list[list[int]]]
    target: list[int]
    others: list[int]
    on_target: dict[str, np.ndarray]
    on_others: dict[str, np.ndarray]
    simulated: dict[str, np.ndarray]
    simulation_error: dict[str, np.ndarray]
    seconds: float | None
    pool: tuple[Example, ...] = ()

    def result(self) -> Result:
        """Tables, figures and rows."""
        # The report builds on this module.
        from simulator.use_cases.select_report import selection_result

        return selection_result(self)


def cycled(chosen: Sequence[int], batch_size: int, steps: int, seed: int) -> Curriculum:
    """The chosen examples over and over, shuffled anew each time, in batches: `[steps][batch]`."""
    rng = np.random.default_rng([seed, 5])
    visits: list[int] = []
    while len(visits) < steps * batch_size:
        visits += rng.permutation(np.array(chosen)).tolist()
    return [visits[index * batch_size : (index + 1) * batch_size] for index in range(steps)]


def _target(settings: SelectSettings, fact: Dynamics) -> list[int]:
    ids = [example.id for example in fact.test]
    if not settings.test_ids:
        return list(range(0, len(ids), 2))
    unknown = [key for key in settings.test_ids if key not in ids]
    if unknown:
        raise SettingsError(f"no test example {unknown[0]} in {fact.config}; it has {ids[0]} to {ids[-1]}")
    return [ids.index(key) for key in settings.test_ids]


def choose(
    settings: SelectSettings, count: int, fact: Dynamics, target: list[int], bound: MixtureBound
) -> dict[str, list[list[int]]]:
    """Places that each method chooses, for each training: all but random choose the same each time.

    `tracin` is TracIn at the base model, as in LESS: the cosine of an example's gradient with those of the target.
    """
    size, pool = len(fact.pool), fact.pool

    def most_similar_by(kind: str) -> list[int]:
        encoder = make_encoder(kind, fact.base_model, tokenization=fact.tokenization)
        vectors = [encode_cached(encoder, each) for each in (pool, fact.test)]
        return most_similar(vectors[0], vectors[1][target], count)

    def longest(example: Example) -> int:
        return -len(example.prompt + example.target)

    fixed: dict[str, Callable[[], list[int]]] = {
        "greedy": partial(greedy, bound.worst, size, count),
        "one_shot": partial(one_shot, bound.expected, bound.worst, bound.centre, bound.kernel, count),
        "tracin": partial(most_similar_by, "gradient"),
        "similarity": partial(most_similar_by, "sentence"),
        "length": lambda: sorted(range(size), key=lambda index: longest(pool[index]))[:count],
    }
    drawn = [
        np.random.default_rng([seed, 6]).choice(size, size=count, replace=False).tolist()
        for seed in range(settings.random)
    ]
    return {"random": drawn, **{name: [fixed[name]()] * settings.seeds for name in CHOSEN}}


def _read(settings: SelectSettings) -> tuple[Case, Dynamics, int]:
    """Simulator and runs, the run whose updates are taken, and how many examples are chosen."""
    case = load_case(settings.model, settings.dataset, settings.config, settings.metric)
    fact = case.run()
    count = min(COUNT, max(fact.batch_size, len(fact.pool) // 2)) if settings.count is None else settings.count
    if count > len(fact.pool):
        raise SettingsError(f"count={count} is more than the {len(fact.pool)} examples of the pool")
    if count < fact.batch_size:
        raise SettingsError(f"count={count} does not fill a batch: give at least {fact.batch_size}")
    return case, fact, count


def trainings_of(settings: SelectSettings) -> tuple[int, int, float]:
    """How many real trainings there would be, of how many updates, and about how many processor seconds they take.

    Those that `output` has already are counted, too.

    Raises:
        GPTDynamicsError: model, dataset or settings do not fit.
    """
    _, fact, _ = _read(settings)
    check_recipe(fact, None, "select")
    _target(settings, fact)
    updates, count = len(fact.curricula[0]), settings.random + settings.seeds * len(CHOSEN)
    cost = time_trials(trial_contents(fact, fact.test, measured=2), fact.curricula[0], settings.devices[0])
    return count, updates, cost.opening + count * cost.training(updates, 2, len(fact.test))


def select(
    settings: SelectSettings,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
    recipe: Recipe | None = None,
) -> Selection:
    """Choose by every method, and train on every choice.

    Args:
        settings: what to choose.
        on_phase, on_progress: told of the trainings.
        recipe: trains on batches and records it; for recorded runs, see `gptdynamics.recorder.retraining`.

    Raises:
        GPTDynamicsError: model, dataset and settings do not fit, or a training diverged.
    """
    prepare_results_folder(settings.output)
    case, fact, count = _read(settings)
    target = _target(settings, fact)
    others = [index for index in range(len(fact.test)) if index not in set(target)]
    check_recipe(fact, recipe, "select")
    contents = None if recipe is not None else trial_contents(fact, fact.test, measured=2)
    bound = mixture_bound(case, fact, target)
    on_phase("choosing", 1)
    with torch.no_grad():
        places = choose(settings, count, fact, target, bound)
        chosen = [(name, each) for name, choices in places.items() for each in choices]
        weights = torch.zeros(len(chosen), len(fact.pool))
        for row, (_, each) in enumerate(chosen):
            weights[row, each] = 1.0
        simulated, error = bound.simulated(weights).numpy(), bound.error(weights).numpy()
    on_progress()
    ids = [example.id for example in fact.pool]
    steps, batch_size = len(fact.curricula[0]), fact.batch_size
    trials = [
        Trial(cycled([ids[index] for index in each], batch_size, steps, seed), run_name(seed))
        for choices in places.values()
        for seed, each in enumerate(choices)
    ]
    on_phase("training on the choices", len(trials))
    keep = settings.output / "trials"
    if recipe is not None:
        repeated = retrain_all(recipe, fact, [trial.curriculum for trial in trials], keep, on_progress)
        final, seconds = np.stack([each[:, -1] for each in repeated.results]), repeated.each
    else:
        assert contents is not None
        worked = train_all(contents, trials, keep, settings.devices, on_progress)
        final, seconds = np.stack([each.metrics[fact.metric][:, -1] for each in worked.results]), worked.each
    rows = {name: [index for index, (each, _) in enumerate(chosen) if each == name] for name in places}
    return Selection(
        settings=replace(settings, count=count),
        config=fact.config,
        metric=fact.metric,
        higher_is_better=case.higher_is_better(),
        updates=steps,
        choices={name: [[ids[index] for index in each] for each in choices] for name, choices in places.items()},
        target=[fact.test[index].id for index in target],
        others=[fact.test[index].id for index in others],
        on_target={name: final[index][:, target].mean(1) for name, index in rows.items()},
        on_others={name: final[index][:, others].mean(1) for name, index in rows.items()} if others else {},
        simulated={name: simulated[index] for name, index in rows.items()},
        simulation_error={name: error[index] for name, index in rows.items()},
        seconds=seconds,
        pool=tuple(fact.pool),
    )
