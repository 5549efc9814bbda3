"""Simfluence-linear by the paper's training: AdamW with the hyper-parameters of table 9."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from gptdynamics.dataset import Dynamics
from simulator.baselines.simfluence import free_running, free_running_error, pairs_of
from simulator.training.markov_training import share_of_rate


@dataclass(frozen=True)
class Descent:
    """Table 9.

    Attributes:
        learning_rate: after the warm-up; falls linearly to zero at the last epoch.
        warmup: updates in which the rate rises from zero.
        epochs: at most this many.
        weight_decay: the paper's lambda; the authors' code hands it to AdamW.
        batch_rows: (run, step) rows of an update, each with all test examples. The authors' 128 triples of a run, a
            step and a test example hold one or two rows of each test example; 8 are as far as the same updates go
            when all test examples are trained at once.
        patience: epochs without a better free-running error on validation runs after which training stops.
        seed: of first values and batches.
        start: `persistence`: all factors begin where nothing changes; `normal`: as standard normal numbers, as in the
            authors' code, where factors of which runs say little stay what they began as.
    """

    learning_rate: float = 1e-3
    warmup: int = 200
    epochs: int = 300
    weight_decay: float = 1e-5
    batch_rows: int = 8
    patience: int = 30
    seed: int = 42
    start: Literal["persistence", "normal"] = "persistence"


class SimfluenceDescent:
    """phi_t = alpha(c_t) phi_{t-1} + beta(c_t) by gradient descent on one-step errors (eq. 9).

    After training, `losses` and `errors` hold the one-step training error and the free-running validation error of each
    epoch.

    Args:
        training: runs to fit.
        validation: runs to stop on; the factors of the best epoch are kept.
        how: hyper-parameters.
    """

    name = "simfluence_linear_adamw"
    model: str | None = None
    history = 1

    def __init__(self, training: Dynamics, validation: Dynamics, how: Descent | None = None) -> None:
        how = how or Descent()
        random = torch.Generator().manual_seed(how.seed)
        pairs = pairs_of(training)
        rows, count = pairs.shares.shape
        # The authors add up the batch's factors; shares are parts of a whole.
        batch = training.batch_size
        weights = torch.randn(2, count, pairs.before.size(1), generator=random)
        if how.start == "persistence":
            weights = torch.stack([torch.full_like(weights[0], 1 / batch), torch.zeros_like(weights[1])])
        optimizer = torch.optim.AdamW([weights], lr=how.learning_rate, weight_decay=how.weight_decay)
        total, updates = how.epochs * -(-rows // how.batch_rows), 0
        self.errors: list[float] = []
        self.losses: list[float] = []
        best, self.factors = float("inf"), self._deviations(weights, batch)
        for epoch in range(how.epochs):
            summed = 0.0
            order = torch.randperm(rows, generator=random)
            for chosen in order.split(how.batch_rows):
                shares, before = pairs.shares[chosen] * batch, pairs.before[chosen]
                residual = (shares @ weights[0]) * before + shares @ weights[1] - pairs.after[chosen]
                summed += float(residual.square().mean()) * len(chosen)
                # The gradient by hand: autograd's own bookkeeping would take longer than these products.
                residual *= 2 / residual.size(0)
                weights.grad = torch.stack([shares.T @ (residual * before), shares.T @ residual])
                optimizer.param_groups[0]["lr"] = how.learning_rate * share_of_rate(updates, total, how.warmup)
                optimizer.step()
                updates += 1
            error = free_running_error(self._deviations(weights, batch), validation)
            self.errors.append(error)
            self.losses.append(summed / rows)
            if error < best:
                best, self.factors = error, self._deviations(weights, batch)
            if epoch - int(np.argmin(self.errors)) >= how.patience and np.isfinite(best):
                break

    @staticmethod
    def _deviations(weights: torch.Tensor, batch: int) -> torch.Tensor:
        """Sums over a batch as means over it, A as deviation from 1."""
        factors = weights * batch
        factors[0] -= 1
        return factors

    def predict(self, runs: Dynamics) -> np.ndarray:
        """Free-running trajectories `[R, M, S]`."""
        return free_running(self.factors, runs)
