"""Training one setting of `dynamics="markov"`: AdamW on single steps or whole trajectories, with early stopping.

All pairs of a training and a test example are handled by a few matrix products: nothing loops over examples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gptdynamics.errors import SettingsError
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.markov_dynamics import MarkovDynamics
from simulator.training.markov_data import (
    MarkovData,
    draw,
    free_running_error,
    rollout_errors,
    row_errors,
    triple_errors,
)
from simulator.training.session import Session

OBJECTIVES = ("one_step", "rollout")
# Gradients through a whole run may be huge where it nearly blows up.
LARGEST_ROLLOUT_GRADIENT = 1.0


def share_of_rate(done: int, total: int, warmup: int = 0) -> float:
    """The share of the learning rate that update `done` of `total` has: a linear rise, then a linear fall to zero.

    As tables 6, 8 and 9 say; updates are counted from 0.
    """
    rising = (done + 1) / warmup if done < warmup else 1.0
    return min(rising, (total - done) / max(1, total - warmup))


@dataclass(frozen=True)
class MarkovChoice:
    """One setting: AdamW's learning rate, its weight decay (the lambda of eq. 9), and the width of the projections."""

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
            scored = [data.tests * (data.intervals + 1 - order) for data in training]
            return Batches([data.runs for data in training], max(1, self.batch_rows // rows), rollout_errors, scored)
        rows_of = [data.runs * (data.intervals - order + 1) for data in training]
        tests = [data.tests for data in training]
        if not self.triples:
            return Batches(rows_of, self.batch_rows, row_errors, tests)
        sizes = [rows * count for rows, count in zip(rows_of, tests, strict=True)]
        return Batches(sizes, self.batch_rows, triple_errors, [1] * len(training))

    def length(self, batches: Batches) -> tuple[int, int]:
        """Most updates, and updates between two validations."""
        if not self.epochs:
            return self.most_updates, self.check_every
        each = -(-sum(batches.sizes) // batches.count)
        return self.epochs * each, each


@dataclass(frozen=True)
class Batches:
    """What the updates of a training draw from: `sizes` of the sets of rows, triples or runs of each config and metric.

    `count` of them make up an update; `errors` sums their squared errors, and each predicts so many `values`.
    """

    sizes: list[int]
    count: int
    errors: Callable[[MarkovDynamics, MarkovData, torch.Tensor], torch.Tensor]
    values: list[int]


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


def validation_error(dynamics: MarkovDynamics, validation: Sequence[MarkovData]) -> float:
    """Mean over configs and metrics of the free-running error, each times its weight."""
    return sum(data.weight * free_running_error(dynamics, data) for data in validation) / len(validation)


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
            of_head = [data for data in training if data.head == head]
            first = head * (dynamics.order + 1)
            size = sum(data.batch_size for data in of_head) / len(of_head)
            dynamics.train_side[first, :, 0] = direction(torch.cat([data.pool for data in of_head])) / size
            dynamics.test_side[first, :, 0] = direction(torch.cat([data.test for data in of_head]))


@dataclass
class _State:
    """Everything that the next update depends on."""

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
        tensors = {"random": self.random.get_state()}
        tensors |= {f"weights.{name}": value for name, value in self.dynamics.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, parameter in self.dynamics.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{name}.{key}": value for key, value in moments.items()}
        return tensors

    def progress(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in ("update", "best_error", "since", "summed", "finished")}
        return numbers | {"checks": [[check.update, check.loss, check.error] for check in self.checks]}

    def restore(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

        self.random.set_state(tensors["random"])
        self.dynamics.load_state_dict(under("weights."))
        device = next(self.dynamics.parameters()).device
        self.best = {name: value.to(device) for name, value in under("best.").items()}
        for name, parameter in self.dynamics.named_parameters():
            # AdamW counts its steps on the CPU.
            self.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(device) for key, value in under(f"optimizer.{name}.").items()
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
    """Train one setting `choice` on the runs of each config and metric.

    `config` gives the shapes, but for `hidden`; `name` is that of the fit in checkpoints and trackers.

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
    checkpoints = session.checkpoints
    saved = checkpoints.load(name) if checkpoints is not None else None
    if saved is not None:
        state.restore(*saved)
    else:
        state.best_error = session.agreed(validation_error(dynamics, validation))
    batches = how.batches(training, dynamics.order)
    most, check_every = how.length(batches)
    while not state.finished and state.update < most:
        optimizer.param_groups[0]["lr"] = choice.learning_rate * share_of_rate(state.update, most, how.warmup)
        state.summed += _update(state, training, batches, how, session)
        if state.update % check_every == 0:
            check = Check(state.update, state.summed / check_every, validation_error(dynamics, validation))
            _record(state, replace(check, error=session.agreed(check.error)), how.patience)
            session.log({f"{name}/loss": check.loss, f"{name}/error": state.checks[-1].error}, check.update)
        if checkpoints is not None and session.main and checkpoints.due(name):
            checkpoints.save(name, state.tensors(), state.progress())
    state.finished = True
    if checkpoints is not None and session.main and not (saved and saved[1]["finished"]):
        checkpoints.save(name, state.tensors(), state.progress())
    dynamics.load_state_dict(state.best)
    return MarkovResult(dynamics.cpu(), state.best_error, state.checks)


def _update(
    state: _State, training: Sequence[MarkovData], batches: Batches, how: MarkovTraining, session: Session
) -> float:
    """Make one update; its loss."""
    dynamics = state.dynamics
    drawn = draw(batches.sizes, batches.count, state.random)
    count = sum(len(indices) * values for indices, values in zip(drawn, batches.values, strict=True))
    losses = [
        data.weight / count * batches.errors(dynamics, data, session.mine(indices))
        for data, indices in zip(training, drawn, strict=True)
        if len(indices)
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


def _record(state: _State, check: Check, patience: int) -> None:
    """Note a validation, and whether training stops."""
    state.checks.append(check)
    state.summed = 0.0
    state.since += 1
    if check.error < state.best_error:
        state.best, state.best_error, state.since = copy.deepcopy(state.dynamics.state_dict()), check.error, 0
    state.finished = state.since >= patience
