"""TracInCP by captum: exact gradients at the run's checkpoints, each with its learning rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.peers.method import Fitted, Method, check_size
from benchmarks.peers.work import Work, losses_of

BATCH = 32


class Logits(torch.nn.Module):
    """The model as captum calls it: token ids in, logits out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids).logits


def fit_tracincp(work: Work) -> Fitted:
    """Nothing is kept between questions: the rows' gradients are taken again for each."""
    ended = work.model()
    model = Logits(ended)
    rows = work.row_batch(range(len(work.rows)))
    done = [*work.checkpoints[1:-1], len(work.learning_rate)]
    numbers = ended.num_parameters() * len(work.tests) * len(done)
    check_size(numbers, "gradients of all test examples at all checkpoints")
    from captum.influence import TracInCP

    def load(model: Logits, checkpoint: int) -> float:
        model.model.load_state_dict(work.model(checkpoint).state_dict())
        return work.learning_rate[checkpoint - 1]

    found = TracInCP(
        model,
        torch.utils.data.TensorDataset(rows["input_ids"], rows["labels"]),
        done,
        load,
        loss_fn=losses_of,
        batch_size=BATCH,
    )

    def ask(tests: Sequence[int]) -> np.ndarray:
        batch = work.test_batch(tests)
        influence = found.influence((batch["input_ids"], batch["labels"]))
        return -influence.detach().T.cpu().numpy()

    return Fitted(ask)


def passes_of(work: Work) -> tuple[float, float]:
    """The rows' gradients at each checkpoint belong to the question."""
    checkpoints = len(work.checkpoints) - 1
    return work.visits, checkpoints * (1 + len(work.rows) / len(work.tests))


METHODS = (
    Method("captum_tracin", "TracInCP (captum)", fit_tracincp, passes_of, ("new_row", "new_test"), ("captum==0.9.0",)),
)
