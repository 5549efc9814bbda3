"""Curricula as shares of each pool example in each batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Members:
    """Curricula as lists of visits: what `visit_shares` spreads over the whole pool, in a hundredth of the memory.

    W is the most visits between two measurements. Shares of an interval add up to 1; where it has fewer visits, the
    rest are of the first pool example, with a share of 0. An interval without any visit has shares of 0 alone.

    Attributes:
        places: `[runs, intervals, W]` places of pool examples.
        shares: `[runs, intervals, W]`.
    """

    places: torch.Tensor
    shares: torch.Tensor

    def take(self, runs: Any) -> Members:
        """Only some runs, by their places."""
        return Members(self.places[runs], self.shares[runs])

    def spread(self, count: int) -> torch.Tensor:
        """The share of each of `count` pool examples in each interval: `[runs, intervals, count]`."""
        dense = self.shares.new_zeros(*self.shares.shape[:2], count)
        return dense.scatter_add_(2, self.places.long(), self.shares)

    @classmethod
    def between(cls, curricula: Sequence[Sequence[Sequence[int]]], ids: Sequence[int], step: Sequence[int]) -> Members:
        """The batches between measured steps, each batch of an interval that has examples with the same weight.

        Args:
            curricula: `[runs][steps][batch]` ids.
            ids: of the pool examples.
            step: measured steps, ascending.

        Raises:
            ValueError: an id is not in the pool; the message says where.
        """
        place = {key: index for index, key in enumerate(ids)}
        ranges = list(pairwise(step))
        most = max(
            (sum(map(len, curriculum[begin:end])) for curriculum in curricula for begin, end in ranges), default=0
        )
        places = np.zeros((len(curricula), len(ranges), most), dtype=np.int32)
        shares = np.zeros(places.shape, dtype=np.float32)
        for run, curriculum in enumerate(curricula):
            for interval, (begin, end) in enumerate(ranges):
                filled = 0
                updates = sum(map(bool, curriculum[begin:end]))
                for update in range(begin, end):
                    batch = curriculum[update]
                    to = filled + len(batch)
                    try:
                        places[run, interval, filled:to] = [place[key] for key in batch]
                    except KeyError as error:
                        raise ValueError(
                            f"run {run}, step {update + 1}: example {error.args[0]} is not in the pool"
                        ) from error
                    if batch:
                        shares[run, interval, filled:to] = 1 / (len(batch) * updates)
                    filled = to
        return cls(torch.from_numpy(places), torch.from_numpy(shares))


def visit_shares(
    curricula: Sequence[Sequence[Sequence[int]]],
    ids: Sequence[int],
    weights: Sequence[Sequence[Sequence[float]]] | None = None,
) -> torch.Tensor:
    """Curricula of equal length as the share of each pool example in each batch: `[runs, steps, N]`.

    A batch that is empty or weighs nothing has shares of 0: it makes no update.

    Args:
        curricula: `[runs][steps][batch]` ids.
        ids: of the N pool examples.
        weights: of each visit, in the shape of `curricula`; a visit's share is its weight over the sum of its
            batch's. Default: 1 each.

    Raises:
        ValueError: an id is not in the pool, or lengths differ.
    """
    steps = len(curricula[0])
    if any(len(curriculum) != steps for curriculum in curricula):
        raise ValueError("curricula of different lengths cannot be simulated together")
    batches = list(chain.from_iterable(curricula))
    sizes = np.fromiter(map(len, batches), dtype=np.int64, count=len(batches))
    visited = np.fromiter(chain.from_iterable(batches), dtype=np.int64, count=int(sizes.sum()))
    row = np.repeat(np.arange(len(batches)), sizes)
    order = np.argsort(np.asarray(ids, dtype=np.int64), kind="stable")
    sorted_ids = np.asarray(ids, dtype=np.int64)[order]
    place = np.searchsorted(sorted_ids, visited).clip(max=max(len(sorted_ids) - 1, 0))
    wrong = sorted_ids[place] != visited if len(sorted_ids) else np.ones(len(visited), dtype=bool)
    if wrong.any():
        first = int(wrong.argmax())
        run, step = divmod(int(row[first]), steps)
        raise ValueError(f"run {run}, step {step + 1}: example {visited[first]} is not in the pool")
    if weights is None:
        weight = np.ones(len(visited))
    else:
        flat_weights = chain.from_iterable(chain.from_iterable(weights))
        weight = np.fromiter(flat_weights, dtype=np.float64, count=len(visited))
    total = np.bincount(row, weight, len(batches))
    total[total <= 0] = 1
    flat = np.bincount(row * len(sorted_ids) + order[place], weight / total[row], len(batches) * len(sorted_ids))
    return torch.from_numpy(flat.astype(np.float32)).view(len(curricula), steps, len(sorted_ids))


def measured_steps(steps: int, stride: int, first: int = 0) -> list[int]:
    """Steps at which a metric is measured every `stride` updates: `first`, `first` + stride, ... and the last."""
    return [*range(first, steps, stride), steps]


def shares_between(shares: torch.Tensor, step: Sequence[int]) -> torch.Tensor:
    """Mean share of each pool example between measured steps: `[runs, steps, N]` -> `[runs, len(step) - 1, N]`.

    Means are over the updates that were made: a batch without examples does not count.
    """
    measured = torch.tensor(list(step))
    summed = torch.nn.functional.pad(shares.cumsum(1), (0, 0, 1, 0))[:, measured].diff(dim=1)
    has_update = update_mask(shares)
    if has_update is None:
        return summed / measured.diff().view(1, -1, 1)
    # Differences of cumulative sums are not exactly 0 where nothing was added.
    count = updates_between(has_update, step).unsqueeze(-1)
    return torch.where(count > 0, summed / count.clamp(min=1), 0.0)


def update_mask(shares: torch.Tensor) -> torch.Tensor | None:
    """Which batches have examples, so that an update is made, `[runs, steps]` of shares; None: all of them."""
    has_update = (shares != 0).any(-1)
    return None if bool(has_update.all()) else has_update


def updates_between(has_update: torch.Tensor, step: Sequence[int]) -> torch.Tensor:
    """How many updates were made between measured steps, `[runs, len(step) - 1]`, of `[runs, steps]` marks."""
    return torch.nn.functional.pad(has_update.long().cumsum(1), (1, 0))[:, list(step)].diff(dim=1)
