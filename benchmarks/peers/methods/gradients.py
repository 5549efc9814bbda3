"""Products of exact gradients over all weights: TracIn-CP, Grad-Dot and the cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers.method import Fitted, Method
from benchmarks.peers.work import Curricula, Work

if TYPE_CHECKING:
    from gptdynamics.gradients import Kernel

# For the factors of gradients; what does not fit is taken again, part by part.
MEMORY = 2**34


def kernel_of(work: Work, done: int | None, tests: Sequence[int], memory: int = MEMORY) -> Kernel:
    """Exact products of the gradients of all rows and of some test examples after `done` updates; default: all."""
    from gptdynamics.gradients import gradient_kernel
    from gptdynamics.models.tokens import TokenizedExample

    rows, asked = (
        [TokenizedExample(ids, scored, scored[0]) for ids, scored in each]
        for each in (work.row_tokens, [work.test_tokens[test] for test in tests])
    )
    found = gradient_kernel(work.model(done), rows, asked, method="exact", memory_limit=memory)
    assert not found.not_covered
    return found


def fit_final(work: Work, cosine: bool) -> Fitted:
    """Gradients at the end of the run."""

    def ask(tests: Sequence[int]) -> np.ndarray:
        found = kernel_of(work, None, tests)
        return -found.products / (np.sqrt(np.outer(found.pool_norms, found.test_norms)) if cosine else 1)

    return Fitted(ask)


def fit_tracin(work: Work) -> Fitted:
    """The checkpoint before each update, with the update's rate and the row's share of its batch."""
    used = work.checkpoints[:-1]
    place = {row: index for index, row in enumerate(work.rows)}
    known: dict[tuple[int, ...], np.ndarray] = {}

    def products(tests: Sequence[int]) -> np.ndarray:
        """At each checkpoint: `[C, N, m]`."""
        if tuple(tests) not in known:
            known[tuple(tests)] = np.stack([kernel_of(work, done, tests).products for done in used])
        return known[tuple(tests)]

    def shares(curriculum: list[list[int]]) -> np.ndarray:
        """Rates times shares of each row, before each measured step and at each checkpoint: `[S, C, N]`."""
        found = np.zeros((len(work.step), len(used), len(work.rows)))
        for update, (batch, rate) in enumerate(zip(curriculum, work.learning_rate, strict=True)):
            checkpoint = np.searchsorted(used, update, side="right") - 1
            for row in batch:
                found[np.array(work.step) > update, checkpoint, place[row]] += rate / len(batch)
        return found

    def ask(tests: Sequence[int]) -> np.ndarray:
        return -np.einsum("scn,cnm->nms", shares(work.curriculum), products(tests))

    def predict(curricula: Curricula) -> np.ndarray:
        every = products(range(len(work.tests)))
        return np.stack([-np.einsum("scn,cnm->sm", shares(each), every) for each in curricula])

    return Fitted(ask, predict)


def _final_passes(work: Work) -> tuple[float, float]:
    return work.visits + len(work.rows), 1


def _tracin_passes(work: Work) -> tuple[float, float]:
    """The rows' gradients at each checkpoint belong to the question."""
    checkpoints = len(work.checkpoints) - 1
    return work.visits, checkpoints * (1 + len(work.rows) / len(work.tests))


FRESH = ("new_row", "new_test")
METHODS = (
    Method("tracin", "TracIn-CP", fit_tracin, _tracin_passes, ("order", "rate", "trajectory", *FRESH)),
    Method("grad_dot", "Grad-Dot", lambda work: fit_final(work, False), _final_passes, FRESH),
    Method("grad_cos", "GradCos", lambda work: fit_final(work, True), _final_passes, FRESH),
)
