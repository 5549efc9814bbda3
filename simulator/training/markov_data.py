"""Runs as markov dynamics are trained on them, and minibatches of them.

Curricula are kept as lists of visits, values wherever they are: an update takes the few rows that it needs into
memory, so values may be a file that is mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from simulator.model.curricula import Members


@dataclass(frozen=True)
class MarkovData:
    """Runs of one config and metric. R runs, S measured steps, N pool and M test examples, E encoder width.

    Attributes:
        members: pool examples and shares of the batches between two measurements, `[R, S - 1, W]`.
        values: `[R, S, M]`.
        pool, test: `[N, E]` and `[M, E]` encoder vectors.
        batch_size: examples in an update; sums of factors over a batch are scaled to it.
        head: which factors of the dynamics are those of the metric.
        weight: of squared errors next to those of other configs and metrics.
    """

    members: Members
    values: torch.Tensor
    pool: torch.Tensor
    test: torch.Tensor
    batch_size: int
    head: int = 0
    weight: float = 1.0

    @property
    def runs(self) -> int:
        """R."""
        return self.values.size(0)

    @property
    def intervals(self) -> int:
        """S - 1: each is one step of the dynamics."""
        return self.values.size(1) - 1

    @property
    def tests(self) -> int:
        """M."""
        return self.values.size(2)

    def part(self, runs: torch.Tensor, tests: torch.Tensor) -> MarkovData:
        """Some of the runs and test examples, by their places."""
        values = self.values[runs][..., tests]
        return MarkovData(
            self.members.take(runs), values, self.pool, self.test[tests], self.batch_size, self.head, self.weight
        )


def draw(sizes: Sequence[int], count: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Draw from several sets put end to end, with replacement: the places drawn in each of them.

    Args:
        sizes: of the sets.
        count: how many are drawn in all.
        generator: of the draw.
    """
    drawn = torch.randint(sum(sizes), (count,), generator=generator)
    found, begin = [], 0
    for size in sizes:
        found.append(drawn[(drawn >= begin) & (drawn < begin + size)] - begin)
        begin += size
    return found
