"""What training on a choice of examples should give, and how far off that simulation may be.

A simulator knows the mixtures that its runs were trained on. A choice is simulated as an even mixture, and the further
its mean encoder vector is from that of the runs, the less it is known: whoever looks for the best simulated outcome
finds, far away, the largest errors instead. So choices are compared by the worse end of an interval: the simulated
outcome plus an error that grows with the distance, at the rate at which runs that the simulator was not fitted on
missed their prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.model.curricula import visit_shares
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.model.what_if import CHUNK, Situation
from simulator.use_cases.case import Case


@dataclass(frozen=True, eq=False)
class MixtureBound:
    """Outcomes of even mixtures, from weights `[choices, N]` of the pool's examples; rows need not sum to 1.

    Attributes:
        situation: model, pool and test examples.
        rates: of each update.
        target: places of the test examples that matter.
        higher_is_better: of the metric.
        centre: `[N]` mean share of each example in the runs that the simulator was fitted on.
        kernel: `[N, N]` inner products of the pool's encoder vectors, each of unit length.
        error_rate: units of the metric for a unit of distance.
    """

    situation: Situation
    rates: tuple[float, ...]
    target: tuple[int, ...]
    higher_is_better: bool
    centre: torch.Tensor
    kernel: torch.Tensor
    error_rate: float

    def simulated(self, weights: torch.Tensor) -> torch.Tensor:
        """The metric after the last update, mean over the target: `[choices]`."""
        outcomes = []
        for part in _shares(weights).split(CHUNK):
            visits = part.unsqueeze(1).expand(-1, len(self.rates), -1)
            final = self.situation.trajectories(visits, torch.tensor([self.rates]))[..., -1]
            outcomes.append(final[:, list(self.target)].mean(1))
        return torch.cat(outcomes)

    def error(self, weights: torch.Tensor) -> torch.Tensor:
        """How far off `simulated` may be (one standard error), in the metric's units: `[choices]`."""
        return self.error_rate * distances(_shares(weights), self.centre, self.kernel)

    def worst(self, weights: torch.Tensor) -> torch.Tensor:
        """The worse end of the interval, lower is better whatever the metric: `[choices]`."""
        return self.expected(weights) + self.error(weights)

    def expected(self, weights: torch.Tensor) -> torch.Tensor:
        """`simulated`, lower is better whatever the metric: `[choices]`."""
        return -self.simulated(weights) if self.higher_is_better else self.simulated(weights)


def _shares(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(1, keepdim=True)


def distances(shares: torch.Tensor, centre: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """How far the mean vectors of mixtures `[..., N]` are from that of another one `[N]`."""
    moved = shares - centre
    # A square of zero has no slope to follow.
    return ((moved @ kernel) * moved).sum(-1).clamp(min=1e-12).sqrt()


def _mean_shares(runs: Dynamics, pool: Sequence[int]) -> torch.Tensor:
    """Share of each pool example in each run, mean over its updates: `[R, N]`."""
    return visit_shares(runs.curricula, pool).mean(1)


def mixture_bound(case: Case, fact: Dynamics, target: Sequence[int]) -> MixtureBound:
    """The bound for a simulator and the runs of its config.

    The rate is the root mean square error of the mean over the target after the last update, of the held-out runs, over
    the root mean square of their distances. Both are of few runs: it is a rough measure.

    Args:
        case: simulator and runs.
        fact: the run whose updates, rates and first values are taken.
        target: places of test examples.

    Raises:
        DataError: the dataset has no held-out run.
    """
    run = case.model.what_if(fact)
    pool_ids = list(run.situation.pool_ids)
    centre = _mean_shares(case.runs.split("train", "validation"), pool_ids).mean(0)
    vectors = torch.nn.functional.normalize(run.situation.examples.pool, dim=1)
    kernel = vectors @ vectors.T
    held = case.runs.split("test")
    missed = np.array([_missed(case.model, held.take([index]), target) for index in range(len(held.runs))])
    far = distances(_mean_shares(held, pool_ids), centre, kernel)
    rate = float(np.sqrt(np.square(missed).mean()) / far.square().mean().sqrt())
    return MixtureBound(
        situation=run.situation,
        rates=run.learning_rate,
        target=tuple(target),
        higher_is_better=case.higher_is_better(),
        centre=centre,
        kernel=kernel,
        error_rate=rate,
    )


def _missed(model: GPTfluenceSimulator, run: Dynamics, target: Sequence[int]) -> float:
    """Truth minus prediction after the last update, mean over the target."""
    predicted = model.what_if(run).simulate()[:, -1].numpy()
    return float((run.values[0, :, -1] - predicted)[list(target)].mean())
