"""Simfluence (Guu et al., 2023; eq. 3): a multiplicative and an additive number for each example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.training.table_fit import fit_table, indexed, table_error, table_trajectories

Kind = Literal["linear", "additive", "multiplicative"]


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


def pairs_of(runs: Dynamics) -> Pairs:
    """Every pair of neighbouring measurements of every run."""
    data = indexed(runs)
    before, after = (part.mT.flatten(0, 1) for part in (data.values[..., :-1], data.values[..., 1:]))
    return Pairs(data.shares.flatten(0, 1), before, after)


def free_running(factors: torch.Tensor, runs: Dynamics) -> np.ndarray:
    """Trajectories `[R, M, S]` of eq. 3 from the first value on.

    Args:
        factors: `[2, N, M]` A as deviation from 1, and B.
        runs: whose curricula and first values.
    """
    return table_trajectories(factors, indexed(runs)).numpy()


def free_running_error(factors: torch.Tensor, runs: Dynamics) -> float:
    """All-steps MSE of free-running trajectories; infinite where they blow up."""
    return table_error(factors, indexed(runs))


class Simfluence:
    """phi_t = alpha(c_t) phi_{t-1} + beta(c_t), fitted in closed form (`fit_table`).

    A simulator with `index` vectors and order 1 is the same; this one needs no model.

    Args:
        kind: `linear`, or with one of the two held at persistence, `additive` (alpha = 1) or `multiplicative`
            (beta = 0).
        training: runs to fit.
        validation: runs to choose the penalties on.
    """

    model: str | None = None
    history = 1

    def __init__(self, kind: Kind, training: Dynamics, validation: Dynamics) -> None:
        self.name = f"simfluence_{kind}"
        self.fit = fit_table(indexed(training), indexed(validation), kind)

    def predict(self, runs: Dynamics) -> np.ndarray:
        """Free-running trajectories `[R, M, S]`."""
        return free_running(self.fit.factors, runs)
