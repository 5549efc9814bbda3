"""Fitting `dynamics="markov"`: AdamW on single steps or whole trajectories, stopped on free-running error.

All pairs of a training and a test example are handled by a few matrix products: nothing loops over examples.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch

from gptdynamics.errors import SettingsError
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.markov_dynamics import MarkovDynamics
from simulator.training.markov_data import MarkovData, draw
from simulator.training.markov_objective import free_running_error, rollout_errors, row_errors, triple_errors
from simulator.training.schedule import share_of_rate
from simulator.training.session import Session

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
PENALTIES = (1e-4, 1e-1)
HIDDEN = (16, 64)
OBJECTIVES = ("one_step", "rollout")
# Gradients through a whole run may be huge where it nearly blows up.
LARGEST_ROLLOUT_GRADIENT = 1.0


@dataclass(frozen=True)
class MarkovChoice:
    """One setting of markov training.

    Attributes:
        learning_rate: of AdamW.
        penalty: weight decay, the lambda of eq. 9.
        hidden: width of the projections.
    """

    learning_rate: float
    penalty: float
    hidden: int


@dataclass(frozen=True)
class MarkovTraining:
    """How a setting is trained; every preset is one of these.

    Attributes:
        most_updates: at most this many updates, if `epochs` is 0.
        epochs: at most this many passes over the data, each followed by a validation.
        batch_rows: in one update: (run, step) rows, each with all test examples; or, with `triples`, so many single
            (run, step, test example) triples. Of `rollout`, as many runs as have so many rows, at least one.
        triples: see `batch_rows`.
        warmup: updates in which the rate rises from zero, before it falls linearly to zero.
        check_every: updates between two free-running validations, if `epochs` is 0.
        patience: validations without a new best after which training stops.
        objective: `one_step`, from true histories (eq. 9), or `rollout`, free-running.
        from_persistence: whether linear projections begin where nothing changes; else with small random numbers.
        seed: of initial weights and batches.
    """

    most_updates: int = 1000
    epochs: int = 0
    batch_rows: int = 256
    triples: bool = False
    warmup: int = 0
    check_every: int = 25
    patience: int = 8
    objective: str = "one_step"
    from_persistence: bool = True
    seed: int = 42

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise SettingsError(f"objective={self.objective!r} must be one of {', '.join(OBJECTIVES)}")

    def batches(self, training: Sequence[MarkovData], order: int) -> Batches:
        """What updates draw from, and how much of it."""
        if self.objective == "rollout":
            rows = max(1, round(sum(data.intervals for data in training) / len(training)))
            return Batches([data.runs for data in training], max(1, self.batch_rows // rows), rollout_errors)
        rows_of = [data.runs * (data.intervals - order + 1) for data in training]
        if not self.triples:
            return Batches(rows_of, self.batch_rows, row_errors)
        sizes = [rows * data.tests for rows, data in zip(rows_of, training, strict=True)]
        return Batches(sizes, self.batch_rows, triple_errors)

    def length(self, batches: Batches) -> tuple[int, int]:
        """Most updates, and updates between two validations."""
        if not self.epochs:
            return self.most_updates, self.check_every
        each = -(-sum(batches.sizes) // batches.count)
        return self.epochs * each, each


@dataclass(frozen=True)
class Batches:
    """What the updates of a training draw from.

    Attributes:
        sizes: rows, triples or runs of each config and metric.
        count: how many of them make up an update.
        errors: the sum of squared errors of some of them.
    """

    sizes: list[int]
    count: int
    errors: Callable[[MarkovDynamics, MarkovData, torch.Tensor], torch.Tensor]

    def values(self, data: MarkovData, drawn: int, order: int) -> int:
        """How many values that many rows, triples or runs predict."""
        if self.errors is triple_errors:
            return drawn
        return drawn * data.tests * (data.intervals + 1 - order if self.errors is rollout_errors else 1)


@dataclass(frozen=True)
class Check:
    """A validation: updates done, mean training loss since the last one, free-running validation error."""

    update: int
    loss: float
    error: float


@dataclass(frozen=True)
class MarkovResult:
    """The weights of the best validation, its error, and all validations."""

    dynamics: MarkovDynamics
    error: float
    checks: list[Check]


@dataclass(frozen=True)
class MarkovFit:
    """The best model found.

    Attributes:
        dynamics: its weights.
        choice: its setting.
        error: its validation error.
        errors: the free-running MSE of each config and metric.
        tried: every setting's validation error.
        checks: the course of its training.
    """

    dynamics: MarkovDynamics
    choice: MarkovChoice
    error: float
    errors: list[float]
    tried: list[tuple[MarkovChoice, float]]
    checks: list[Check]


def choices() -> list[MarkovChoice]:
    """Every setting that is tried where none is given."""
    return [MarkovChoice(*values) for values in product(LEARNING_RATES, PENALTIES, HIDDEN)]


def _start_at_persistence(dynamics: MarkovDynamics, training: Sequence[MarkovData]) -> None:
    """Set one hidden unit so that alpha_1 begins near 1: "nothing changes" is where training starts."""
    if dynamics.projection != "linear":
        return

    def direction(vectors: torch.Tensor) -> torch.Tensor:
        gram = vectors.T @ vectors
        ridge = 1e-2 * gram.diagonal().mean() * torch.eye(len(gram))
        return torch.linalg.solve(gram + ridge, vectors.sum(0))

    with torch.no_grad():
        for head in {data.head for data in training}:
            alike = [data for data in training if data.head == head]
            first = head * (dynamics.order + 1)
            size = sum(data.batch_size for data in alike) / len(alike)
            dynamics.train_side[first, :, 0] = direction(torch.cat([data.pool for data in alike])) / size
            dynamics.test_side[first, :, 0] = direction(torch.cat([data.test for data in alike]))


def validation_error(dynamics: MarkovDynamics, validation: Sequence[MarkovData]) -> float:
    """Mean over configs and metrics of the free-running error, each times its weight."""
    return sum(data.weight * free_running_error(dynamics, data) for data in validation) / len(validation)


def weighted(training: Sequence[MarkovData], *others: Sequence[MarkovData]) -> list[list[MarkovData]]:
    """The same data, weighted so that every config and metric counts alike: by the inverse of its variance.

    Of a single one the weight is 1. `others` get the weights of `training`.
    """
    variances = [float(data.values.var()) or 1.0 for data in training]
    mean = sum(1 / each for each in variances) / len(variances)
    weights = [1 / each / mean for each in variances]
    return [
        [replace(data, weight=weight) for data, weight in zip(each, weights, strict=True)]
        for each in (training, *others)
    ]


@dataclass
class _State:
    """Where a fit is: everything that the next update depends on."""

    dynamics: MarkovDynamics
    optimizer: torch.optim.AdamW
    random: torch.Generator
    best: dict[str, torch.Tensor]
    best_error: float
    update: int = 0
    since: int = 0
    summed: float = 0.0
    finished: bool = False
    checks: list[Check] = field(default_factory=list)

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {"random": self.random.get_state()}
        found |= {f"weights.{name}": value for name, value in self.dynamics.state_dict().items()}
        found |= {f"best.{name}": value for name, value in self.best.items()}
        for name, parameter in self.dynamics.named_parameters():
            kept = self.optimizer.state.get(parameter, {})
            found |= {f"optimizer.{name}.{key}": value for key, value in kept.items()}
        return found

    def progress(self) -> dict[str, Any]:
        return {
            "update": self.update,
            "best_error": self.best_error,
            "since": self.since,
            "summed": self.summed,
            "finished": self.finished,
            "checks": [[check.update, check.loss, check.error] for check in self.checks],
        }

    def restore(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

        self.random.set_state(tensors["random"])
        self.dynamics.load_state_dict(under("weights."))
        device = next(self.dynamics.parameters()).device
        self.best = {name: value.to(device) for name, value in under("best.").items()}
        for name, parameter in self.dynamics.named_parameters():
            kept = under(f"optimizer.{name}.")
            # AdamW counts its steps on the CPU.
            self.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(device) for key, value in kept.items()
            }
        self.best_error, self.since = progress["best_error"], progress["since"]
        self.update, self.summed, self.finished = progress["update"], progress["summed"], progress["finished"]
        self.checks = [Check(*each) for each in progress["checks"]]


def train_markov(
    config: GPTfluenceConfig,
    training: Sequence[MarkovData],
    validation: Sequence[MarkovData],
    choice: MarkovChoice,
    how: MarkovTraining,
    session: Session | None = None,
    name: str = "fit",
) -> MarkovResult:
    """Train one setting.

    Args:
        config: shapes; `hidden` is the setting's.
        training, validation: runs of each config and metric.
        choice: the setting.
        how: how it is trained.
        session: what it runs on and reports to.
        name: of the fit, in checkpoints and trackers.

    Raises:
        DataError: its checkpoint is damaged or cannot be written.
    """
    session = session or Session()
    config = copy.deepcopy(config)
    config.hidden = choice.hidden
    dynamics = MarkovDynamics(config)
    random = torch.Generator().manual_seed(how.seed)
    dynamics.reset(scale=0.1, generator=random)
    if how.from_persistence:
        _start_at_persistence(dynamics, training)
    dynamics.to(session.device)
    training, validation = (
        [replace(data, pool=data.pool.to(session.device), test=data.test.to(session.device)) for data in each]
        for each in (training, validation)
    )
    optimizer = torch.optim.AdamW(
        dynamics.parameters(),
        lr=choice.learning_rate,
        weight_decay=choice.penalty,
        fused=session.device.type == "cpu",
    )
    state = _State(dynamics, optimizer, random, copy.deepcopy(dynamics.state_dict()), float("inf"))
    kept = session.checkpoints.load(name) if session.checkpoints is not None else None
    if kept is not None:
        state.restore(*kept)
    else:
        state.best_error = session.agreed(validation_error(dynamics, validation))
    batches = how.batches(training, dynamics.order)
    most, check_every = how.length(batches)
    while not state.finished and state.update < most:
        optimizer.param_groups[0]["lr"] = choice.learning_rate * share_of_rate(state.update, most, how.warmup)
        state.summed += _update(state, training, batches, how, session)
        if state.update % check_every == 0:
            _check(state, validation, check_every, how, session, name)
        if session.checkpoints is not None and session.main and session.checkpoints.due(name):
            session.checkpoints.save(name, state.tensors(), state.progress())
    state.finished = True
    if session.checkpoints is not None and session.main and not (kept and kept[1]["finished"]):
        session.checkpoints.save(name, state.tensors(), state.progress())
    dynamics.load_state_dict(state.best)
    return MarkovResult(dynamics.cpu(), state.best_error, state.checks)


def _update(
    state: _State, training: Sequence[MarkovData], batches: Batches, how: MarkovTraining, session: Session
) -> float:
    """Make one update; its loss."""
    dynamics = state.dynamics
    drawn = draw(batches.sizes, batches.count, state.random)
    pairs = list(zip(training, drawn, strict=True))
    count = sum(batches.values(data, len(places), dynamics.order) for data, places in pairs)
    losses = [
        data.weight / count * batches.errors(dynamics, data, session.mine(places))
        for data, places in pairs
        if len(places)
    ]
    loss = torch.stack(losses).sum()
    state.optimizer.zero_grad()
    loss.backward()
    session.add_gradients(dynamics.parameters())
    if how.objective == "rollout":
        torch.nn.utils.clip_grad_norm_(dynamics.parameters(), LARGEST_ROLLOUT_GRADIENT)
    state.optimizer.step()
    state.update += 1
    return session.total(loss)


def _check(
    state: _State,
    validation: Sequence[MarkovData],
    check_every: int,
    how: MarkovTraining,
    session: Session,
    name: str,
) -> None:
    """Validate, and see whether to stop."""
    error = session.agreed(validation_error(state.dynamics, validation))
    check = Check(state.update, state.summed / check_every, error)
    state.checks.append(check)
    state.summed = 0.0
    session.log({f"{name}/loss": check.loss, f"{name}/error": check.error}, check.update)
    state.since += 1
    if error < state.best_error:
        state.best, state.best_error, state.since = copy.deepcopy(state.dynamics.state_dict()), error, 0
    state.finished = state.since >= how.patience


def fit_markov(
    config: GPTfluenceConfig,
    training: Sequence[MarkovData],
    validation: Sequence[MarkovData],
    how: MarkovTraining | None = None,
    on_choice: Callable[[], None] = lambda: None,
    wanted: Sequence[MarkovChoice] = (),
    session: Session | None = None,
) -> MarkovFit:
    """Train several settings and keep the one with the least free-running validation error.

    On one CPU settings are trained side by side, one thread each; each has its own random numbers. On a GPU, or with
    several processes, they are trained one after another.

    Args:
        config, training, validation, session: as of `train_markov`.
        how: how each setting is trained.
        on_choice: called after each.
        wanted: the settings; default: those of `choices`.
    """
    how, session, wanted = how or MarkovTraining(), session or Session(), list(wanted) or choices()

    def one(numbered: tuple[int, MarkovChoice]) -> MarkovResult:
        number, choice = numbered
        found = train_markov(config, training, validation, choice, how, session, f"setting-{number:02d}")
        on_choice()
        return found

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor((os.cpu_count() or 1) if session.side_by_side else 1) as pool:
            found = list(pool.map(one, enumerate(wanted)))
    finally:
        torch.set_num_threads(threads)
    best = min(range(len(wanted)), key=lambda at: found[at].error)
    tried = [(choice, result.error) for choice, result in zip(wanted, found, strict=True)]
    errors = [free_running_error(found[best].dynamics, data) for data in validation]
    return MarkovFit(found[best].dynamics, wanted[best], found[best].error, errors, tried, found[best].checks)
