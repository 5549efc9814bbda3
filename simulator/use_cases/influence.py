"""Which training examples of a run helped and harmed its test examples, in the metric's own units.

The effect of a training example is what the run has with it minus what it would have without it, by simulating the run
without each (`simulator.attribution.leave_out`): for a loss, below zero means that it helped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gptdynamics.errors import SettingsError
from gptdynamics.examples import Example
from simulator.attribution import VisitDerivatives, leave_out, visit_derivatives
from simulator.model.what_if import simulate_many
from simulator.settings.use_cases import InfluenceSettings
from simulator.use_cases.case import load_case
from simulator.use_cases.influence_error import left_out_errors


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


@dataclass(frozen=True)
class InfluenceFound:
    """Effects in one run. n training examples, m test examples.

    Attributes:
        settings: what was asked for.
        config, metric, method, run: of what.
        pool: the n training examples that the run visits.
        test: the m test examples.
        final, whole: `[n, m]` effects; see `Effect`.
        error: `[n, m]` standard errors of `final`, or None.
        mean_error: `[n]` of its mean over test examples, or None.
        visits: derivatives of single visits.
        higher_is_better: of the metric.
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

    def effects(self, test_id: int | None = None) -> list[Effect]:
        """Of every training example, the most helpful first; on a test example, or on the mean over all."""
        columns = list(range(len(self.test)))
        if test_id is not None:
            columns = [at for at, example in enumerate(self.test) if example.id == test_id]
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
                pool_id=self.pool[at].id,
                final=float(final[at]),
                whole=float(whole[at]),
                error=None if errors is None else float(errors[at]),
                steps=tuple(self.visits.steps[place] for place in visited[self.pool[at].id]),
                visits=tuple(derivatives[place] for place in visited[self.pool[at].id]),
            )
            for at in order.tolist()
        ]

    def helped(self, test_id: int | None = None) -> list[Effect]:
        """The `top` that helped most, the strongest first; none that harmed."""
        return [each for each in self.effects(test_id)[: self.settings.top] if self._helps(each)]

    def harmed(self, test_id: int | None = None) -> list[Effect]:
        """The `top` that harmed most, the strongest first; none that helped."""
        worst = self.effects(test_id)[::-1][: self.settings.top]
        return [each for each in worst if not self._helps(each) and each.final != 0]

    def _helps(self, effect: Effect) -> bool:
        return effect.final > 0 if self.higher_is_better else effect.final < 0


def find_influence(settings: InfluenceSettings) -> InfluenceFound:
    """Simulate a run without each of its training examples.

    Raises:
        GPTDynamicsError: model and dataset do not fit, the run or a test example is unknown, or an example is alone in
            a batch, so that there is no run without it.
    """
    case = load_case(settings.model, settings.dataset, settings.config, settings.metric)
    fact = case.run(settings.run)
    known = [example.id for example in fact.test]
    unknown = [key for key in settings.test_ids if key not in known]
    if unknown:
        raise SettingsError(
            f"no test example {unknown[0]} in {fact.config}; it has {len(known)}: {known[0]} to {known[-1]}"
        )
    run = case.model.what_if(fact)
    visited = sorted(set().union(*run.curriculum))
    try:
        effects = leave_out(run, visited)
    except ValueError as error:
        raise SettingsError(f"run {fact.runs[0]} cannot be had without one of its examples: {error}") from error
    seen, alternatives = case.runs.split("train", "validation"), [run.drop([key]) for key in visited]
    errors = left_out_errors(case.model, seen, run, alternatives, simulate_many([run], final=True)[0])
    by_id = {example.id: example for example in fact.pool}
    return InfluenceFound(
        settings=settings,
        config=fact.config,
        metric=fact.metric,
        method=case.method,
        run=fact.runs[0],
        pool=tuple(by_id[key] for key in visited),
        test=tuple(fact.test),
        final=effects.final.numpy(),
        whole=effects.whole.numpy(),
        error=None if errors is None else errors[0],
        mean_error=None if errors is None else errors[1],
        visits=visit_derivatives(run),
        higher_is_better=case.higher_is_better(),
    )
