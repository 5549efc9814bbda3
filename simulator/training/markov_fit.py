"""Fitting `dynamics="markov"`: the paper's one-step objective (eq. 9), stopped on free-running error.

All pairs of a training and a test example are handled by a few matrix products: an update draws a
batch of (run, step) rows and predicts every test example's next value from its true history.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch

from simulator.configuration_gptfluence import GPTfluenceConfig
from simulator.markov_dynamics import MarkovDynamics

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
PENALTIES = (1e-4, 1e-1)
HIDDEN = (16, 64)


@dataclass(frozen=True)
class MarkovChoice:
    """One setting of markov training.

    Attributes:
        learning_rate: of AdamW; falls linearly to zero over `most_updates`.
        penalty: weight decay, the lambda of eq. 9.
        hidden: width of the projections.
    """

    learning_rate: float
    penalty: float
    hidden: int


@dataclass(frozen=True)
class MarkovTraining:
    """How long a setting is trained.

    Attributes:
        most_updates: at most this many updates.
        batch_rows: (run, step) rows in one update, each with all test examples.
        check_every: updates between two free-running validations.
        patience: validations without a new best after which training stops.
        seed: of initial weights and batches.
    """

    most_updates: int = 1000
    batch_rows: int = 256
    check_every: int = 25
    patience: int = 8
    seed: int = 42


@dataclass(frozen=True)
class MarkovData:
    """Runs as tensors. R runs, S measured steps, N pool and M test examples, E encoder width.

    Attributes:
        visits: `[R, S - 1, N]` share of each pool example in the batches between two measurements.
        values: `[R, S, M]`.
        pool, test: `[N, E]` and `[M, E]` encoder vectors.
    """

    visits: torch.Tensor
    values: torch.Tensor
    pool: torch.Tensor
    test: torch.Tensor

    @cached_property
    def members(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The pool examples of each step and their shares: `[R * (S - 1), W]` each, W the most in any step."""
        flat = self.visits.flatten(0, 1)
        shares, places = flat.topk(int((flat > 0).sum(-1).max()), dim=-1)
        return places, shares


@dataclass(frozen=True)
class MarkovFit:
    """The best model found, its validation error, and every setting's error."""

    dynamics: MarkovDynamics
    choice: MarkovChoice
    error: float
    tried: list[tuple[MarkovChoice, float]]


def choices() -> list[MarkovChoice]:
    """Every setting that is tried."""
    return [MarkovChoice(*values) for values in product(LEARNING_RATES, PENALTIES, HIDDEN)]


def _start_at_persistence(dynamics: MarkovDynamics, data: MarkovData) -> None:
    """Set one hidden unit so that alpha_1 begins near 1: "nothing changes" is where training starts."""
    if dynamics.projection != "linear":
        return

    def direction(vectors: torch.Tensor) -> torch.Tensor:
        gram = vectors.T @ vectors
        ridge = 1e-2 * gram.diagonal().mean() * torch.eye(len(gram))
        return torch.linalg.solve(gram + ridge, vectors.sum(0))

    with torch.no_grad():
        dynamics.train_side[0, :, 0] = direction(data.pool) / dynamics.batch_size
        dynamics.test_side[0, :, 0] = direction(data.test)


def one_step_loss(dynamics: MarkovDynamics, data: MarkovData, rows: torch.Tensor) -> torch.Tensor:
    """Mean squared error of predicting a value from its true history (eq. 9 without the penalty).

    Args:
        dynamics: the model.
        data: runs.
        rows: which (run, step) pairs, as run * (S - 1) + step.
    """
    order = dynamics.order
    intervals = data.visits.size(1)
    run, step = rows // intervals, rows % intervals
    factors = dynamics.factors(data.pool, data.test)
    places, shares = data.members
    # A few rows of the factors are added up: far cheaper than a product with mostly empty visits.
    summed = torch.nn.functional.embedding_bag(
        places[rows],
        factors.transpose(0, 1).flatten(1),
        per_sample_weights=shares[rows] * dynamics.batch_size,
        mode="sum",
    ).unflatten(1, (order + 1, -1))
    predicted = summed[:, -1]
    for lag in range(1, order + 1):
        predicted = predicted + summed[:, lag - 1] * data.values[run, step + 1 - lag]
    return torch.nn.functional.mse_loss(predicted, data.values[run, step + 1])


@torch.no_grad()
def free_running_error(dynamics: MarkovDynamics, data: MarkovData) -> float:
    """All-steps MSE of trajectories predicted from their first n values; infinite if they blow up."""
    order = dynamics.order
    predicted = dynamics(data.visits, data.pool, data.test, data.values[:, :order])
    error = torch.nn.functional.mse_loss(predicted[:, order:], data.values[:, order:]).item()
    return error if error == error else float("inf")


def train_markov(
    config: GPTfluenceConfig,
    training: MarkovData,
    validation: MarkovData,
    choice: MarkovChoice,
    how: MarkovTraining,
) -> tuple[MarkovDynamics, float]:
    """Train one setting; returns the weights of the best validation and its error."""
    random = torch.Generator().manual_seed(how.seed)
    config = copy.deepcopy(config)
    config.hidden = choice.hidden
    dynamics = MarkovDynamics(config)
    dynamics.reset(scale=0.1, generator=random)
    _start_at_persistence(dynamics, training)
    optimizer = torch.optim.AdamW(dynamics.parameters(), lr=choice.learning_rate, weight_decay=choice.penalty)
    runs, intervals = training.visits.shape[:2]
    usable = torch.arange(runs * intervals)
    usable = usable[usable % intervals >= dynamics.order - 1]
    best, best_error, since = (
        copy.deepcopy(dynamics.state_dict()),
        free_running_error(dynamics, validation),
        0,
    )
    for update in range(how.most_updates):
        optimizer.param_groups[0]["lr"] = choice.learning_rate * (1 - update / how.most_updates)
        rows = usable[torch.randint(len(usable), (how.batch_rows,), generator=random)]
        loss = one_step_loss(dynamics, training, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (update + 1) % how.check_every == 0:
            error = free_running_error(dynamics, validation)
            since += 1
            if error < best_error:
                best, best_error, since = copy.deepcopy(dynamics.state_dict()), error, 0
            if since >= how.patience:
                break
    dynamics.load_state_dict(best)
    return dynamics, best_error


def fit_markov(
    config: GPTfluenceConfig,
    training: MarkovData,
    validation: MarkovData,
    how: MarkovTraining | None = None,
    on_choice: Callable[[], None] = lambda: None,
) -> MarkovFit:
    """Train every setting of `choices` and keep the one with the least free-running validation error.

    Settings are trained side by side, one thread each; each has its own random numbers.
    """
    how = how or MarkovTraining()
    wanted = choices()

    def one(choice: MarkovChoice) -> tuple[MarkovDynamics, float]:
        found = train_markov(config, training, validation, choice, how)
        on_choice()
        return found

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            found = list(pool.map(one, wanted))
    finally:
        torch.set_num_threads(threads)
    best = min(range(len(wanted)), key=lambda at: found[at][1])
    tried = [(choice, error) for choice, (_, error) in zip(wanted, found, strict=True)]
    return MarkovFit(found[best][0], wanted[best], found[best][1], tried)
