"""Gradient products recorded while a run trains; no checkpoint is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from gptdynamics.gradients import directional_derivatives, gradient_products
from gptdynamics.measurement import TestSet
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.settings.kernels import spaced_steps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKPOINTS = 10


def product_steps(updates: int) -> list[int]:
    """The steps at which pool x test products are computed: ten evenly spaced ones from 0 on, and the last."""
    return sorted({*spaced_steps(updates, CHECKPOINTS), updates})


class GradientRecord:
    """Products of the gradients of each update, and of single pool examples, with those of every test example.

    For update t, with G the batch's gradient and D the optimiser's change of the weights, both at the weights before
    the update: `grad_dot` = <G, grad loss(z')> and `update_dot` = <D, grad loss(z')>. The learning rate times
    `grad_dot` is TracIn's prediction of how far the loss falls; `update_dot` is the loss's first-order change.

    Args:
        model: the model that is trained.
        pool: the pool's examples, in id order.
        test_set: the test examples.
        updates: number of updates of the run.
    """

    # Products are exact.
    kernel: ClassVar[None] = None

    def __init__(
        self, model: PreTrainedModel, pool: Sequence[TokenizedExample], test_set: TestSet, updates: int
    ) -> None:
        self.model = model
        self.pool = pool
        self.test_set = test_set
        self.steps = product_steps(updates)
        self.products: dict[int, np.ndarray] = {}
        self._rows: list[np.ndarray] = []
        self._trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._gradient: dict[str, torch.Tensor] = {}
        self._weights: dict[str, torch.Tensor] = {}

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """`grad_dot` and `update_dot`: `[test examples, updates]` float32."""
        derivatives = np.stack(self._rows, axis=-1)
        return {"grad_dot": derivatives[0], "update_dot": derivatives[1]}

    def take_products(self, step: int) -> None:
        """Compute the pool x test products, if they are due after `step` updates."""
        if step in self.steps:
            self.products[step] = gradient_products(self.model, self.pool, self.test_set.tokenized)

    @torch.no_grad()
    def before_update(self) -> None:
        """Hold the batch's gradient (not a copy of it) and the weights, between backward and the optimiser's step."""
        self._gradient = {
            name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in self._trained.items()
        }
        self._weights = {name: value.detach().clone() for name, value in self._trained.items()}

    def no_update(self) -> None:
        """Record zeros for a batch without examples, which makes no update."""
        self._rows.append(np.zeros((2, len(self.test_set.losses.examples)), dtype=np.float32))

    @torch.no_grad()
    def after_update(self) -> None:
        """Compute the derivatives of every test loss along G and D, at the weights before the update."""
        updated = {name: value.data for name, value in self._trained.items()}
        change = {name: updated[name] - self._weights[name] for name in updated}
        losses = self.test_set.losses
        self._put(self._weights)
        try:
            with torch.enable_grad():
                derivatives = directional_derivatives(
                    self.model, losses.batches, [self._gradient, change], len(losses.examples)
                )
        finally:
            self._put(updated)
        self._rows.append(derivatives)

    def _put(self, values: dict[str, torch.Tensor]) -> None:
        """Set the model's weights to these, without copying."""
        for name, value in self._trained.items():
            value.data = values[name]
