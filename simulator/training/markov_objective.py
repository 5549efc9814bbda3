"""What markov dynamics are trained to make small: squared errors of single steps (eq. 9) or of whole trajectories.

All are sums, so that parts of a batch on several processes add up to the whole.
"""

from __future__ import annotations

import torch

from simulator.model.markov_dynamics import MarkovDynamics
from simulator.model.recurrence import markov_scan
from simulator.training.markov_data import MarkovData

# Runs whose trajectories are predicted at once where nothing is trained.
RUNS_AT_ONCE = 32


def _places_of(rows: torch.Tensor, data: MarkovData, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Run and interval of each row: rows count the intervals with a whole history, run by run."""
    usable = data.intervals - order + 1
    return rows // usable, rows % usable + order - 1


def row_errors(dynamics: MarkovDynamics, data: MarkovData, rows: torch.Tensor) -> torch.Tensor:
    """Sum of squared errors of one step from true history, for all test examples (eq. 9 without the penalty).

    Args:
        dynamics: the model.
        data: runs.
        rows: which (run, interval) pairs, counting those with a whole history, run by run.
    """
    order, device = dynamics.order, data.pool.device
    run, at = _places_of(rows, data, order)
    factors = dynamics.factors(data.pool, data.test, data.head)
    # A few rows of the factors are added up: far cheaper than a product with mostly empty shares.
    summed = torch.nn.functional.embedding_bag(
        data.members.places[run, at].to(device),
        factors.transpose(0, 1).flatten(1),
        per_sample_weights=data.members.shares[run, at].to(device) * data.batch_size,
        mode="sum",
    ).unflatten(1, (order + 1, -1))
    predicted = summed[:, -1]
    for lag in range(1, order + 1):
        predicted = predicted + summed[:, lag - 1] * data.values[run, at + 1 - lag].to(device)
    return (predicted - data.values[run, at + 1].to(device)).square().sum()


def triple_errors(dynamics: MarkovDynamics, data: MarkovData, triples: torch.Tensor) -> torch.Tensor:
    """The same for single (run, interval, test example) triples, as the authors draw their batches.

    Args:
        dynamics: the model.
        data: runs.
        triples: row times M plus the test example's place, with rows as of `row_errors`.
    """
    order, device = dynamics.order, data.pool.device
    run, at = _places_of(triples // data.tests, data, order)
    test = triples % data.tests
    train_side = dynamics.project(data.pool, "train", data.head)
    summed = torch.nn.functional.embedding_bag(
        data.members.places[run, at].to(device),
        train_side.transpose(0, 1).flatten(1),
        per_sample_weights=data.members.shares[run, at].to(device) * data.batch_size,
        mode="sum",
    ).unflatten(1, (order + 1, -1))
    test_side = dynamics.project(data.test, "test", data.head)[:, test.to(device)]
    factors = (summed.transpose(0, 1) * test_side).sum(-1)
    predicted = factors[-1]
    for lag in range(1, order + 1):
        predicted = predicted + factors[lag - 1] * data.values[run, at + 1 - lag, test].to(device)
    return (predicted - data.values[run, at + 1, test].to(device)).square().sum()


def rollout(dynamics: MarkovDynamics, data: MarkovData, runs: torch.Tensor) -> torch.Tensor:
    """Free-running trajectories of some runs from their first n values: `[len(runs), S, M]` (eq. 4)."""
    order, device = dynamics.order, data.pool.device
    factors = dynamics.factors(data.pool, data.test, data.head)
    summed = torch.nn.functional.embedding_bag(
        data.members.places[runs].flatten(0, 1).to(device),
        factors.transpose(0, 1).flatten(1),
        per_sample_weights=data.members.shares[runs].flatten(0, 1).to(device) * data.batch_size,
        mode="sum",
    )
    by_factor = summed.view(len(runs), data.intervals, order + 1, data.tests).permute(2, 0, 1, 3)
    return markov_scan(by_factor[:-1], by_factor[-1], data.values[runs, :order].to(device))


def rollout_errors(dynamics: MarkovDynamics, data: MarkovData, runs: torch.Tensor) -> torch.Tensor:
    """Sum of squared errors of free-running trajectories of some runs, after the given values."""
    order = dynamics.order
    predicted = rollout(dynamics, data, runs)
    return (predicted[:, order:] - data.values[runs, order:].to(predicted.device)).square().sum()


@torch.no_grad()
def free_running_error(dynamics: MarkovDynamics, data: MarkovData) -> float:
    """All-steps MSE of trajectories predicted from their first n values; infinite if they blow up."""
    parts = torch.arange(data.runs).split(RUNS_AT_ONCE)
    total = sum(rollout_errors(dynamics, data, runs).double().item() for runs in parts)
    error = total / (data.runs * (data.intervals + 1 - dynamics.order) * data.tests)
    return error if error == error else float("inf")
