"""Simfluence (Guu et al., 2023; eq. 3): a multiplicative and an additive number for each example."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.curricula import shares_between, visit_shares
from simulator.recurrence import markov_scan

# As many pairs as other trained methods try settings.
RIDGES = (1e-4, 1e-2, 1.0, 100.0)
TUNED_TESTS = 32

Kind = Literal["linear", "additive", "multiplicative"]
ALPHA, BETA = 0, 1
FITTED: dict[Kind, tuple[int, ...]] = {"linear": (ALPHA, BETA), "additive": (BETA,), "multiplicative": (ALPHA,)}


@dataclass(frozen=True)
class Pairs:
    """Runs as one regression for each test example: what a batch held, the value before it and the value after.

    Attributes:
        shares: `[rows, N]` mean share of each pool example in the batches between two measurements.
        before, after: `[rows, M]` the values at the two measurements.
    """

    shares: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


def interval_shares(runs: Dynamics) -> torch.Tensor:
    """Mean share of each pool example in the batches between two measurements: `[R, S - 1, N]`."""
    return shares_between(visit_shares(runs.curricula, [example.id for example in runs.pool]), runs.step.tolist())


def pairs_of(runs: Dynamics) -> Pairs:
    """Every pair of neighbouring measurements of every run."""
    values = torch.from_numpy(runs.values)
    return Pairs(interval_shares(runs).flatten(0, 1), values[:, :-1].flatten(0, 1), values[:, 1:].flatten(0, 1))


def free_running(factors: torch.Tensor, runs: Dynamics) -> np.ndarray:
    """Trajectories `[R, S, M]` of eq. 3 from the first value on.

    Args:
        factors: `[2, N, M]` A as deviation from 1, and B.
        runs: whose curricula and first values.
    """
    shares = interval_shares(runs)
    alpha, beta = 1 + shares @ factors[0], shares @ factors[1]
    return markov_scan(alpha.unsqueeze(0), beta, torch.from_numpy(runs.values[:, :1])).numpy()


def free_running_error(factors: torch.Tensor, runs: Dynamics) -> float:
    """All-steps MSE of free-running trajectories; infinite where they blow up, whose squares may overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.square(free_running(factors, runs)[:, 1:] - runs.values[:, 1:]).mean())
    return error if np.isfinite(error) else float("inf")


class Simfluence:
    """phi_t = alpha(c_t) phi_{t-1} + beta(c_t), fitted by ridge regression for each test example on its own.

    The penalty draws alpha towards 1 and beta towards 0, that is towards persistence; a penalty for each of
    the two is chosen by the free-running error on validation runs, of `TUNED_TESTS` test examples where there are more.

    Args:
        kind: `linear`, or with one of the two held at persistence, `additive` (alpha = 1) or `multiplicative`
            (beta = 0).
        training: runs to fit.
        validation: runs to choose the penalties on.
    """

    model: str | None = None
    history = 1

    def __init__(self, kind: Kind, training: Dynamics, validation: Dynamics) -> None:
        self.kind = kind
        self.name = f"simfluence_{kind}"
        pairs = pairs_of(training)
        tests = pairs.before.size(1)
        tuned = sorted({round(at) for at in np.linspace(0, tests - 1, min(tests, TUNED_TESTS)).tolist()})
        grid = list(product(RIDGES, repeat=len(FITTED[kind])))
        few = replace(validation, test=[validation.test[at] for at in tuned], values=validation.values[:, :, tuned])
        solutions = self._solutions(pairs, tuned, grid)
        errors = {ridges: free_running_error(factors, few) for ridges, factors in solutions.items()}
        self.penalties = min(errors, key=lambda ridges: errors[ridges])
        self.factors = self._solutions(pairs, list(range(tests)), [self.penalties])[self.penalties]

    def _solutions(
        self, pairs: Pairs, tests: list[int], grid: list[tuple[float, ...]]
    ) -> dict[tuple[float, ...], torch.Tensor]:
        """Factors A (deviation from 1) and B for each setting of the penalties: `[2, N, len(tests)]`."""
        shares = pairs.shares.double()
        fitted = FITTED[self.kind]
        out = {ridges: torch.zeros(2, shares.size(1), len(tests)) for ridges in grid}
        unit = shares.square().sum(0).mean()
        for place, test in enumerate(tests):
            before = pairs.before[:, test].double()
            inputs = [shares * before.unsqueeze(1) if side == ALPHA else shares for side in fitted]
            scale = before.square().mean().clamp(min=1e-6)
            units = torch.stack([unit * scale if side == ALPHA else unit for side in fitted])
            penalties = torch.tensor(grid, dtype=units.dtype) * units
            solved = _ridge(inputs, pairs.after[:, test].double() - before, penalties)
            for ridges, solution in zip(grid, solved, strict=True):
                for side, each in zip(fitted, solution, strict=True):
                    out[ridges][side, :, place] = each
        return out

    def predict(self, runs: Dynamics) -> np.ndarray:
        """Free-running trajectories `[R, S, M]`."""
        return free_running(self.factors, runs)


def _ridge(inputs: list[torch.Tensor], wanted: torch.Tensor, penalties: torch.Tensor) -> torch.Tensor:
    """Ridge regression with a penalty for each block of columns, for several settings.

    Args:
        inputs: k blocks `[rows, N]`.
        wanted: `[rows]`.
        penalties: `[settings, k]`.

    Returns:
        `[settings, k, N]`.
    """
    blocks, (rows, count) = len(inputs), inputs[0].shape
    columns = torch.cat(inputs, 1)
    if rows >= columns.size(1):
        systems = columns.T @ columns + torch.diag_embed(penalties.repeat_interleave(count, dim=1))
        right = (columns.T @ wanted).expand(len(penalties), -1).unsqueeze(-1)
        return torch.cholesky_solve(right, torch.linalg.cholesky(systems)).view(-1, blocks, count)
    # Fewer rows than unknowns: the same solution by way of a system as large as the rows.
    grams = torch.stack([block @ block.T for block in inputs]).flatten(1)
    systems = ((1 / penalties) @ grams).view(-1, rows, rows) + torch.eye(rows, dtype=grams.dtype)
    right = wanted.expand(len(penalties), -1).unsqueeze(-1)
    dual = torch.cholesky_solve(right, torch.linalg.cholesky(systems)).squeeze(-1)
    return (dual @ columns).view(-1, blocks, count) / penalties.unsqueeze(-1)
