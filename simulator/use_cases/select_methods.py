"""Ways to choose some of the pool's examples; places are places in the pool."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

Outcome = Callable[[torch.Tensor], torch.Tensor]
"""Of weights `[choices, N]`: something to be made small, `[choices]`."""

# How much lying near counts, from next to nothing to everything; effects have a deviation of 1, vectors a length of 1.
WEIGHTS = (1e-2, 1e4)
STEPS = 25


def greedy(outcome: Outcome, size: int, count: int) -> list[int]:
    """Add, one at a time, the example with which the outcome is best: `count` places of `size`."""
    chosen: list[int] = []
    for _ in range(count):
        left = sorted(set(range(size)) - set(chosen))
        weights = torch.zeros(len(left), size)
        weights[:, chosen] = 1.0
        weights[torch.arange(len(left)), left] = 1.0
        chosen.append(left[int(outcome(weights).argmin())])
    return chosen


def one_shot(expected: Outcome, worst: Outcome, centre: torch.Tensor, kernel: torch.Tensor, count: int) -> list[int]:
    """Examples with the best single effects, as far as they may be added up.

    The effect of an example is what its double weight does to the outcome, in a mixture of the whole pool. Effects add
    up near that mixture only. So choices are made that have good effects and lie near the training runs, with more and
    more weight on lying near, and that which is then best as a whole is taken: one step along a gradient, whose length
    is found by trying.

    Args:
        expected: effects are measured by; asked for N mixtures.
        worst: choices are compared by; asked for `STEPS` mixtures.
        centre: `[N]` shares in the training runs.
        kernel: `[N, N]` inner products of the examples' vectors.
        count: to choose.
    """
    size = len(centre)
    effects = expected(torch.ones(size, size) + torch.eye(size)).double()
    effects = (effects - effects.mean()) / effects.std().clamp(min=torch.finfo(torch.float64).tiny)
    weights = np.geomspace(*WEIGHTS, STEPS)
    candidates = [near(effects, float(weight), centre.double(), kernel.double(), count) for weight in weights]
    shares = torch.zeros(len(candidates), size)
    for row, chosen in enumerate(candidates):
        shares[row, chosen] = 1 / count
    return candidates[int(worst(shares).argmin())]


def near(effects: torch.Tensor, weight: float, centre: torch.Tensor, kernel: torch.Tensor, count: int) -> list[int]:
    """Add, one at a time, the example that keeps mean effect plus `weight` times squared distance least."""
    chosen: list[int] = []
    total, summed, inside = 0.0, torch.zeros_like(centre), 0.0
    towards, own = kernel @ centre, kernel.diagonal()
    along = 0.0
    free = torch.ones(len(centre), dtype=torch.bool)
    for number in range(1, count + 1):
        squares = (inside + 2 * summed + own) / number**2 - 2 * (along + towards) / number
        value = (total + effects) / number + weight * squares
        best = int(torch.where(free, value, torch.inf).argmin())
        inside = inside + float(2 * summed[best] + own[best])
        total, along = total + float(effects[best]), along + float(towards[best])
        summed = summed + kernel[best]
        free[best] = False
        chosen.append(best)
    return chosen


def most_similar(pool: np.ndarray, target: np.ndarray, count: int) -> list[int]:
    """The places of pool vectors `[N, E]` with the largest mean cosine to target vectors `[M, E]`."""
    pool, target = (each / np.linalg.norm(each, axis=1, keepdims=True).clip(min=1e-12) for each in (pool, target))
    return np.argsort(-(pool @ target.mean(0)), kind="stable")[:count].tolist()
