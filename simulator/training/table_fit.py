"""Fitting factors of single pairs: the minimum of eq. 9 in closed form, a ridge regression for each test example.

The penalty draws alpha_1 towards 1 and all other factors towards 0, that is towards persistence. A penalty for alphas
and one for beta are chosen by the free-running error on validation runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import shares_between, update_mask, visit_shares
from simulator.model.recurrence import markov_scan
from simulator.model.table_dynamics import LEARNED, TableDynamics
from simulator.settings.train import TrainSettings
from simulator.training.fitter import OnProgress, Part, PartFit, SeparateFitter, check_order
from simulator.training.mean_curve_fit import FOLDS

# As many pairs as other trained methods try settings.
RIDGES = (1e-4, 1e-2, 1.0, 100.0)
TUNED_TESTS = 32


@dataclass(frozen=True)
class IndexedRuns:
    """Runs whose examples are indices alone. R runs, S measured steps, N pool and M test examples.

    Attributes:
        shares: `[R, S - 1, N]` mean share of each pool example in the batches between two measurements.
        values: `[R, M, S]`.
    """

    shares: torch.Tensor
    values: torch.Tensor


def indexed(runs: Dynamics) -> IndexedRuns:
    """Runs of a dataset."""
    shares = visit_shares(runs.curricula, [example.id for example in runs.pool])
    return IndexedRuns(shares_between(shares, runs.step.tolist()), torch.from_numpy(runs.values))


@dataclass(frozen=True)
class TableChoice:
    """Penalties of multiplicative and of additive factors, relative to the mean square of their inputs, or None."""

    alpha: float | None
    beta: float | None


@dataclass(frozen=True)
class TableFit:
    """Factors `[n + 1, N, M]` of means over a batch, as deviations from persistence, and how they were fitted.

    `error` is free-running on validation runs, of the test examples that settings are chosen by.
    """

    factors: torch.Tensor
    choice: TableChoice
    error: float
    tried: list[tuple[TableChoice, float]]


def choices(kind: str) -> list[TableChoice]:
    """Every setting that is tried."""
    alphas = (None,) if kind == "additive" else RIDGES
    betas = (None,) if kind == "multiplicative" else RIDGES
    return [TableChoice(*pair) for pair in product(alphas, betas)]


def table_trajectories(factors: torch.Tensor, data: IndexedRuns) -> torch.Tensor:
    """Free-running trajectories `[R, M, S]` from the first n values on, by factors as of `TableFit`."""
    order = len(factors) - 1
    values = torch.einsum("rtn,fnm->frmt", data.shares, factors)
    values[0] += 1
    return markov_scan(values[:-1], values[-1], data.values[..., :order], update_mask(data.shares))


def table_error(factors: torch.Tensor, data: IndexedRuns) -> float:
    """All-steps MSE of free-running trajectories; infinite where they blow up, whose squares may overflow."""
    order = len(factors) - 1
    truth = data.values[..., order:]
    error = float((table_trajectories(factors, data)[..., order:] - truth).square().mean())
    return error if np.isfinite(error) else float("inf")


def fit_table(
    training: IndexedRuns,
    validation: IndexedRuns,
    kind: str = "linear",
    order: int = 1,
    on_choice: Callable[[], None] = lambda: None,
) -> TableFit:
    """Choose penalties on validation runs, of `TUNED_TESTS` test examples where there are more, and fit.

    `kind` is that of `TableDynamics`; `on_choice` is called after each setting.
    """
    tests = training.values.size(1)
    tuned = sorted({round(index) for index in np.linspace(0, tests - 1, min(tests, TUNED_TESTS)).tolist()})
    few = IndexedRuns(validation.shares, validation.values[:, tuned])
    grid = choices(kind)
    tried = []
    for choice, factors in zip(grid, solve_tables(training, kind, order, grid, tuned), strict=True):
        tried.append((choice, table_error(factors, few)))
        on_choice()
    best, error = min(tried, key=lambda pair: pair[1])
    [factors] = solve_tables(training, kind, order, [best], range(tests))
    return TableFit(factors, best, error, tried)


def table_dynamics(config: GPTfluenceConfig, factors: torch.Tensor) -> TableDynamics:
    """The dynamics with these factors of means over a batch."""
    dynamics = TableDynamics(config)
    with torch.no_grad():
        dynamics.table.copy_(factors[dynamics.learned] / config.batch_size)
    return dynamics


def table_residuals(
    training: IndexedRuns, validation: IndexedRuns, kind: str, order: int, choice: TableChoice
) -> tuple[np.ndarray, np.ndarray]:
    """Truth minus free-running prediction `[R, M, S]` of training, then validation runs, a fifth left out at a time.

    Those of unseen test examples, which these dynamics cannot predict, are NaN.
    """
    shares, values = torch.cat([training.shares, validation.shares]), torch.cat([training.values, validation.values])
    residuals = np.empty(tuple(values.shape), dtype=np.float32)
    fold = np.arange(len(values)) % min(FOLDS, len(values))
    for number in range(fold.max() + 1):
        fitted, left_out = (IndexedRuns(shares[rows], values[rows]) for rows in (fold != number, fold == number))
        [factors] = solve_tables(fitted, kind, order, [choice], range(values.size(1)))
        residuals[fold == number] = (left_out.values - table_trajectories(factors, left_out)).numpy()
    return residuals, np.full_like(residuals, np.nan)


def solve_tables(
    data: IndexedRuns, kind: str, order: int, grid: Sequence[TableChoice], tests: Sequence[int]
) -> list[torch.Tensor]:
    """Factors as of `TableFit` for each setting, of some test examples: `[n + 1, N, len(tests)]` each."""
    intervals = data.shares.size(1)
    shares = data.shares[:, order - 1 :].flatten(0, 1).double()
    tables = [torch.zeros(order + 1, shares.size(1), len(tests)) for _ in grid]
    unit = shares.square().sum(0).mean()
    lags = range(order + 1)[LEARNED[kind]]
    for place, test in enumerate(tests):
        values = data.values[:, test].double()
        # What each factor is multiplied by: the values of 1 to n steps before, and 1.
        before = [values[:, order - lag : intervals + 1 - lag].flatten() for lag in range(1, order + 1)]
        before.append(torch.ones_like(before[0]))
        scale = before[0].square().mean().clamp(min=1e-6)
        penalties = torch.tensor(
            [[choice.beta if lag == order else choice.alpha for lag in lags] for choice in grid], dtype=torch.float64
        ) * torch.stack([unit if lag == order else unit * scale for lag in lags])
        inputs = [shares * before[lag].unsqueeze(1) for lag in lags]
        solved = _ridge(inputs, values[:, order:].flatten() - before[0], penalties)
        for factors, solution in zip(tables, solved, strict=True):
            factors[LEARNED[kind], :, place] = solution.float()
    return tables


def _ridge(inputs: list[torch.Tensor], targets: torch.Tensor, penalties: torch.Tensor) -> torch.Tensor:
    """Ridge regression `[settings, k, N]` of targets `[rows]` on k blocks `[rows, N]`, penalties `[settings, k]`."""
    blocks, (rows, count) = len(inputs), inputs[0].shape
    columns = torch.cat(inputs, 1)
    if rows >= columns.size(1):
        systems = columns.T @ columns + torch.diag_embed(penalties.repeat_interleave(count, dim=1))
        right = (columns.T @ targets).expand(len(penalties), -1).unsqueeze(-1)
        return torch.cholesky_solve(right, torch.linalg.cholesky(systems)).view(-1, blocks, count)
    # Fewer rows than unknowns: the same solution by way of a system as large as the rows.
    grams = torch.stack([block @ block.T for block in inputs]).flatten(1)
    systems = ((1 / penalties) @ grams).view(-1, rows, rows) + torch.eye(rows, dtype=grams.dtype)
    right = targets.expand(len(penalties), -1).unsqueeze(-1)
    dual = torch.cholesky_solve(right, torch.linalg.cholesky(systems)).squeeze(-1)
    return (dual @ columns).view(-1, blocks, count) / penalties.unsqueeze(-1)


class TableFitter(SeparateFitter):
    """Markov with factors of each pair by itself, of `index` vectors."""

    dynamics = "markov"
    # Nothing is saved while a table is fitted, but its folder is that of markov.
    has_checkpoints = True
    checked_on = ("validation runs", "the validation runs")

    @classmethod
    def serves(cls, settings: TrainSettings) -> bool:
        """Whether vectors are places in a table."""
        return super().serves(settings) and settings.encoder == "index"

    @classmethod
    def check_runs(cls, settings: TrainSettings, runs: Dynamics, name: str) -> None:
        """See `Fitter`."""
        check_order(settings.order, runs, name)

    def ticks(self, settings: TrainSettings) -> int:
        """One a setting."""
        return len(choices(settings.kind))

    def fit_part(self, settings: TrainSettings, part: Part, on_progress: OnProgress) -> PartFit:
        """See `SeparateFitter`."""
        kind, order = part.config.kind, part.config.order
        training, validation = (indexed(part.runs.split(split)) for split in ("train", "validation"))
        fit = fit_table(training, validation, kind, order, on_progress)
        residuals = table_residuals(training, validation, kind, order, fit.choice) if settings.bands else None
        return PartFit(
            fit.choice, fit.error, fit.tried, table_dynamics(part.config, fit.factors).state_dict(), residuals
        )
