"""The yardstick: the exact derivative of every test loss through the whole run, by forward mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.peers.method import Fitted, Method, check_size
from benchmarks.peers.work import Work

# Of the change of a gradient along one direction, beside a plain forward-backward pass; of a loss, beside the same.
GRADIENT_CHANGE, LOSS_CHANGE = 2, 2 / 3


def fit_exact(work: Work) -> Fitted:
    """Effects of all rows on all test examples come from one passage through the run."""
    from benchmarks.peers.make_work import bench_of
    from simulator.attribution.exact_first_order import exact_first_order

    # Derivatives of the weights and of both moments.
    numbers = 3 * len(work.rows) * work.model().num_parameters()
    check_size(numbers, "derivatives of the optimiser's state along every row")
    bench, _ = bench_of(work)
    found = exact_first_order(bench, work.run, work.curriculum, work.learning_rate, work.step, work.rows)
    effects = found.derivatives

    def ask(tests: Sequence[int]) -> np.ndarray:
        return effects[:, list(tests)]

    return Fitted(ask)


def passes_of(work: Work) -> tuple[float, float]:
    """Each row goes through every update; each test loss is derived at each step along each row."""
    each_test = LOSS_CHANGE * len(work.rows) * (len(work.step) - 1)
    return len(work.rows) * GRADIENT_CHANGE * work.visits + each_test * len(work.tests), each_test


METHODS = (
    Method(
        "exact_first_order",
        "exact first order (ours)",
        fit_exact,
        passes_of,
        ("trajectory",),
        note="forward mode through the run; another test example needs the run once more, unless asked together",
    ),
)
