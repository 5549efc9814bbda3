"""How the paper trains its two simulators: AdamW with a warm-up, then a linear decay, stopped early."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class PaperTraining:
    """Table 8, GPTfluence for fine-tuning.

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
    """

    learning_rate: float = 1e-4
    warmup: int = 200
    epochs: int = 300
    weight_decay: float = 1e-5
    batch_rows: int = 8
    patience: int = 30
    seed: int = 42

    def optimizer(self, weights: Iterable[torch.Tensor], rows: int) -> tuple[torch.optim.AdamW, LambdaLR]:
        """The optimiser and its schedule, which is stepped after each update.

        Args:
            weights: what is trained.
            rows: (run, step) rows that an epoch goes through.
        """
        optimizer = torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=self.weight_decay, eps=1e-8)
        total = self.epochs * -(-rows // self.batch_rows)
        return optimizer, LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / self.warmup) * (total - done) / total)
