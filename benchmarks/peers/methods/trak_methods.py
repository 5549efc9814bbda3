"""TRAK by its own package, traker: projected gradients of the margin at the run's last checkpoints."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.peers.method import Fitted, Method
from benchmarks.peers.work import IGNORED, Work, examples_at_once

# Half of the rows: with as many or more the features' matrix has no inverse.
WIDTH, CHECKPOINTS, BATCH = 64, 5, 32
# What gradients of a batch, and as much again of their copies, may take up; and columns of the random matrix.
BATCH_GIB, MATRIX_GIB = 6, 4.5


def _log_probability(model: Any, weights: Any, buffers: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean log probability of one example's target tokens."""
    logits = torch.func.functional_call(model, (weights, buffers), kwargs={"input_ids": ids[None]}).logits[0, :-1]
    counted = (labels[1:] != IGNORED).float()
    chosen = logits.log_softmax(-1).gather(1, labels[1:].clamp(min=0)[:, None])[:, 0]
    return (chosen * counted).sum() / counted.sum()


def fit_trak(work: Work) -> Fitted:
    """Features of all rows at each of the checkpoints, whose scores are averaged."""
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import BasicProjector, ProjectionType

    class Margin(AbstractModelOutput):
        """log(p / (1 - p)) of the target, as for classification."""

        def __init__(self) -> None:
            pass

        @staticmethod
        def get_output(model: Any, weights: Any, buffers: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            right = _log_probability(model, weights, buffers, ids, labels)
            return right - torch.log1p(-right.exp() + 1e-6)

        def get_out_to_loss_grad(self, model: Any, weights: Any, buffers: Any, batch: Iterable) -> torch.Tensor:
            each = [_log_probability(model, weights, buffers, *one) for one in zip(*batch, strict=True)]
            return 1 - torch.stack(each).detach().exp()[:, None]

    model = work.model()
    size = examples_at_once(model, BATCH_GIB, BATCH)
    # The package's own choice on a CPU; elsewhere its choice is a matrix that is held whole.
    projector = BasicProjector(
        model.num_parameters(), WIDTH, 0, ProjectionType.normal, torch.device(work.device),
        block_size=examples_at_once(model, MATRIX_GIB, WIDTH),
    )  # fmt: skip
    used = work.checkpoints[-CHECKPOINTS:]
    states = [{name: value.clone() for name, value in work.model(done).state_dict().items()} for done in used]
    kept: Any = tempfile.TemporaryDirectory()
    traker = TRAKer(
        model, Margin(), len(work.rows), kept.name, device=work.device, projector=projector, proj_dim=None,
        use_half_precision=False, logging_level=logging.ERROR,
    )  # fmt: skip
    rows = work.row_batch(range(len(work.rows)))
    for number, state in enumerate(states):
        traker.load_checkpoint(state, number)
        for begin in range(0, len(work.rows), size):
            batch = (rows["input_ids"][begin : begin + size], rows["labels"][begin : begin + size])
            traker.featurize(batch, num_samples=len(batch[0]))
    traker.finalize_features()
    asked = iter(range(1000))

    def ask(tests: Sequence[int]) -> np.ndarray:
        batch, name = work.test_batch(tests), f"asked_{next(asked)}"
        for number, state in enumerate(states):
            traker.start_scoring_checkpoint(name, state, number, len(tests))
            for begin in range(0, len(tests), size):
                part = (batch["input_ids"][begin : begin + size], batch["labels"][begin : begin + size])
                traker.score(part, num_samples=len(part[0]))
        # The folder lives as long as the scores are asked for.
        assert kept
        return -np.array(traker.finalize_scores(name))

    return Fitted(ask)


def passes_of(work: Work) -> tuple[float, float]:
    """Each row's gradient and output at each checkpoint."""
    return work.visits + CHECKPOINTS * len(work.rows) * 4 / 3, CHECKPOINTS


METHODS = (
    Method(
        "trak",
        "TRAK (traker)",
        fit_trak,
        passes_of,
        ("new_test",),
        ("traker==0.3.2",),
        note=f"{CHECKPOINTS} last checkpoints of the one run, {WIDTH} projections",
    ),
)
