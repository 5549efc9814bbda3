"""What a run would have been with other data: edits of a curriculum, simulated one or thousands at a time.

The weight of a visit multiplies the example's part of its batch; the batch's step is the weighted mean, so a
weight of zero is the same as dropping the example from the batch. A batch left empty makes no update. Steps are
numbered from 1: step t ends with the metric after t updates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .curricula import visit_shares
from .display import unit_of
from .dynamics import EncodedExamples, SimulationInputs
from .example_encoding import given_examples
from .trajectories import Band, Measured, Trajectories

if TYPE_CHECKING:
    from .modeling_gptfluence import GPTfluenceSimulator

# Curricula simulated at once; keeps the shares of a thousand pool examples well within a processor's memory.
CHUNK = 64
# A run of fewer rows than this share of what any training run had is unlike them; leaving some out is not.
FEWER = 0.5


@dataclass(frozen=True, eq=False)
class Situation:
    """What stays the same while a curriculum is changed. N pool examples, M test examples.

    Attributes:
        simulator: the model.
        pool_ids: N ids.
        test_ids: M ids.
        examples: what the model knows of them.
        initial: `[1, M, n]` first values, or None.
    """

    simulator: GPTfluenceSimulator
    pool_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    examples: EncodedExamples
    initial: torch.Tensor | None

    @torch.no_grad()
    def trajectories(self, visits: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """`[runs, M, steps + 1]` from shares `[runs, steps, N]` and rates `[runs or 1, steps]`."""
        pool = self.examples.pool
        inputs = SimulationInputs(visits.to(pool), rates.to(pool), self.examples, self.initial)
        values: torch.Tensor = self.simulator.dynamics.trajectories(inputs)
        return values


@dataclass(frozen=True, eq=False, repr=False)
class WhatIf:
    """A run, possibly changed. Every change gives a new one and leaves this as it is.

    Attributes:
        situation: the model, the pool, the test examples and their first values.
        curriculum: ids of each step's batch.
        weights: of each visit.
        learning_rate: of each step.
        measured: of a recorded run that is not changed, the M values at each measured step.
    """

    situation: Situation
    curriculum: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    learning_rate: tuple[float, ...]
    measured: Measured | None = None

    def __repr__(self) -> str:
        visited = {key for batch in self.curriculum for key in batch}
        config = self.situation.simulator.config
        text = (
            f"run of {config.dataset_config} for {config.metric}: {len(self.curriculum)} steps, "
            f"{len(visited)} of {len(self.situation.pool_ids)} training examples, "
            f"{len(self.situation.test_ids)} test examples"
        )
        return "\n".join([text, *(f"beyond what the model was trained on: {each}" for each in self.beyond)])

    def _steps(self, steps: Iterable[int] | None) -> set[int]:
        """Steps from 0 on, of step numbers from 1 on."""
        if steps is None:
            return set(range(len(self.curriculum)))
        chosen = {step - 1 for step in steps}
        outside = [step + 1 for step in chosen if not 0 <= step < len(self.curriculum)]
        if outside:
            raise ValueError(f"there is no step {outside[0]}; the run has steps 1 to {len(self.curriculum)}")
        return chosen

    def _check_ids(self, ids: Iterable[int]) -> set[int]:
        unique_ids = set(ids)
        unknown = unique_ids - set(self.situation.pool_ids)
        if unknown:
            raise ValueError(f"example {min(unknown)} is not in the pool")
        return unique_ids

    def _changed(self, visits: list[list[tuple[int, float]]]) -> WhatIf:
        return replace(
            self,
            curriculum=tuple(tuple(key for key, _ in batch) for batch in visits),
            weights=tuple(tuple(weight for _, weight in batch) for batch in visits),
            measured=None,
        )

    def _visits(self) -> list[list[tuple[int, float]]]:
        pairs = zip(self.curriculum, self.weights, strict=True)
        return [list(zip(batch, weights, strict=True)) for batch, weights in pairs]

    def drop(self, ids: Iterable[int], steps: Iterable[int] | None = None) -> WhatIf:
        """Without these examples, at these steps or everywhere; the rest of a batch makes up its mean.

        A batch that is left empty makes no update, and its learning rate passes.

        Raises:
            ValueError: an id or a step is unknown. So of every change.
        """
        dropped, chosen_steps = self._check_ids(ids), self._steps(steps)
        visits = self._visits()
        return self._changed(
            [[v for v in batch if step not in chosen_steps or v[0] not in dropped] for step, batch in enumerate(visits)]
        )

    def add(self, ids: Iterable[int], steps: Iterable[int]) -> WhatIf:
        """These examples besides what is in the batches of these steps."""
        more, chosen_steps = list(ids), self._steps(steps)
        self._check_ids(more)
        new = [(key, 1.0) for key in more]
        visits = enumerate(self._visits())
        return self._changed([batch + new if step in chosen_steps else batch for step, batch in visits])

    def replace(self, others: Mapping[int, int], steps: Iterable[int] | None = None) -> WhatIf:
        """Each of these examples by another, at these steps or everywhere: `{old id: new id}`."""
        self._check_ids([*others.keys(), *others.values()])
        chosen_steps = self._steps(steps)
        return self._changed(
            [
                [(others.get(key, key), weight) if step in chosen_steps else (key, weight) for key, weight in batch]
                for step, batch in enumerate(self._visits())
            ]
        )

    def reorder(self, order: Sequence[int]) -> WhatIf:
        """The batches in another order: step t has the batch that step `order[t - 1]` had; rates stay in place."""
        if sorted(order) != list(range(1, len(self.curriculum) + 1)):
            raise ValueError(f"order must name each step from 1 to {len(self.curriculum)} once")
        visits = self._visits()
        return self._changed([visits[step - 1] for step in order])

    def repeat(self, times: int) -> WhatIf:
        """The whole curriculum so many times over; the schedule is stretched to the new length."""
        if times < 1:
            raise ValueError(f"times={times} must be at least 1")
        steps = len(self.learning_rate)
        # The middle of each update of the old schedule, along the new one.
        positions = (np.arange(steps * times) + 0.5) / times - 0.5
        rates = np.interp(positions, np.arange(steps), self.learning_rate)
        longer = self._changed(self._visits() * times)
        return longer.schedule(rates.tolist())

    def reweigh(self, weights: Mapping[int, float], steps: Iterable[int] | None = None) -> WhatIf:
        """Visits of these examples with another weight, at these steps or everywhere: `{id: weight}`."""
        self._check_ids(weights)
        wrong = [weight for weight in weights.values() if not 0 <= weight < float("inf")]
        if wrong:
            raise ValueError(f"weight {wrong[0]} must be finite and at least 0")
        chosen_steps = self._steps(steps)
        return self._changed(
            [
                [(key, weights.get(key, weight) if step in chosen_steps else weight) for key, weight in batch]
                for step, batch in enumerate(self._visits())
            ]
        )

    def schedule(self, learning_rate: Sequence[float]) -> WhatIf:
        """Another learning rate of each step."""
        if len(learning_rate) != len(self.curriculum):
            raise ValueError(
                f"the curriculum has {len(self.curriculum)} steps, the learning rates {len(learning_rate)}: give "
                "learning_rate, one a step"
            )
        if not all(0 <= rate < float("inf") for rate in learning_rate):
            raise ValueError("learning rates must be finite and at least 0")
        return replace(self, learning_rate=tuple(float(rate) for rate in learning_rate), measured=None)

    @property
    def beyond(self) -> tuple[str, ...]:
        """In which ways this goes beyond the runs that the model was trained on; nothing: it is like them."""
        config = self.situation.simulator.config
        trained_rates = config.learning_rate
        differences = []
        if len(self.curriculum) != config.steps:
            differences.append(f"{len(self.curriculum)} steps, trained on {config.steps}")
        # Rates are stored as float32.
        same_length = len(self.learning_rate) == len(trained_rates)
        if not same_length or not np.allclose(self.learning_rate, trained_rates, rtol=1e-5, atol=0):
            most, total = max(self.learning_rate, default=0.0), sum(self.learning_rate)
            if most > 1.001 * max(trained_rates, default=0.0):
                differences.append(
                    f"learning rate {most:.3g}, trained on at most {max(trained_rates, default=0.0):.3g}"
                )
            if total > 1.001 * sum(trained_rates):
                differences.append(f"sum of learning rates {total:.3g}, trained on {sum(trained_rates):.3g}")
            if not differences:
                differences.append("another learning-rate schedule")
        sizes = {len(batch) for batch in self.curriculum} - {config.batch_size, 0}
        if sizes:
            differences.append(f"batches of {', '.join(map(str, sorted(sizes)))}, trained on {config.batch_size}")
        return (*differences, *self._unlike())

    def _unlike(self) -> list[str]:
        """In which ways the rows and how often they are visited are unlike the runs that the model was trained on."""
        config, visits = self.situation.simulator.config, Counter(key for batch in self.curriculum for key in batch)
        differences = []
        if config.fewest_rows and len(visits) < FEWER * config.fewest_rows:
            rows = f"{len(visits)} row{'' if len(visits) == 1 else 's'}"
            differences.append(f"{rows}, trained on runs of at least {config.fewest_rows}")
        most = max(visits.values(), default=0)
        if config.most_visits and most > config.most_visits:
            differences.append(f"a row visited {most} times, trained on at most {config.most_visits}")
        trained_on = set(config.pool_ids) - set(config.never_visited)
        new = sum(key not in trained_on for key in visits) if config.pool_ids else 0
        if new:
            differences.append(f"{new} row{'' if new == 1 else 's'} that no run it was trained on has")
        return differences

    def shares(self) -> torch.Tensor:
        """`[1, steps, N]` share of each pool example in each batch."""
        return visit_shares([self.curriculum], self.situation.pool_ids, [self.weights]).to(self.situation.examples.pool)

    def simulate(self, interval: float | None = None) -> Any:
        """`Trajectories` `[M, steps + 1]`; with `interval` a `Band` of three of them.

        Raises:
            ValueError: the model has no bands, or none of this level.
        """
        predicted = simulate_many([self])
        model, test_ids = self.situation.simulator, self.situation.test_ids
        names = test_ids, model.config.metric, unit_of(model.config), model.config.dataset_config
        named = Trajectories.of(predicted[0], *names, self.measured)
        if interval is None:
            return named
        low, high = model.band(predicted, self.situation.examples.seen, interval)
        low, high = (Trajectories.of(end[0], *names) for end in (low, high))
        return Band(named, low, high, interval)


def what_if(
    simulator: GPTfluenceSimulator,
    run: Any,
    pool: Sequence[Any] | None = None,
    test: Sequence[Any] | None = None,
    initial: Any = None,
    learning_rate: Sequence[float] | None = None,
) -> WhatIf:
    """See `GPTfluenceSimulator.what_if`."""
    config = simulator.config
    curriculum, measured = run, None
    if hasattr(run, "curricula"):
        if len(run.curricula) != 1:
            raise ValueError(f"{len(run.curricula)} runs are given; take one, e.g. runs.take([0])")
        mine, theirs = (f"{each.base_model} {each.base_revision}" for each in (config, run))
        if mine != theirs:
            raise ValueError(f"the model was trained on runs of {mine}, this run is of {theirs}")
        if config.token_rule and run.token_rule and config.token_rule != run.token_rule:
            raise ValueError(
                "the texts of this run were made into tokens and targets in another way than those of the runs that "
                "the model was trained on: train a model on runs like it"
            )
        curriculum = run.curricula[0]
        if test is None and learning_rate is None:
            measured = dict(zip(run.step.tolist(), run.values[0].T.tolist(), strict=True))
        pool, test = run.pool if pool is None else pool, run.test if test is None else test
        initial = run.values[0, :, : simulator.history] if initial is None else initial
        learning_rate = run.learning_rate[0].tolist() if learning_rate is None else learning_rate
    pool, test = given_examples(pool), given_examples(test)
    examples = simulator.encode(pool, test)
    situation = Situation(
        simulator=simulator,
        pool_ids=tuple(config.pool_ids if pool is None else [example.id for example in pool]),
        test_ids=tuple(config.test_ids if test is None else [example.id for example in test]),
        examples=examples,
        initial=simulator.initial_of(initial, examples.seen),
    )
    rates = simulator.rates_of(learning_rate, len(curriculum))
    batches = tuple(tuple(int(key) for key in batch) for batch in curriculum)
    return WhatIf(situation, batches, tuple((1.0,) * len(batch) for batch in batches), tuple(rates), measured)


def simulate_many(alternatives: Sequence[WhatIf], final: bool = False) -> torch.Tensor:
    """Simulate many changed runs at once.

    Args:
        alternatives: changes of the same run, all of one length.
        final: only the last step of each trajectory, for a hundredth of the memory.

    Returns:
        `[alternatives, M, steps + 1]`; with `final` `[alternatives, M]`.

    Raises:
        ValueError: there are none, their lengths differ, or they come from different models or test examples.
    """
    if not alternatives:
        raise ValueError("there is nothing to simulate: give at least one alternative")
    situation = alternatives[0].situation
    if any(each.situation is not situation for each in alternatives):
        raise ValueError("only changes of one what_if(run) can be simulated together")
    if any(len(each.curriculum) != len(alternatives[0].curriculum) for each in alternatives):
        raise ValueError("alternatives of different lengths cannot be simulated together")
    steps, tests = len(alternatives[0].curriculum), len(situation.test_ids)
    trajectories = situation.examples.pool.new_empty(len(alternatives), tests, *(() if final else (steps + 1,)))
    for begin in range(0, len(alternatives), CHUNK):
        part = alternatives[begin : begin + CHUNK]
        visits = torch.zeros(len(part), 0, len(situation.pool_ids))
        if steps:
            curricula, weights = [each.curriculum for each in part], [each.weights for each in part]
            visits = visit_shares(curricula, situation.pool_ids, weights)
        rates = [each.learning_rate for each in part]
        # One schedule for all is taken along the mean curve once.
        rates = rates[:1] if len(set(rates)) == 1 else rates
        predicted = situation.trajectories(visits, torch.tensor(rates).reshape(len(rates), steps))
        trajectories[begin : begin + len(part)] = predicted[..., -1] if final else predicted
    return trajectories
