"""Which training examples of a run helped and harmed its test examples, in the metric's own units.

The effect of a training example is what the run has with it minus what it would have without it, by simulating the run
without each (`simulator.attribution.leave_out`): for a loss, below zero means that it helped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gptdynamics.configs import Tokenization, config_parts
from gptdynamics.dataset import Dynamics
from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from simulator.attribution import LeaveOneOut, VisitDerivatives, leave_out, visit_derivatives
from simulator.attribution.effect_errors import FEWEST_FITS, left_out_errors
from simulator.model.display import Summarised, Summary, unit_of, with_unit
from simulator.model.what_if import WhatIf, simulate_many
from simulator.settings.use_cases import InfluenceSettings
from simulator.use_cases.case import Case, load_case

# Effects beyond so many standard errors are told from noise; of effects that are none, this share is beyond them.
BEYOND = 2.0
BY_CHANCE = 0.05
# A simulator that removes less of the mean curve's error on runs left out knows nothing of single examples.
LITTLE = 0.05


@dataclass(frozen=True)
class Effect:
    """The effect of one training example on one test example, or on the mean over all.

    Attributes:
        pool_id: the training example.
        final: what it does to the metric at the last step.
        whole: what it does to the mean of the metric over the run.
        error: standard error of `final`, or None.
        steps: at which it was visited.
        visits: derivative of the final metric with respect to the weight of each visit.
    """

    pool_id: int
    final: float
    whole: float
    error: float | None
    steps: tuple[int, ...]
    visits: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class InfluenceResult(Summarised):
    """Effects in one run. n training examples, m test examples.

    Attributes:
        config, metric, method, run: of what.
        pool: the n training examples that the run visits.
        test: the m test examples.
        final, whole: `[n, m]` effects; see `Effect`.
        error: `[n, m]` standard errors of `final`, or None.
        mean_error: `[n]` of its mean over test examples, or None.
        visits: derivatives of single visits.
        higher_is_better: of the metric.
        unit: of the metric; empty where it has none.
        predicted: `[m]` simulated metric at the last step, with every training example.
        measured: `[m]` the same as it was measured in the run; None: of a text of the user's own.
        few_runs: whether the simulator was fitted on too few runs for standard errors.
        removed: share of the mean curve's error that the simulator removes on runs left out; None: not known.
    """

    settings: InfluenceSettings
    config: str
    metric: str
    method: str
    run: str
    pool: tuple[Example, ...]
    test: tuple[Example, ...]
    final: np.ndarray
    whole: np.ndarray
    error: np.ndarray | None
    mean_error: np.ndarray | None
    visits: VisitDerivatives
    higher_is_better: bool
    unit: str = ""
    predicted: np.ndarray | None = None
    measured: np.ndarray | None = None
    few_runs: bool = False
    removed: float | None = None

    @property
    def left_out(self) -> LeaveOneOut:
        """The effects without their errors."""
        return LeaveOneOut(
            pool_ids=tuple(example.id for example in self.pool),
            test_ids=tuple(example.id for example in self.test),
            final=torch.from_numpy(self.final),
            whole=torch.from_numpy(self.whole),
            metric=self.metric,
            unit=self.unit,
            config=self.config,
        )

    def to_pandas(self) -> Any:
        """A `DataFrame` with a row for each training and test example: `pool_id`, `test_id`, `final`, `whole`, `error`.

        `error` is the standard error of `final`, NaN where the simulator has none.
        """
        error = np.nan if self.error is None else self.error.flatten()
        return self.left_out.to_pandas().assign(error=error)

    def plot(self, test_id: int | None = None) -> Any:
        """A plotly figure of the ten examples that lower the final metric most, and the ten that raise it most.

        Args:
            test_id: of which test example; default: averaged over all.
        """
        return self.left_out.plot(test_id)

    def _summary(self) -> Summary:
        """The training examples that helped and harmed the whole test set most."""
        rows = [
            (
                f"{self.word(each)}: training example {each.pool_id}",
                [each.final, np.nan if each.error is None else each.error],
            )
            for each in (*self.helped(), *self.harmed())
        ]
        title = (
            f"effects on the final {with_unit(self.metric, self.unit)} of {self.config}, run {self.run}, by "
            f"{self.method}: {len(self.pool)} training examples on {len(self.test)} test examples, mean over these"
        )
        direction = "positive" if self.higher_is_better else "negative"
        note = f"the metric with the example minus without it; {direction}: it helped"
        return Summary(title, ["effect", "standard error"], rows, f"{note}\n{self.verdict()}")

    def effects(self, test_id: int | None = None) -> list[Effect]:
        """Of every training example, the most helpful first; on a test example, or on the mean over all."""
        columns = list(range(len(self.test)))
        if test_id is not None:
            columns = [index for index, example in enumerate(self.test) if example.id == test_id]
        final, whole = (each[:, columns].mean(1) for each in (self.final, self.whole))
        errors = self.mean_error
        if test_id is not None:
            errors = None if self.error is None else self.error[:, columns[0]]
        order = np.argsort(-final if self.higher_is_better else final, kind="stable")
        derivatives = self.visits.final[:, columns].mean(1).tolist()
        visited: dict[int, list[int]] = {}
        for place, key in enumerate(self.visits.pool_ids):
            visited.setdefault(key, []).append(place)
        return [
            Effect(
                pool_id=self.pool[index].id,
                final=float(final[index]),
                whole=float(whole[index]),
                error=None if errors is None else float(errors[index]),
                steps=tuple(self.visits.steps[place] for place in visited[self.pool[index].id]),
                visits=tuple(derivatives[place] for place in visited[self.pool[index].id]),
            )
            for index in order.tolist()
        ]

    def helped(self, test_id: int | None = None) -> list[Effect]:
        """The `top` whose effects are the most helpful, the strongest first; `word` says which are more than noise."""
        return [each for each in self.effects(test_id)[: self.settings.top] if self._helps(each)]

    def harmed(self, test_id: int | None = None) -> list[Effect]:
        """The `top` whose effects are the most harmful, the strongest first; `word` says which are more than noise."""
        worst = self.effects(test_id)[::-1][: self.settings.top]
        return [each for each in worst if not self._helps(each) and each.final != 0]

    def word(self, effect: Effect) -> str:
        """`helped` or `harmed` where larger than two standard errors, else `unclear`; without errors, its rank."""
        if effect.error is None:
            return "ranked helpful" if self._helps(effect) else "ranked harmful"
        if abs(effect.final) <= BEYOND * effect.error:
            return "unclear"
        return "helped" if self._helps(effect) else "harmed"

    def verdict(self, test_id: int | None = None) -> str:
        """What can be said of the effects on a test example, or on the mean over all."""
        effects = self.effects(test_id)
        on = f"the mean of {len(self.test)} test examples" if test_id is None else f"test example {test_id}"
        if not any(each.final for each in effects):
            return (
                f"On {on}: every effect is zero. In runs left out of the fit, no predicted effect on {self.metric} at "
                "the last step was real, so nothing can be said."
            )
        if self.error is None:
            why = "this kind of simulator has none"
            if self.few_runs:
                why = "they need three runs or more: record or collect more"
            return f"On {on}: a ranking only, without standard errors: {why}."
        sure = sum(self.word(each) != "unclear" for each in effects)
        by_chance = round(BY_CHANCE * len(effects))
        told = f"On {on}: {sure} of {len(effects)} effects are larger than two standard errors"
        if not sure:
            return f"{told}, so nothing can be said about single training examples."
        if sure <= by_chance:
            return f"{told}; chance alone would give about {by_chance}, so nothing can be said."
        told = f"{told}; chance alone would give about {by_chance}."
        if self.removed is not None and self.removed < LITTLE:
            told += " But on runs left out the simulator is no better than the average run: do not rely on them."
        return told

    def _helps(self, effect: Effect) -> bool:
        return effect.final > 0 if self.higher_is_better else effect.final < 0


def _asked(case: Case, settings: InfluenceSettings, fact: Dynamics) -> tuple[list[Example], WhatIf]:
    """Whom influence is asked on: the run's test examples, or a text of the user's own, whose first loss is measured.

    Raises:
        SettingsError: a text has a loss only, and the simulator is of another metric.
    """
    if settings.prompt is None or settings.target is None:
        return fact.test, case.model.what_if(fact)
    if fact.metric != "loss":
        raise SettingsError(f"--prompt asks of the loss of a text; this simulator predicts {fact.metric}")
    number = max(example.id for example in fact.test) + 1
    text = Example(number, settings.prompt, settings.target, task=config_parts(fact.config)[0])
    case.model.data = settings.data
    first = base_losses(fact.base_model, fact.base_revision, fact.tokenization, [text])
    rates = fact.learning_rate[0].tolist()
    return [text], case.model.what_if(fact.curricula[0], fact.pool, [text], first, rates)


def base_losses(name: str, revision: str, tokenization: Tokenization, examples: Sequence[Example]) -> np.ndarray:
    """The loss `[n]` of examples before any training.

    Raises:
        SettingsError: the base model cannot be loaded, or is of another revision than the runs'.
    """
    from gptdynamics.measurement.loss import TargetLosses
    from gptdynamics.models.base_model import load_base_model
    from gptdynamics.models.tokens import ExampleTokenizer

    base = load_base_model(name)
    if base.revision != revision:
        raise SettingsError(f"{name} is {base.revision} here, the runs started from {revision}: get that one")
    tokenize = ExampleTokenizer(base, base.context, tokenization)
    return TargetLosses([tokenize(example) for example in examples]).measure(base.model)[0]


def find_influence(settings: InfluenceSettings) -> InfluenceResult:
    """Simulate a run without each of its training examples.

    Raises:
        GPTDynamicsError: model and dataset do not fit, or the run or a test example is unknown.
    """
    case = load_case(settings.model, settings.dataset, settings.config, settings.metric)
    fact = case.run(settings.run)
    test_ids = [example.id for example in fact.test]
    unknown = [key for key in settings.test_ids if key not in test_ids]
    if unknown:
        raise SettingsError(
            f"no test example {unknown[0]} in {fact.config}; it has {len(test_ids)}: {test_ids[0]} to {test_ids[-1]}"
        )
    test, run = _asked(case, settings, fact)
    visited = sorted(set().union(*run.curriculum))
    effects = leave_out(run, visited)
    seen, alternatives = case.runs.split("train", "validation"), [run.drop([key]) for key in visited]
    predicted = simulate_many([run], final=True)[0]
    errors = left_out_errors(case.model, seen, run, alternatives, predicted)
    by_id = {example.id: example for example in fact.pool}
    return InfluenceResult(
        settings=settings,
        config=fact.config,
        metric=fact.metric,
        method=case.method,
        run=fact.runs[0],
        pool=tuple(by_id[key] for key in visited),
        test=tuple(test),
        final=effects.final.numpy(),
        whole=effects.whole.numpy(),
        error=None if errors is None else errors[0],
        mean_error=None if errors is None else errors[1],
        visits=visit_derivatives(run),
        higher_is_better=case.higher_is_better(),
        unit=unit_of(case.model.config),
        predicted=predicted.numpy(),
        measured=fact.values[0, :, -1] if settings.prompt is None else None,
        removed=case.model.config.removed,
        few_runs=0 < case.model.config.fitted_runs < FEWEST_FITS,
    )
