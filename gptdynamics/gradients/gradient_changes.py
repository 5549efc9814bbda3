"""How the gradient of a batch's loss changes along directions in weight space, and with the weights of its rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from gptdynamics.gradients.directions import ExampleLosses
from gptdynamics.measurement.logits import logit_route
from gptdynamics.models.tokens import TargetBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def gradient_changes(
    model: PreTrainedModel, batch: TargetBatch, directions: Mapping[str, torch.Tensor], row_changes: torch.Tensor
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The gradient of a batch's loss, and its derivatives along K directions, by forward mode over the backward pass.

    The loss is the weighted mean of the rows' losses; all weights are 1. A direction changes the model's weights and
    the rows' weights together.

    Args:
        model: in evaluation mode; its attention is computed with PyTorch's math kernel.
        batch: on the model's device.
        directions: `[K, ...]` for every trainable parameter, by name; a shared weight has one name.
        row_changes: `[K, rows]` the change of the rows' weights in each direction.

    Returns:
        The gradient, `[...]`, and its derivatives, `[K, ...]`, by name.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # Before the transforms, under which the trial of the model fails.
    logit_route(model)
    losses = ExampleLosses(model)
    ones = torch.ones_like(row_changes[0])
    values = {f"model.{name}": value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def loss(values: dict[str, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        return (weights * torch.func.functional_call(losses, values, (batch,))).sum() / weights.sum()

    def derivative_along(
        direction: dict[str, torch.Tensor], row_change: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return torch.func.jvp(torch.func.grad(loss), (values, ones), (direction, row_change))

    # Only this attention kernel supports forward mode; torch itself uses a deprecated function for it.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        prefixed = {name: directions[name.removeprefix("model.")] for name in values}
        gradient, changes = torch.func.vmap(derivative_along, out_dims=(None, 0))(prefixed, row_changes)
    return _plain(gradient), _plain(changes)


def _plain(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The values by the model's own parameter names, without the prefix `model.`."""
    return {name.removeprefix("model."): value for name, value in values.items()}
