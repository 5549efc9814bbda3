"""Factors of each pair by itself, for `index` vectors: with order 1 that is Simfluence (section 3.3 of the paper).

phi_t = alpha(c_t) phi_{t-1} + beta(c_t), with a multiplicative and an additive number for each pair (eq. 3); `kind`
names the variants that have both (`linear`), beta only (`additive`, alpha = 1) or alpha only (`multiplicative`,
beta = 0). Where one step spans a whole run, `additive` is a datamodel: linear in which examples were in the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .markov_dynamics import MarkovDynamics

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig

# The learned numbers of a pair, of order n, as a slice of A_1..A_n and B.
LEARNED = {"linear": slice(None), "additive": slice(-1, None), "multiplicative": slice(0, -1)}


class TableDynamics(MarkovDynamics):
    """Markov dynamics whose factors are looked up by the places of examples.

    The table holds what factors differ by from persistence: alpha_1 = 1, everything else 0.

    Args:
        config: `order` n, `kind`, `batch_size`, and how many pool and test examples there are.
    """

    shares_weights = False
    is_table = True
    table: nn.Parameter

    @classmethod
    def part_vectors(cls, vectors: torch.Tensor) -> torch.Tensor:
        """Places in the part's own table: `[n, 1]`."""
        return torch.arange(len(vectors), dtype=vectors.dtype).unsqueeze(1)

    def _page_factors(self, pool: torch.Tensor, test: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"train": self.factors(pool, test)}

    def add_weights(self, config: GPTfluenceConfig) -> None:
        """One number for each learned factor and pair."""
        self.learned = LEARNED[config.kind]
        count = len(range(config.order + 1)[self.learned])
        self.table = nn.Parameter(torch.empty(count, len(config.pool_keys), len(config.test_keys)))

    def reset(self, scale: float, generator: torch.Generator | None = None) -> None:
        """Persistence; nothing is random."""
        nn.init.zeros_(self.table)

    def factors(self, pool: torch.Tensor, test: torch.Tensor, head: int = 0) -> torch.Tensor:
        """A_1..A_n and B of every pair: `[n + 1, N, M]` from places `[N, 1]` and `[M, 1]`; of one head."""
        differences = self.table[:, pool[:, 0].long()][:, :, test[:, 0].long()]
        factors = differences.new_zeros(self.order + 1, len(pool), len(test))
        factors[0] = 1 / self.batch_size
        factors[self.learned] += differences
        return factors
