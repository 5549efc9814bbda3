"""The run made again on changed curricula: what is true of rows left out and of other orders. Each is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.peers.work import Curricula, Work

# Test examples of QLD, the share of rows left out, and how often as many others are drawn.
QLD_TESTS, QLD_SHARE, QLD_RANDOM = 8, 0.1, 8
# Of the arrays that are kept, as a part of their names.
AXES = "test examples, steps"


class Retrained:
    """Makes the run again, with its rates and random numbers; needs the project's environment.

    Args:
        work: which run.
        folder: where losses are kept.
    """

    def __init__(self, work: Work, folder: Path) -> None:
        self.work = work
        self.folder = folder
        self._bench: Callable | None = None

    def losses(self, curriculum: list[list[int]]) -> np.ndarray:
        """Losses of all test examples at the measured steps: `[M, S]`."""
        path = self.folder / f"{hashlib.sha256(json.dumps([AXES, curriculum]).encode()).hexdigest()[:16]}.npy"
        if not path.exists():
            values = self._train(curriculum)
            self.folder.mkdir(parents=True, exist_ok=True)
            np.save(path.with_suffix(".part.npy"), values)
            path.with_suffix(".part.npy").rename(path)
        return np.load(path)

    def _train(self, curriculum: list[list[int]]) -> np.ndarray:
        from benchmarks.peers.make_work import bench_of
        from gptdynamics.curriculum import run_seed

        if self._bench is None:
            self._bench = bench_of(self.work)[0]
        bench, work = self._bench, self.work
        weights = bench.weights(curriculum, work.learning_rate, run_seed(bench.settings, work.run))
        kept = [bench.test_set.losses.measure(model)[0] for done, model in enumerate(weights) if done in work.step]
        return np.stack(kept, axis=-1)

    def without(self, rows: set[int]) -> np.ndarray:
        """Losses of all test examples at the end without these rows: `[M]`."""
        return self.losses([[key for key in batch if key not in rows] for batch in self.work.curriculum])[:, -1]


def order_truth(retrained: Retrained, count: int) -> np.ndarray:
    """Losses of the first `count` reorderings: `[C, M, S]`."""
    curricula: Curricula = retrained.work.changed["reordered"][:count]
    return np.stack([retrained.losses(each) for each in curricula])


def qld_tests(work: Work) -> np.ndarray:
    """Places of the test examples of QLD: those that a method is asked of that is asked of few."""
    return np.linspace(0, len(work.tests) - 1, QLD_TESTS).round().astype(int)


def qld_random(retrained: Retrained) -> np.ndarray:
    """How much the losses rise without a random tenth of the rows: `[draws, tests]`."""
    work, size = retrained.work, round(QLD_SHARE * len(retrained.work.rows))
    fact = retrained.without(set())[qld_tests(work)]
    drawn = [np.random.default_rng([seed, 2]).choice(work.rows, size, replace=False) for seed in range(QLD_RANDOM)]
    return np.stack([retrained.without(set(map(int, rows)))[qld_tests(work)] - fact for rows in drawn])


def qld(retrained: Retrained, effects: np.ndarray) -> np.ndarray:
    """How much the loss of each test example rises without the tenth of rows that helps it most: `[tests]`.

    Args:
        retrained: of the run.
        effects: `[N, M]` of the rows at the end.
    """
    work, size = retrained.work, round(QLD_SHARE * len(retrained.work.rows))
    fact, risen = retrained.without(set()), []
    for test in qld_tests(work):
        rows = {work.rows[place] for place in np.argsort(effects[:, test], kind="stable")[:size]}
        risen.append(retrained.without(rows)[test] - fact[test])
    return np.array(risen)
