"""Curricula as shares of each pool example in each batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch


def visit_shares(
    curricula: Sequence[Sequence[Sequence[int]]],
    ids: Sequence[int],
    weights: Sequence[Sequence[Sequence[float]]] | None = None,
) -> torch.Tensor:
    """Curricula of equal length as the share of each pool example in each batch: `[runs, steps, N]`.

    Args:
        curricula: `[runs][steps][batch]` ids.
        ids: of the N pool examples.
        weights: of each visit, in the shape of `curricula`; a visit's share is its weight over the sum of its
            batch's. Default: 1 each.

    Raises:
        ValueError: an id is not in the pool, lengths differ, or a batch weighs nothing.
    """
    steps = len(curricula[0])
    if any(len(curriculum) != steps for curriculum in curricula):
        raise ValueError("curricula of different lengths cannot be simulated together")
    batches = list(chain.from_iterable(curricula))
    sizes = np.fromiter(map(len, batches), dtype=np.int64, count=len(batches))
    visited = np.fromiter(chain.from_iterable(batches), dtype=np.int64, count=int(sizes.sum()))
    row = np.repeat(np.arange(len(batches)), sizes)
    order = np.argsort(np.asarray(ids, dtype=np.int64), kind="stable")
    known = np.asarray(ids, dtype=np.int64)[order]
    place = np.searchsorted(known, visited).clip(max=max(len(known) - 1, 0))
    wrong = known[place] != visited if len(known) else np.ones(len(visited), dtype=bool)
    if wrong.any():
        first = int(wrong.argmax())
        run, step = divmod(int(row[first]), steps)
        raise ValueError(f"run {run}, step {step + 1}: example {visited[first]} is not in the pool")
    if weights is None:
        weight = np.ones(len(visited))
    else:
        given = chain.from_iterable(chain.from_iterable(weights))
        weight = np.fromiter(given, dtype=np.float64, count=len(visited))
    total = np.bincount(row, weight, len(batches))
    if (total <= 0).any():
        run, step = divmod(int((total <= 0).argmax()), steps)
        raise ValueError(f"run {run}, step {step + 1}: nothing is left in this batch: give it an example to train on")
    flat = np.bincount(row * len(known) + order[place], weight / total[row], len(batches) * len(known))
    return torch.from_numpy(flat.astype(np.float32)).view(len(curricula), steps, len(known))


def measured_steps(steps: int, stride: int, first: int = 0) -> list[int]:
    """Steps at which a metric is measured every `stride` updates: `first`, `first` + stride, ... and the last."""
    return [*range(first, steps, stride), steps]


def shares_between(shares: torch.Tensor, step: Sequence[int]) -> torch.Tensor:
    """Mean share of each pool example between measured steps: `[runs, steps, N]` -> `[runs, len(step) - 1, N]`."""
    at = torch.tensor(list(step))
    summed = torch.nn.functional.pad(shares.cumsum(1), (0, 0, 1, 0))[:, at]
    return summed.diff(dim=1) / at.diff().view(1, -1, 1)
