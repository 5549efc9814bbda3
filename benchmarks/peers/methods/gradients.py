"""Products of exact gradients over all weights: TracIn-CP, Grad-Dot and the cosine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.peers.method import Fitted, Method
from benchmarks.peers.work import Batch, Curricula, Work, losses_of


def gradients(model: torch.nn.Module, batches: Sequence[Batch]) -> torch.Tensor:
    """The gradient of the loss of each batch of one example: `[examples, weights]`."""
    weights = list(model.parameters())
    found = []
    for batch in batches:
        loss = losses_of(model(input_ids=batch["input_ids"]).logits, batch["labels"]).sum()
        found.append(torch.cat([each.flatten() for each in torch.autograd.grad(loss, weights)]))
    return torch.stack(found)


def _rows(work: Work, done: int | None = None) -> tuple[torch.nn.Module, torch.Tensor]:
    model = work.model(done)
    return model, gradients(model, [work.row_batch([place]) for place in range(len(work.rows))])


def fit_final(work: Work, cosine: bool) -> Fitted:
    """Gradients at the end of the run."""
    model, rows = _rows(work)

    def ask(tests: Sequence[int]) -> np.ndarray:
        asked = gradients(model, [work.test_batch([place]) for place in tests])
        products = rows @ asked.T
        if cosine:
            products /= rows.norm(dim=1)[:, None] * asked.norm(dim=1)
        return -products.numpy()

    return Fitted(ask)


def fit_tracin(work: Work) -> Fitted:
    """The checkpoint before each update, with the update's rate and the row's share of its batch."""
    used = work.checkpoints[:-1]
    place = {row: index for index, row in enumerate(work.rows)}
    known: dict[tuple[int, ...], np.ndarray] = {}

    def products(tests: Sequence[int]) -> np.ndarray:
        """At each checkpoint `[C, N, m]`; the rows' gradients of all checkpoints together would be gigabytes."""
        if tuple(tests) not in known:
            batches, found = [work.test_batch([test]) for test in tests], []
            for done in used:
                model, rows = _rows(work, done)
                found.append((rows @ gradients(model, batches).T).numpy())
            known[tuple(tests)] = np.stack(found)
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
