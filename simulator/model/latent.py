"""The latent of a metric, which effects are added to, and how large an effect may grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .configuration_gptfluence import Scale

# A smaller loss is taken as this one: its log-odds would say more than a float32 loss does.
SMALLEST_LOSS = 1e-3


def to_latent(values: torch.Tensor, scale: Scale) -> torch.Tensor:
    """Latent of values of a metric, any shape: the log-odds log(exp(value) - 1) of a loss, else the value."""
    if scale.latent == "value":
        return values
    values = values.clamp(min=SMALLEST_LOSS)
    return values + torch.log(-torch.expm1(-values))


def from_latent(latent: torch.Tensor, scale: Scale) -> torch.Tensor:
    """Values of a metric, within its range, from their latent."""
    if scale.latent == "value":
        return latent.clamp(scale.least, scale.greatest)
    return torch.nn.functional.softplus(latent)


def limited(effect: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """The effect itself up to `limit`; a larger one grows ever more slowly, to at most twice the limit."""
    size = limit.clamp(min=torch.finfo(effect.dtype).tiny)
    excess = (effect.abs() - size).clamp(min=0)
    return effect.clamp(-size, size) + effect.sign() * size * torch.tanh(excess / size)
