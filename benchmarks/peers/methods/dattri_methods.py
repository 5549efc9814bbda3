"""Influence functions by dattri: DataInf."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.peers.method import Fitted, Method, check_size
from benchmarks.peers.work import IGNORED, Work

BATCH = 16
# dattri's own examples take values between 0.1 and 0.001.
REGULARIZATION = 0.01


def fit_dattri(work: Work, attributor: str) -> Fitted:
    """An attributor of dattri with all weights, at the end of the run."""
    model = work.model()
    check_size(model.num_parameters() * len(work.rows), "gradients of all rows")
    from dattri.algorithm import influence_function
    from dattri.task import AttributionTask

    def loss(params: dict[str, torch.Tensor], data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        ids, labels = (each.reshape(-1, each.shape[-1]) for each in data)
        logits = torch.func.functional_call(model, params, kwargs={"input_ids": ids}).logits[:, :-1]
        counted = (labels[:, 1:] != IGNORED).float()
        chosen = logits.log_softmax(-1).gather(2, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
        return -((chosen * counted).sum(1) / counted.sum(1)).mean()

    task = AttributionTask(loss, model, model.state_dict())
    made: Callable = getattr(influence_function, attributor)
    found = made(task, device=work.device, regularization=REGULARIZATION)

    def loader(batch: dict[str, torch.Tensor]) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(batch["input_ids"], batch["labels"]), batch_size=BATCH
        )

    rows = loader(work.row_batch(range(len(work.rows))))
    found.cache(rows)

    def ask(tests: Sequence[int]) -> np.ndarray:
        return -found.attribute(rows, loader(work.test_batch(tests))).detach().cpu().numpy()

    return Fitted(ask)


def datainf_passes(work: Work) -> tuple[float, float]:
    """The rows' gradients are kept from fitting, but taken again for each batch of test examples."""
    return work.visits + len(work.rows), 1 + len(work.rows) / BATCH


METHODS = (
    Method(
        "datainf",
        "DataInf (dattri)",
        partial(fit_dattri, attributor="IFAttributorDataInf"),
        datainf_passes,
        ("new_row", "new_test"),
        ("dattri==0.3.0",),
        note=f"regularization {REGULARIZATION}",
    ),
)
