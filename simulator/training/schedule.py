"""The learning-rate schedule of the paper's simulators (tables 6, 8 and 9)."""

from __future__ import annotations


def share_of_rate(done: int, total: int, warmup: int = 0) -> float:
    """What part of the learning rate an update is made with: it rises from zero, then falls linearly to zero.

    Args:
        done: updates before this one.
        total: updates in all.
        warmup: updates in which the rate rises.
    """
    rising = (done + 1) / warmup if done < warmup else 1.0
    return min(rising, (total - done) / max(1, total - warmup))
