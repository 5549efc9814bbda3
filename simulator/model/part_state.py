"""The tensors that each config and metric of a simulator has of its own."""

from __future__ import annotations

import torch

from .configuration_gptfluence import GPTfluenceConfig
from .intervals import QUANTILES
from .kinds import kind_of


class PartState(torch.nn.Module):
    """What one config and metric have of their own: bands, and the dynamics if they share no weights."""

    band_scale: torch.Tensor
    band_scores: torch.Tensor
    unseen_band_scale: torch.Tensor
    unseen_band_scores: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__()
        register_bands(self, config)
        if not kind_of(config).shares_weights:
            self.dynamics = kind_of(config)(config)


def register_bands(module: torch.nn.Module, config: GPTfluenceConfig) -> None:
    """Give a module the tensors that bands are made of, to be set or loaded."""
    module.register_buffer("band_scale", torch.zeros(config.steps + 1, len(config.test_keys)))
    module.register_buffer("band_scores", torch.zeros(QUANTILES))
    module.register_buffer("unseen_band_scale", torch.zeros(config.steps + 1))
    module.register_buffer("unseen_band_scores", torch.zeros(QUANTILES))
