"""Which methods a figure shows unless others are asked for."""

from __future__ import annotations

from simulator.baselines import BASELINES

SHOWN_BASELINES = ("mean_curve", "simfluence_linear", "update_dot")


def drawn_at_first(method: str) -> bool:
    """Whether a figure shows a method at first: every simulator, and of the baselines those that come near.

    Arguments:
        method: its name.
    """
    return method in SHOWN_BASELINES or method not in BASELINES
