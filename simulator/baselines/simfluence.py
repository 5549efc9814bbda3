"""Simfluence-linear (Guu et al., 2023; eq. 3): a multiplicative and an additive number for each example."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.modeling_gptfluence import shares_between, visit_shares
from simulator.recurrence import markov_scan

# As many pairs as other trained methods try settings.
RIDGES = (1e-4, 1e-2, 1.0, 100.0)


class SimfluenceLinear:
    """phi_t = alpha(c_t) phi_{t-1} + beta(c_t), fitted by ridge regression for each test example on its own.

    The penalty draws alpha towards 1 and beta towards 0, that is towards persistence; a penalty for each of
    the two is chosen by the free-running error on validation runs.

    Args:
        training: runs to fit.
        validation: runs to choose the penalties on.
    """

    name = "simfluence_linear"
    model: str | None = None
    history = 1

    def __init__(self, training: Dynamics, validation: Dynamics) -> None:
        errors = {}
        solutions = self._solutions(training)
        for penalties, self.factors in solutions.items():
            # A setting whose trajectories blow up is no candidate; squaring them may overflow.
            with np.errstate(over="ignore", invalid="ignore"):
                error = float(np.square(self.predict(validation)[:, 1:] - validation.values[:, 1:]).mean())
            errors[penalties] = error if np.isfinite(error) else np.inf
        self.penalties = min(errors, key=lambda penalties: errors[penalties])
        self.factors = solutions[self.penalties]

    @staticmethod
    def _shares(runs: Dynamics) -> torch.Tensor:
        return shares_between(visit_shares(runs.curricula, [example.id for example in runs.pool]), runs.step.tolist())

    def _solutions(self, runs: Dynamics) -> dict[tuple[float, float], torch.Tensor]:
        """Factors A (deviation from 1) and B for each pair of penalties: `[2, N, M]`."""
        shares = self._shares(runs).flatten(0, 1).double()
        values = torch.from_numpy(runs.values).double()
        before, change = values[:, :-1].flatten(0, 1), values.diff(dim=1).flatten(0, 1)
        count, tests = shares.size(1), before.size(1)
        grid = list(product(RIDGES, RIDGES))
        out = {pair: torch.empty(2, count, tests) for pair in grid}
        plain = shares.T @ shares
        unit = plain.diagonal().mean()
        for test in range(tests):
            weighted = shares * before[:, test, None]
            cross, square = weighted.T @ shares, weighted.T @ weighted
            gram = torch.cat([torch.cat([square, cross], 1), torch.cat([cross.T, plain], 1)])
            wanted = torch.cat([weighted, shares], 1).T @ change[:, test]
            scale = before[:, test].square().mean().clamp(min=1e-6)
            penalties = [
                torch.cat([torch.full((count,), float(a * unit * scale)), torch.full((count,), float(b * unit))])
                for a, b in grid
            ]
            systems = torch.stack([gram + torch.diag(penalty) for penalty in penalties])
            solved = torch.cholesky_solve(wanted.expand(len(grid), -1).unsqueeze(-1), torch.linalg.cholesky(systems))
            for pair, solution in zip(grid, solved.squeeze(-1), strict=True):
                out[pair][:, :, test] = solution.view(2, count)
        return out

    def predict(self, runs: Dynamics) -> np.ndarray:
        """Free-running trajectories `[R, S, M]`."""
        shares = self._shares(runs)
        alpha = 1 + shares @ self.factors[0]
        beta = shares @ self.factors[1]
        history = torch.from_numpy(runs.values[:, :1])
        return markov_scan(alpha.unsqueeze(0), beta, history).numpy()
