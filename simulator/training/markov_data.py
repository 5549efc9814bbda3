"""Runs as markov dynamics are trained on them, and the errors that training makes small.

Errors are those of single steps from true history (eq. 9) or of whole free-running trajectories (eq. 4). All are sums,
so that parts of a batch on several processes add up to the whole. Curricula are lists of visits, and an update copies
the few rows of values that it needs: values may be a memory-mapped file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.model.curricula import Members, update_mask
from simulator.model.markov_dynamics import MarkovDynamics
from simulator.model.recurrence import markov_scan
from simulator.training.memory_states import TUNED_RUNS, spread

# Runs whose trajectories are predicted at once where nothing is trained.
RUNS_AT_ONCE = 32


@dataclass(frozen=True)
class MarkovData:
    """Runs of one config and metric. R runs, S measured steps, N pool and M test examples, E encoder width.

    Attributes:
        members: pool examples and shares of the batches between two measurements, `[R, S - 1, W]`.
        values: `[R, M, S]`.
        pool, test: `[N, E]` and `[M, E]` encoder vectors.
        batch_size: examples in an update; sums of factors over a batch are scaled to it.
        head, weight: index of the metric among the heads of the dynamics, and weight of its squared errors.
    """

    members: Members
    values: torch.Tensor
    pool: torch.Tensor
    test: torch.Tensor
    batch_size: int
    head: int = 0
    weight: float = 1.0

    @classmethod
    def of(cls, runs: Dynamics, pool: np.ndarray, test: np.ndarray, head: int = 0) -> MarkovData:
        """Runs with the encoder vectors of their examples."""
        members = Members.between(runs.curricula, [example.id for example in runs.pool], runs.step.tolist())
        values, pool_vectors, test_vectors = (torch.from_numpy(each) for each in (runs.values, pool, test))
        return cls(members, values, pool_vectors, test_vectors, runs.batch_size, head)

    @property
    def runs(self) -> int:
        """R."""
        return self.values.size(0)

    @property
    def intervals(self) -> int:
        """S - 1: each is one step of the dynamics."""
        return self.values.size(2) - 1

    @property
    def tests(self) -> int:
        """M."""
        return self.values.size(1)

    def part(self, runs: torch.Tensor, tests: torch.Tensor) -> MarkovData:
        """Some of the runs and test examples, by their indices."""
        values = self.values[runs][:, tests]
        return replace(self, members=self.members.take(runs), values=values, test=self.test[tests])

    def few(self, most: int) -> MarkovData:
        """At most `most` of the runs, evenly spaced."""
        if self.runs <= most:
            return self
        return self.part(torch.from_numpy(spread(self.runs, most)), torch.arange(self.tests))

    def joined(self, others: MarkovData) -> MarkovData:
        """These runs, then the others; of many runs `TUNED_RUNS`, as large a share of both."""
        most = max(1, TUNED_RUNS * others.runs // (self.runs + others.runs))
        mine, others = self.few(TUNED_RUNS - most), others.few(most)
        places, shares = (
            torch.cat([getattr(data.members, name) for data in (mine, others)]) for name in ("places", "shares")
        )
        return replace(mine, members=Members(places, shares), values=torch.cat([mine.values, others.values]))

    def batch_sums(self, index: Any, values: torch.Tensor) -> torch.Tensor:
        """Sums `[n, F, width]` of values of pool examples `[F, N, width]` over the n batches at `index`."""
        places, shares = (
            each[index].flatten(0, -2).to(self.pool.device) for each in (self.members.places, self.members.shares)
        )
        # A few rows are added up: far cheaper than a product with mostly empty shares.
        summed = torch.nn.functional.embedding_bag(
            places, values.transpose(0, 1).flatten(1), per_sample_weights=shares * self.batch_size, mode="sum"
        )
        return summed.unflatten(1, (len(values), -1))


def weighted(training: Sequence[MarkovData], *others: Sequence[MarkovData]) -> list[list[MarkovData]]:
    """The same data, each config and metric weighted by the inverse of its variance in training; a single one by 1."""
    variances = [float(data.values.var()) or 1.0 for data in training]
    mean = sum(1 / each for each in variances) / len(variances)
    weights = [1 / each / mean for each in variances]
    return [
        [replace(data, weight=weight) for data, weight in zip(each, weights, strict=True)]
        for each in (training, *others)
    ]


def draw(sizes: Sequence[int], count: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Draw `count` elements from the union of several sets, with replacement: the indices drawn in each set."""
    drawn = torch.randint(sum(sizes), (count,), generator=generator)
    indices, begin = [], 0
    for size in sizes:
        indices.append(drawn[(drawn >= begin) & (drawn < begin + size)] - begin)
        begin += size
    return indices


def _locate(rows: torch.Tensor, data: MarkovData, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Run and interval of each row: rows count the intervals with a whole history, run by run."""
    usable = data.intervals - order + 1
    return rows // usable, rows % usable + order - 1


def row_errors(dynamics: MarkovDynamics, data: MarkovData, rows: torch.Tensor) -> torch.Tensor:
    """Sum of squared errors of one step from true history, for all test examples (eq. 9 without the penalty).

    `rows` are (run, interval) pairs, counting those with a whole history, run by run.
    """
    order, device = dynamics.order, data.pool.device
    run, interval = _locate(rows, data, order)
    factors = data.batch_sums((run, interval), dynamics.factors(data.pool, data.test, data.head))
    predicted = factors[:, -1]
    for lag in range(1, order + 1):
        predicted = predicted + factors[:, lag - 1] * data.values[run, :, interval + 1 - lag].to(device)
    predicted = _where_made(predicted, data.values[run, :, interval].to(device), data.members.shares[run, interval])
    return (predicted - data.values[run, :, interval + 1].to(device)).square().sum()


def _where_made(predicted: torch.Tensor, before: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Predictions `[rows, ...]`, and the values before in rows whose batches have no examples."""
    has_update = update_mask(shares)
    if has_update is None:
        return predicted
    return torch.where(has_update.to(predicted.device).view(-1, *[1] * (predicted.dim() - 1)), predicted, before)


def triple_errors(dynamics: MarkovDynamics, data: MarkovData, triples: torch.Tensor) -> torch.Tensor:
    """The same for single (run, interval, test example) triples, as the authors draw their batches.

    A triple is its row times M plus the index of the test example.
    """
    order, device = dynamics.order, data.pool.device
    run, interval = _locate(triples // data.tests, data, order)
    test = triples % data.tests
    train_side = data.batch_sums((run, interval), dynamics.project(data.pool, "train", data.head))
    test_side = dynamics.project(data.test, "test", data.head)[:, test.to(device)]
    factors = (train_side.transpose(0, 1) * test_side).sum(-1)
    predicted = factors[-1]
    for lag in range(1, order + 1):
        predicted = predicted + factors[lag - 1] * data.values[run, test, interval + 1 - lag].to(device)
    before = data.values[run, test, interval].to(device)
    predicted = _where_made(predicted, before, data.members.shares[run, interval])
    return (predicted - data.values[run, test, interval + 1].to(device)).square().sum()


def rollout(dynamics: MarkovDynamics, data: MarkovData, runs: torch.Tensor) -> torch.Tensor:
    """Free-running trajectories of some runs from their first n values: `[len(runs), M, S]` (eq. 4)."""
    factors = data.batch_sums(runs, dynamics.factors(data.pool, data.test, data.head))
    by_factor = factors.unflatten(0, (len(runs), data.intervals)).permute(2, 0, 3, 1)
    has_update, device = update_mask(data.members.shares[runs]), data.pool.device
    history = data.values[runs, :, : dynamics.order].to(device)
    return markov_scan(by_factor[:-1], by_factor[-1], history, None if has_update is None else has_update.to(device))


def rollout_errors(dynamics: MarkovDynamics, data: MarkovData, runs: torch.Tensor) -> torch.Tensor:
    """Sum of squared errors of free-running trajectories of some runs, after the given values."""
    order = dynamics.order
    predicted = rollout(dynamics, data, runs)
    return (predicted[..., order:] - data.values[runs, :, order:].to(predicted.device)).square().sum()


@torch.no_grad()
def free_running_error(dynamics: MarkovDynamics, data: MarkovData) -> float:
    """All-steps MSE of trajectories predicted from their first n values; infinite if they blow up."""
    parts = torch.arange(data.runs).split(RUNS_AT_ONCE)
    total = sum(rollout_errors(dynamics, data, runs).double().item() for runs in parts)
    error = total / (data.runs * (data.intervals + 1 - dynamics.order) * data.tests)
    return error if error == error else float("inf")
