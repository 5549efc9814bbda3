"""Inner products of the loss gradients of pool and test examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.measurement.logits import target_logits
from gptdynamics.measurement.loss import example_losses
from gptdynamics.models.tokens import TokenizedExample, make_target_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEMORY = 2**31


def example_gradients(
    model: PreTrainedModel, examples: Sequence[TokenizedExample]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The gradient of each example's loss, one tensor for each trainable parameter; `.grad` is not touched."""
    weights = [value for value in model.parameters() if value.requires_grad]
    for example in examples:
        batch = make_target_batch([example], [0]).to(model.device)
        with torch.enable_grad():
            loss = example_losses(target_logits(model, batch), batch).sum()
            result = torch.autograd.grad(loss, weights, allow_unused=True)
        yield tuple(
            torch.zeros_like(weight) if gradient is None else gradient
            for weight, gradient in zip(weights, result, strict=True)
        )


def gradient_products(
    model: PreTrainedModel, pool: Sequence[TokenizedExample], test: Sequence[TokenizedExample], memory: int = MEMORY
) -> np.ndarray:
    """<grad loss(z), grad loss(z')> at the model's weights, exact over all trainable parameters.

    Args:
        model: in evaluation mode; it is not changed.
        pool: the examples z.
        test: the examples z'.
        memory: bytes that gradients may take up; if the pool's do not fit, the test examples' gradients are computed
            again for each part of the pool.

    Returns:
        `[pool, test]` float32.
    """
    size = sum(value.numel() for value in model.parameters() if value.requires_grad)
    # One row in nine is for test examples: with fewer, reading all of the pool's rows for each of them costs more.
    rows = max(2, memory // (4 * size))
    columns = min(max(1, rows // 9), len(test))
    at_once = min(rows - columns, len(pool)) or 1
    pool_rows = torch.empty((at_once, size), device=model.device)
    test_rows = torch.empty((columns, size), device=model.device)

    def fill_rows(target: torch.Tensor, examples: Sequence[TokenizedExample]) -> torch.Tensor:
        for place, gradient in enumerate(example_gradients(model, examples)):
            torch.cat([part.flatten() for part in gradient], out=target[place])
        return target[: len(examples)]

    products = np.empty((len(pool), len(test)), dtype=np.float32)
    for start in range(0, len(pool), at_once):
        left = fill_rows(pool_rows, pool[start : start + at_once])
        for column in range(0, len(test), columns):
            right = fill_rows(test_rows, test[column : column + columns])
            products[start : start + len(left), column : column + len(right)] = (left @ right.T).cpu().numpy()
    return products
