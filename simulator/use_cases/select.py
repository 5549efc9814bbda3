"""Choosing k of N training examples for a target test set, each choice judged by really training on it.

A choice is simulated as if every batch were an even mixture of it, for as many updates, at the same rates, as the runs
that the simulator was trained on; it is trained on in seeded orders, for the same number of updates whatever it is.
Every other test example is the target; the others, which no method sees, show what is owed to the target alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gptdynamics.configs import run_name
from gptdynamics.curriculum import Curriculum
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from simulator.encoders import encode_cached, make_encoder
from simulator.use_cases.case import load_case
from simulator.use_cases.trials import Stage, Trial, stage_of, train_all
from simulator.what_if import CHUNK, Situation

Outcome = Callable[[torch.Tensor], np.ndarray]
"""Of weights `[choices, N]`: the simulated final metric, mean over the target, lower is better: `[choices]`."""


@dataclass(frozen=True)
class SelectSettings:
    """What one `select` does.

    Attributes:
        model: the simulator, a folder or Hub id.
        dataset: with the texts of its runs.
        output: folder; what is trained is kept there.
        count: k, training examples to choose.
        test_ids: the target; none: every other test example.
        seeds: trainings of each choice, and random choices.
        workers: processes; None: one a core.
        config, metric: which part of a simulator of several.
    """

    model: str
    dataset: str
    output: Path
    count: int = 32
    test_ids: tuple[int, ...] = ()
    seeds: int = 3
    workers: int | None = None
    config: str | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingsError(f"count={self.count} leaves nothing to train on: it must be at least 1")
        if self.seeds < 1:
            raise SettingsError(f"seeds={self.seeds} must be at least 1")


@dataclass(frozen=True)
class Selection:
    """Choices and what training on them gave. K seeds.

    Attributes:
        settings: what was asked for.
        config, metric: of what.
        higher_is_better: of the metric.
        updates: of every training.
        choices: `[K]` chosen pool ids, by method.
        target, others: ids of test examples.
        on_target, on_others: `[K]` final metric after training, by method; others may be empty.
        simulated: `[K]` simulated final metric on the target, by method.
        seconds: of processor time of one training, or None.
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
    seconds: float | None


def simulated_outcome(
    situation: Situation, rates: Sequence[float], target: Sequence[int], higher_is_better: bool
) -> Outcome:
    """What `greedy` and `one_shot` look for.

    Args:
        situation: model, pool and test examples.
        rates: of each update.
        target: places of test examples.
        higher_is_better: of the metric; then the outcome is its negative.
    """
    steps, sign = len(rates), -1.0 if higher_is_better else 1.0

    def outcome(weights: torch.Tensor) -> np.ndarray:
        shares = weights / weights.sum(1, keepdim=True)
        found = []
        for part in shares.split(CHUNK):
            visits = part.unsqueeze(1).expand(-1, steps, -1)
            final = situation.trajectories(visits, torch.tensor([list(rates)]))[:, -1, list(target)]
            found.append(sign * final.mean(1))
        return torch.cat(found).numpy()

    return outcome


def greedy(outcome: Outcome, size: int, count: int) -> list[int]:
    """Add, one at a time, the example with which the simulated outcome is best: `count` places of `size`."""
    chosen: list[int] = []
    for _ in range(count):
        left = [at for at in range(size) if at not in set(chosen)]
        weights = torch.zeros(len(left), size)
        weights[:, chosen] = 1.0
        weights[torch.arange(len(left)), left] = 1.0
        chosen.append(left[int(outcome(weights).argmin())])
    return chosen


def one_shot(outcome: Outcome, size: int, count: int) -> list[int]:
    """The examples whose double weight, in a mixture of all, gives the best simulated outcome."""
    return np.argsort(outcome(torch.ones(size, size) + torch.eye(size)), kind="stable")[:count].tolist()


def most_alike(pool: np.ndarray, target: np.ndarray, count: int) -> list[int]:
    """The places of pool vectors `[N, E]` with the largest mean cosine to target vectors `[M, E]`."""
    pool, target = (each / np.linalg.norm(each, axis=1, keepdims=True).clip(min=1e-12) for each in (pool, target))
    return np.argsort(-(pool @ target.mean(0)), kind="stable")[:count].tolist()


def cycled(chosen: Sequence[int], batch_size: int, steps: int, seed: int) -> Curriculum:
    """The chosen examples over and over, shuffled anew each time, in batches: `[steps][batch]`."""
    rng = np.random.default_rng([seed, 5])
    visits: list[int] = []
    while len(visits) < steps * batch_size:
        visits += rng.permutation(np.array(chosen)).tolist()
    return [visits[at * batch_size : (at + 1) * batch_size] for at in range(steps)]


def _target(settings: SelectSettings, fact: Dynamics) -> list[int]:
    ids = [example.id for example in fact.test]
    if not settings.test_ids:
        return list(range(0, len(ids), 2))
    unknown = [key for key in settings.test_ids if key not in ids]
    if unknown:
        raise SettingsError(f"no test example {unknown[0]} in {fact.config}; it has {ids[0]} to {ids[-1]}")
    return [ids.index(key) for key in settings.test_ids]


def choose(settings: SelectSettings, fact: Dynamics, target: list[int], outcome: Outcome) -> dict[str, list[list[int]]]:
    """Places that each method chooses, for each seed: all but random choose the same each time.

    `tracin` is TracIn at the base model, as in LESS: the cosine of an example's gradient with those of the target.
    """
    size, count, pool = len(fact.pool), settings.count, fact.pool

    def alike(kind: str) -> list[int]:
        encoder = make_encoder(kind, fact.base_model)
        vectors = [encode_cached(encoder, each) for each in (pool, fact.test)]
        return most_alike(vectors[0], vectors[1][target], count)

    def longest(example: Example) -> int:
        return -len(example.prompt + example.target)

    fixed: dict[str, Callable[[], list[int]]] = {
        "greedy": partial(greedy, outcome, size, count),
        "one_shot": partial(one_shot, outcome, size, count),
        "tracin": partial(alike, "gradient"),
        "similarity": partial(alike, "sentence"),
        "length": lambda: sorted(range(size), key=lambda at: longest(pool[at]))[:count],
    }
    drawn = [
        np.random.default_rng([seed, 6]).choice(size, size=count, replace=False).tolist()
        for seed in range(settings.seeds)
    ]
    return {"random": drawn, **{name: [find()] * settings.seeds for name, find in fixed.items()}}


def select(
    settings: SelectSettings,
    on_phase: Callable[[str, int], None] = lambda name, total: None,
    on_progress: Callable[[], None] = lambda: None,
) -> Selection:
    """Choose by every method, and train on every choice.

    Args:
        settings: what to do.
        on_phase, on_progress: as in `train_simulator`.

    Raises:
        GPTDynamicsError: model, dataset and settings do not fit, or a training diverged.
    """
    case = load_case(settings.model, settings.dataset, settings.config, settings.metric)
    fact = case.run()
    _check_count(settings, fact)
    target = _target(settings, fact)
    others = [at for at in range(len(fact.test)) if at not in set(target)]
    stage: Stage = stage_of(fact, fact.test, measured=2)
    run = case.model.what_if(fact)
    better = case.higher_is_better()
    outcome = simulated_outcome(run.situation, run.learning_rate, target, better)
    on_phase("choosing", 1)
    places = choose(settings, fact, target, outcome)
    on_progress()
    ids = [example.id for example in fact.pool]
    steps, batch_size = len(fact.curricula[0]), fact.batch_size
    trials = [
        Trial(cycled([ids[at] for at in chosen], batch_size, steps, seed), run_name(seed))
        for each in places.values()
        for seed, chosen in enumerate(each)
    ]
    on_phase("training on the choices", len(trials))
    worked = train_all(stage, trials, settings.output / "trials", settings.workers, on_progress)
    final = np.stack([each.metrics[fact.metric][-1] for each in worked.found])
    final = final.reshape(len(places), settings.seeds, -1)
    weights = torch.zeros(len(places) * settings.seeds, len(ids))
    for row, chosen in enumerate(chosen for each in places.values() for chosen in each):
        weights[row, chosen] = 1.0
    simulated = (outcome(weights) * (-1 if better else 1)).reshape(len(places), -1)
    names = list(places)
    return Selection(
        settings=settings,
        config=fact.config,
        metric=fact.metric,
        higher_is_better=better,
        updates=steps,
        choices={name: [[ids[at] for at in chosen] for chosen in each] for name, each in places.items()},
        target=[fact.test[at].id for at in target],
        others=[fact.test[at].id for at in others],
        on_target={name: final[at][:, target].mean(1) for at, name in enumerate(names)},
        on_others={name: final[at][:, others].mean(1) for at, name in enumerate(names)} if others else {},
        simulated={name: simulated[at] for at, name in enumerate(names)},
        seconds=worked.each,
    )


def _check_count(settings: SelectSettings, fact: Dynamics) -> None:
    if settings.count > len(fact.pool):
        raise SettingsError(f"count={settings.count} is more than the {len(fact.pool)} examples of the pool")
    if settings.count < fact.batch_size:
        raise SettingsError(f"count={settings.count} does not fill a batch of {fact.batch_size}")
